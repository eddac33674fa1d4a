"""The hallucination study from the first answer to the report, on the organism."""

import math
import re

import polars as pl
import pytest

from fluoroscope.core.config import build
from fluoroscope.core.errors import ConfigError, CorpusError, RunError
from fluoroscope.data.answers.sets import REPEATED
from fluoroscope.runs.engine import execute
from fluoroscope.runs.how import How
from fluoroscope.studies.hallucination.methods import (
    BASELINE,
    COMBINED,
    TRACKING,
    WORDS_APART,
    methods,
)
from fluoroscope.studies.hallucination.metrics.describe import METRICS
from fluoroscope.studies.hallucination.spec import HallucinationSpec
from fluoroscope.studies.hallucination.steps.answers import check_left_out
from fluoroscope.studies.hallucination.steps.features import features, readable_answers
from fluoroscope.studies.hallucination.study import HallucinationStudy
from fluoroscope.studies.settings import study_spec

pytestmark = pytest.mark.long

STATED = {"name": "true-false", "answers": "stated"}
SMALL = {
    "model": "organism",
    "saes": {"source": "organism:batch_topk", "hook_points": "2-3.resid_post"},
    "data": {"name": "organism", "limit": 40},
    "answers": {"max_tokens": 8, "samples": 2},
    "read": {"answers_per_shard": 15},
    "tracking": {"sample": 100},
}


def small(**changes):
    return build(HallucinationSpec, {**SMALL, **changes})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    spec = study_spec("hallucination", "hallucination/tiny", None, [])
    folder = tmp_path_factory.mktemp("runs")
    how = How(executor="processes", workers=2)
    with pytest.MonkeyPatch.context() as patch:
        # What is drawn is tested where figures are.
        patch.setattr("fluoroscope.runs.report.save_chart", lambda *_: None)
        return execute(HallucinationStudy(), spec, "tiny", how, root=folder)


def table(run, name):
    return pl.read_csv(run.folder / "tables" / f"{name}.csv")


def headings(run):
    page = (run.folder / "report.html").read_text(encoding="utf-8")
    return re.findall(r"<h2[^>]*>(.*?)</h2>", page)


def test_the_report_says_whether_tracking_tells_anything_beside_all_that_is_simpler(run):
    expected = [
        "Does tracking tell anything?",
        "Methods",
        "Which errors are made",
        "Which kinds are told",
        "How far scores can be believed",
        "Single answers",
        "A true answer beside a made-up one",
        "Trackers on known tracks",
        "What was judged",
    ]
    found = [one.split("<")[0] for one in headings(run)]
    assert [one for one in found if one in expected] == expected
    methods = table(run, "methods")
    assert {"style", "uncertainty", "latents", BASELINE, TRACKING, COMBINED} <= set(
        methods["method"]
    )
    assert methods.select(pl.col("auroc_low") < pl.col("auroc")).to_series().all()
    against = table(run, "against")
    assert set(against["other"]) == set(methods["method"]) - {COMBINED}
    noise = table(run, "gates").filter(pl.col("name") == "AUROC of noise")
    assert abs(noise["value"][0] - 0.5) < 0.1
    trackers = table(run, "trackers")
    assert set(trackers["tracker"]) == {"optimum", "mht", "jpda", "nearest", "greedy", "seed_cost"}
    claims = table(run, "tracker_claims")
    assert set(claims["claim"]) == {"MHT beats nearest", "nearest beats greedy"}
    assert set(claims["world"]) == set(trackers["world"])


def test_what_the_world_knows_of_an_answer_is_its_label(run):
    answers = table(run, "answers").filter(pl.col("label_source") == "world")
    share = dict(zip(answers["category"], answers["made_up"] / answers["answers"], strict=True))
    assert share["unknown, surname misleads"] == 1
    assert share["well known"] == 0


def test_every_answer_that_was_left_out_is_counted_with_its_reason(run):
    left_out = table(run, "left_out")
    # Nobody is right or wrong who says that they are not sure.
    assert "it says that it does not know" in left_out["reason"].to_list()
    records = pl.read_parquet(run.folder / "answers" / "records.parquet")
    asked = 160  # Groups; some people are asked about more than once.
    assert len(records) + int(left_out["answers"].sum()) >= asked


@pytest.mark.usefixtures("no_pictures")
def test_trackers_alone_are_judged_without_a_single_answer(tmp_path):
    spec = small(validation={"scenes": 2})
    made = execute(HallucinationStudy(), spec, "t", root=tmp_path, only=["validate_tracker"])
    assert not (made.folder / "answers").exists()
    assert [one.split("<")[0] for one in headings(made)] == ["Trackers on known tracks"]


def statements(folder, rows):
    file = folder / "animals_true_false.csv"
    file.write_text("statement,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    return {**STATED, "path": str(file)}


def test_an_answer_that_is_too_long_is_named_and_not_lost_in_silence(tmp_path):
    rows = [(f"The cat number {i} is a bird.", i % 2) for i in range(20)]
    data = statements(tmp_path, [*rows, ("word " * 300, 1)])
    spec = small(data=data, answers={"samples": 0})
    made = execute(HallucinationStudy(), spec, "long", root=tmp_path, until="read")
    unread = pl.read_parquet(made.folder / "read" / "unread.parquet")
    assert len(unread) == 1
    assert "reads 256" in unread["reason"][0]
    assert len(pl.read_parquet(made.folder / "read" / "answers.parquet")) == 20


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures")
def test_statements_without_prompts_are_judged_though_no_question_has_a_word(tmp_path):
    file = tmp_path / "statements.csv"
    lines = [f"The thing {i} is a {'cat' if i % 2 else 'dog'},{i % 2},t{i // 2}" for i in range(48)]
    file.write_text("\n".join(["statement,label,topic", *lines]))
    spec = small(
        data={**STATED, "path": str(file)},
        answers={"samples": 0},
        detection={
            "folds": 2, "repeats": 1, "resamples": 40, "permutations": 1, "also": [],
        },
    )  # fmt: skip
    made = execute(HallucinationStudy(), spec, "bare", root=tmp_path, until="evaluate")
    rows = pl.read_csv(made.folder / "tables" / "methods.csv")
    questions = rows.filter(pl.col("method") == "words of the question")
    assert questions["auroc"][0] == 0.5
    # Its answers are told by one word, so here no interval can be told either.
    assert rows.filter(pl.col("method") == "words of the answer")["auroc"][0] == 1


def test_a_run_is_not_continued_on_other_answers(tmp_path):
    rows = [(f"The cat number {i} is a bird.", i % 2) for i in range(20)]
    spec = small(data=statements(tmp_path, rows), answers={"samples": 0})
    execute(HallucinationStudy(), spec, "same", root=tmp_path, until="answers")
    statements(tmp_path, [(text, 1 - label) for text, label in rows])
    with pytest.raises(RunError, match="data animals_true_false"):
        execute(HallucinationStudy(), spec, "same", root=tmp_path, until="read")


def test_repeats_take_nothing_away_and_a_limit_is_not_set_against_the_whole_file():
    check_left_out(10, [REPEATED] * 500)
    check_left_out(10, ["odd"] * 10)
    with pytest.raises(CorpusError, match=r"11 of 21 answers cannot be used \(11 x odd\)"):
        check_left_out(10, ["odd"] * 11 + [REPEATED])


def test_answers_of_one_kind_alone_are_refused(tmp_path):
    data = statements(tmp_path, [(f"The cat number {i} is a bird.", 0) for i in range(20)])
    with pytest.raises((CorpusError, RunError), match="made up"):
        execute(HallucinationStudy(), small(data=data), "one", root=tmp_path, until="answers")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"saes": None}, "whose latents are looked at"),
        ({"saes": {"source": "organism:batch_topk", "hook_points": "2.resid_post"}}, "two layers"),
        ({"tracking": {"tracker": "mth"}}, "mth"),
        ({"detection": {"detector": "logistics"}}, "logistics"),
        ({"data": {"name": "truthfulqua"}}, "truthfulqua"),
        ({"answers": {"samples": 1}}, "one agrees with nobody"),
        ({"answers": {"sample_sampling": {"temperature": 0}}}, "nothing to chance"),
    ],
)
def test_what_a_later_step_would_refuse_is_refused_before_the_first_answer(
    tmp_path, changes, message
):
    with pytest.raises(ConfigError, match=message):
        execute(HallucinationStudy(), small(**changes), "bad", root=tmp_path)
    assert not list(tmp_path.iterdir())


def test_methods_look_at_named_columns_of_the_same_answers(run):
    n = len(readable_answers(run))
    for name, method in methods(run.config).items():
        found = features(run, run.config, method.columns)
        assert len(found.x) == n, name
        assert len(found.names) == (0 if method.kind == "text" else found.x[0].size), name
    both = features(run, run.config, COMBINED).names
    assert both[-len(METRICS)] == f"{next(iter(METRICS))} of the answer"
    assert "surprise of words" in features(run, run.config, BASELINE).names


def test_every_method_is_judged_by_the_order_it_settled_on_before(run):
    folder = run.shard_folder("evaluate", "all")
    rows = {row["method"]: row for row in pl.read_parquet(folder / "methods.parquet").to_dicts()}
    entropy = rows["token entropy alone"]
    assert entropy["kind"] == "raw"
    assert math.isnan(entropy["accuracy"])
    # The world is made so that the model is less sure of what it makes up.
    assert entropy["auroc_low"] > 0.5
    # To know an answer again tells something here, but nothing among answers of one text.
    assert rows["words of the answer"]["auroc"] > 0.6
    assert rows["words of the answer"]["auroc_same_answer"] == 0.5
    # One of a few cities is the answer to every question, so all of them hang together.
    assert WORDS_APART not in rows
    detectors = pl.read_parquet(folder / "detectors.parquet")
    assert detectors["detector"].to_list() == ["logistic", "forest", "boosting"]
    assert detectors["both"][0] == rows[COMBINED]["auroc"]
    assert pl.read_parquet(folder / "abstention.parquet")["promised"].to_list() == [0.05, 0.1, 0.2]
