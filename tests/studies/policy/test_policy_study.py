"""The whole study on the organism: as `--preset tiny`, cut short, and what it refuses."""

import polars as pl
import pytest
from strikes import end_after_strikes

from fluoroscope.core.config import build
from fluoroscope.core.errors import ConfigError, FluoroscopeError
from fluoroscope.core.storage import sha256_folder
from fluoroscope.runs.engine import execute
from fluoroscope.runs.how import How
from fluoroscope.studies.policy.action_log import scripts_of_rows
from fluoroscope.studies.policy.judging import EVERYWHERE, NEVER, ORACLE, POLICY, STATIC
from fluoroscope.studies.policy.spec import PolicySpec
from fluoroscope.studies.policy.steps.candidates import best_candidates
from fluoroscope.studies.policy.study import PolicyStudy
from fluoroscope.studies.settings import study_spec

BASE = {
    "model": "organism",
    "saes": {"source": "organism:batch_topk", "hook_points": "4.resid_post"},
    "task": {"name": "organism-bias", "limit": 80},
    "towards": 0.5,
    "collect": {"shuffles": 20, "resamples": 10, "min_active": 5},
    "candidates": {"n": 2, "multiples": [1.0], "draws": 1, "only_significant": False},
    "learn": {
        "by": ["rewards", "texts"],
        "seeds": 2,
        "exact_iterations": 20,
        "text_iterations": 2,
        "training": {"n_prompts": 3, "group_size": 2, "price": 0.02},
    },
    "evaluate": {"within": "is_biased", "texts": 4, "replies": 2, "logged": 4, "branches": 2},
}


def small(**changes):
    return build(PolicySpec, {**BASE, **changes})


def changed(key, **values):
    return {key: {**BASE[key], **values}}


@pytest.fixture(autouse=True)
def _no_pictures(no_pictures):
    """What is drawn is tested where figures are."""


@pytest.mark.long
@pytest.mark.slow
def test_the_preset_learns_to_act_on_the_biased_alone_and_its_log_replays(tmp_path):
    spec = study_spec("policy", "tiny", None, [])
    run = execute(PolicyStudy(), spec, "tiny", How(devices="cpu"), root=tmp_path)
    values = pl.read_parquet(run.folder / "evaluate" / "values.parquet")
    own = values.filter(pl.col("seed").is_null(), source="exact", mode="exact")
    free = values.filter(pl.col("seed").is_null(), source="exact", mode="")

    def of(frame, method, part, column):
        return frame.filter(method=method, part=part)[column][0]

    assert of(own, POLICY, EVERYWHERE, "of_optimum") > 0.9
    assert of(own, POLICY, "is_biased yes", "acting") > 0.9
    assert of(own, POLICY, "is_biased no", "acting") < 0.1
    # A static action moves what was fair; the policy leaves it.
    assert abs(of(free, STATIC, "is_biased no", "score") - 0.5) > 0.03
    assert abs(of(own, POLICY, "is_biased no", "score") - 0.5) < 0.01
    assert of(free, STATIC, EVERYWHERE, "of_optimum") < of(own, POLICY, EVERYWHERE, "of_optimum")
    for row in values.iter_rows(named=True):
        bound = free.filter(method=ORACLE, part=row["part"])
        if row["source"] == "exact" and row["set"] == "best":
            assert row["return"] <= bound["return"][0] + 1e-9
    assert of(free, NEVER, EVERYWHERE, "acting") == 0
    replies = pl.read_parquet(run.folder / "replay" / "replies.parquet")
    assert replies["is_same_again"].all()
    log = pl.read_parquet(run.folder / "replay" / "log.parquet")
    scripts = scripts_of_rows(log.to_dicts(), len(replies))
    assert [len(script) for script in scripts] == replies["n_tokens"].to_list()
    toy = pl.read_parquet(run.folder / "toy" / "values.parquet")
    assert toy["share"].min() >= 0.95
    page = (run.folder / "report.html").read_text()
    assert "of what the best action of each sample" in page
    assert "the same text in 12 of 12" in page


@pytest.mark.long
@pytest.mark.slow
def test_stopped_in_every_step_it_ends_with_the_bytes_of_one_that_was_left_alone(
    tmp_path, monkeypatch
):
    study, how = PolicyStudy(), How(devices="cpu")
    whole = execute(study, small(), "whole", how, root=tmp_path)
    names = [step.name for step in study.steps(study.resolve(small()))]
    monkeypatch.setattr(PolicyStudy, "steps", PolicyStudy.steps)

    def start():
        return execute(PolicyStudy(), small(), "struck", how, root=tmp_path)

    run, strikes = end_after_strikes(PolicyStudy, start, ["learn-merge"], tmp_path / "struck-ones")
    assert strikes == {*names, "learn-merge"}
    for name in (*names, "tables"):
        assert sha256_folder(run.folder / name) == sha256_folder(whole.folder / name), name


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (changed("candidates", n=65), "less than or equal to 64"),
        (changed("candidates", multiples=[0.0]), "doing nothing is always there"),
        (changed("learn", training={"price": -0.1}), "greater than or equal to 0"),
        ({"task": {"name": "gsm8k"}, "learn": {"by": ["rewards"]}}, "cannot be enumerated"),
        ({"task": {"name": "stereoset"}, "learn": {"by": ["texts"]}}, "no scorer of generated"),
        (changed("candidates", hook_points=["9.resid_post"]), "there are SAEs at 4.resid_post"),
        (changed("candidates", pool="mean"), "add it there"),
        (changed("evaluate", others=["organism-bias"]), "names a task twice"),
        (changed("evaluate", others=["gsm8k"]), "others are judged"),
        (changed("learn", by=["texts"], sampling={"temperature": 0}), "the same reply"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_done(changes, said):
    settings = {**BASE, "data_dir": "/nowhere", **changes}
    with pytest.raises(FluoroscopeError, match=said):
        PolicyStudy().resolve(build(PolicySpec, settings))


@pytest.mark.long
@pytest.mark.slow
def test_a_reward_that_no_action_changes_is_said_to_be_so_with_what_was_tried(tmp_path):
    """A push of a billionth moves no probability."""
    spec = small(
        candidates={**BASE["candidates"], "multiples": [1e-9], "draws": 0},
        learn={**BASE["learn"], "by": ["rewards"]},
    )
    with pytest.raises(FluoroscopeError, match=r"nothing to learn. Tried: 4.resid_post \d+"):
        execute(PolicyStudy(), spec, "flat", How(devices="cpu", retries=0), root=tmp_path)


def latents(**changes):
    columns = {
        "hook_point": ["1.resid_post", "1.resid_post", "2.resid_post", "2.resid_post"],
        "latent": [3, 4, 5, 6],
        "r": [0.4, -0.5, -0.9, 0.1],
        "sign": [1, -1, -1, 1],
        "is_tested": [True] * 4,
        "is_significant": [True, True, True, False],
        "mean_active": [2.0, 3.0, 4.0, 5.0],
    }
    return pl.DataFrame({**columns, **changes})


def chosen(table=None, **settings):
    spec = small(candidates=settings).candidates
    found = best_candidates(latents() if table is None else table, spec)
    return list(found.select("latent", "coefficient").iter_rows())


def test_candidates_are_the_best_of_the_hook_point_with_the_largest_r():
    assert chosen() == [(5, -4.0)]
    assert chosen(only_significant=False) == [(5, -4.0), (6, 5.0)]
    both = ["1.resid_post", "2.resid_post"]
    assert chosen(hook_points=both) == [(5, -4.0), (4, -3.0), (3, 2.0)]
    assert chosen(hook_points=both, n=1) == [(5, -4.0)]
    assert chosen(sign="positive") == [(3, 2.0)]


def test_without_any_candidate_it_says_how_many_there_were():
    none = latents(is_significant=[False] * 4)
    with pytest.raises(ConfigError, match=r"of 4, 4 are active in enough .* and 0 of them"):
        chosen(none)
    with pytest.raises(ConfigError, match=r"hook_points has 7.resid_post"):
        chosen(hook_points=["7.resid_post"])
