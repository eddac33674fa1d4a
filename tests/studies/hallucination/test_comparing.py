"""Runs of the study side by side: paired where they share questions, and tried on each other."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from fluoroscope.core.config import build
from fluoroscope.core.intervals import Interval
from fluoroscope.data.answers.record import AnswerRecord
from fluoroscope.runs.run import Run
from fluoroscope.studies.hallucination import comparing, pairing, transfer
from fluoroscope.studies.hallucination.comparing import NOT_PAIRED, paired_table
from fluoroscope.studies.hallucination.detection.comparisons import compare
from fluoroscope.studies.hallucination.detection.scores import Scored, aurocs, scored
from fluoroscope.studies.hallucination.methods import Method
from fluoroscope.studies.hallucination.pairing import Shared, compare_paired, shared_questions
from fluoroscope.studies.hallucination.settings import (
    AnswerSettings,
    DataSettings,
    DetectionSettings,
    TrackingSettings,
)
from fluoroscope.studies.hallucination.steps.features import Features


class FakeRun(Run):
    """What comparing reads of a run, without a folder."""

    scores: dict[str, Scored]
    features: dict[str, Features]

    def __init__(self, name, records, answers, config):
        self.folder, self.config = Path(name), config
        self.records, self.answers = records, answers


def fake_run(name, prompts, labels, groups=None, completions=None, **config):
    groups = groups or prompts
    completions = completions or [f" {name} {i}" for i in range(len(prompts))]
    records = [
        AnswerRecord(
            id=f"{prompt}/{i}",
            group_id=group,
            dataset="set",
            prompt=prompt,
            completion=completion,
            label=int(label),
            label_source="exact",
            answer_span=(0, len(completion)),
        )
        for i, (prompt, group, completion, label) in enumerate(
            zip(prompts, groups, completions, labels, strict=True)
        )
    ]
    kind = {
        "answers": AnswerSettings(),
        "data": DataSettings(),
        "detection": DetectionSettings(resamples=200, folds=2, repeats=1),
        "tracking": TrackingSettings(),
        "seed": 0,
    }
    answers = pl.DataFrame(
        {
            "id": [one.id for one in records],
            "group_id": [one.group_id for one in records],
            "label": np.array(labels, np.int8),
        }
    )
    return FakeRun(name, records, answers, SimpleNamespace(**{**kind, **config}))


@pytest.fixture(autouse=True)
def reading(monkeypatch):
    """Steps that are read from fakes instead of folders."""
    for module in (pairing, transfer):
        monkeypatch.setattr(module, "readable_answers", lambda run: run.answers)
        monkeypatch.setattr(module, "read_answer_records", lambda run: run.records)
    for module in (comparing, transfer):
        monkeypatch.setattr(module, "read_scores", lambda run, config: run.scores)
    monkeypatch.setattr(transfer, "methods", lambda config: config.methods)
    monkeypatch.setattr(transfer, "features", lambda run, config, columns: run.features[columns])


def draws(n, signal, seed, labels=None):
    """Scores, labels, and groups of three rows."""
    luck = np.random.default_rng(seed)
    labels = luck.random(n) < 0.4 if labels is None else labels
    return luck.normal(size=n) + signal * labels, labels, np.arange(n) // 3


def compared(*arguments):
    """By `compare_paired`, where there is enough to compare."""
    found = compare_paired(*arguments)
    assert found is not None
    return found


def whole(n, is_same=True):
    rows = np.ones(n, bool)
    return Shared(rows, rows, len(np.unique(np.arange(n) // 3)), is_same)


def test_the_same_answers_in_the_same_folds_are_compared_row_by_row():
    x, labels, groups = draws(300, 1.0, 0)
    one, other = scored(x, labels, groups), scored(draws(300, 0.3, 1, labels)[0], labels, groups)
    found, how = compared(one, other, whole(300), 0, 500)
    assert how == "answers"
    assert found == compare(one, other, 0, 500)


def test_pairing_by_question_is_pairing_by_answer_where_both_can_be_done():
    x, labels, groups = draws(300, 1.0, 0)
    one, other = scored(x, labels, groups), scored(draws(300, 0.3, 1, labels)[0], labels, groups)
    found, how = compared(one, other, whole(300, is_same=False), 0, 500)
    assert how == "questions"
    np.testing.assert_allclose(found.difference, compare(one, other, 0, 500).difference)
    assert found.p == compare(one, other, 0, 500).p


def test_models_with_answers_of_their_own_are_compared_over_the_questions_of_both():
    """Questions that are hard for both vary together, so the paired interval is the narrower."""
    n, luck = 600, np.random.default_rng(3)
    groups = np.arange(n) // 6
    # How much a score tells of a question's answers is alike in both models.
    tells = luck.normal(1.0, 2.0, size=groups.max() + 1)[groups]
    found = []
    for seed in (1, 2):
        own = np.random.default_rng(seed)
        labels = own.random(n) < 0.5
        found.append(scored(tells * labels + 0.1 * own.normal(size=n), labels, groups))
    rows = np.ones(n, bool)
    shared = Shared(rows, rows, int(groups.max()) + 1, False)
    paired, how = compared(found[0], found[1], shared, 0, 1000)
    assert how == "questions"
    alone = [aurocs(one, np.ones((1, groups.max() + 1)))[0] for one in found]
    assert paired.difference.value == pytest.approx(alone[0] - alone[1])
    width = paired.difference.high - paired.difference.low
    apart = np.hypot(paired.one.high - paired.one.low, paired.other.high - paired.other.low)
    assert width < 0.6 * apart
    assert paired.difference.low < 0 < paired.difference.high


def test_a_model_that_tells_more_is_ahead_by_an_interval_above_0():
    rows = np.ones(600, bool)
    one, other = scored(*draws(600, 2.0, 1)), scored(*draws(600, 0.0, 2))
    found, _ = compared(one, other, Shared(rows, rows, 200, False), 0, 1000)
    assert found.difference.low > 0.2
    assert found.p < 0.01


def test_fewer_than_10_shared_groups_or_one_label_are_not_paired():
    one = scored(*draws(300, 1.0, 0))
    few = np.arange(300) < 27
    assert compare_paired(one, one, Shared(few, few, 9, True), 0, 100) is None
    made_up = one.labels
    assert compare_paired(one, one, Shared(made_up, made_up, 80, True), 0, 100) is None


def test_only_questions_with_one_name_and_one_prompt_are_shared():
    one = fake_run("one", ["a", "b", "c", "d"], [0, 1, 0, 1])
    other = fake_run("other", ["b", "c", "d", "e"], [0, 1, 0, 1], groups=["b", "x", "d", "e"])
    found = shared_questions(one, other)
    assert found.one.tolist() == [False, True, False, True]
    assert found.other.tolist() == [True, False, True, False]
    assert (found.n_groups, found.is_same_rows) == (2, False)
    assert shared_questions(one, one).is_same_rows


def test_the_table_of_pairs_corrects_for_all_methods_and_says_how_it_paired():
    prompts = [f"q{i}" for i in range(60)]
    labels = np.arange(60) % 2
    one, other = (fake_run(name, prompts, labels) for name in ("one", "other"))
    groups = one.answers["group_id"].to_numpy()
    for run, signal in ((one, 3.0), (other, 0.0)):
        run.scores = {
            name: scored(draws(60, signal, seed, labels)[0], labels, groups)
            for seed, name in enumerate(("style", "latents"))
        }
    found = paired_table(one, other, ("one", "other"))
    assert found["paired_by"].to_list() == ["questions"] * 2
    assert (found["difference_low"] > 0).all()
    assert (found["p_holm"] >= found["p"]).all()
    assert found["n_compared"].to_list() == [2, 2]


def test_a_method_that_scores_the_same_in_both_does_not_count_as_compared():
    prompts = [f"q{i}" for i in range(60)]
    labels = np.arange(60) % 2
    one, other = (fake_run(name, prompts, labels) for name in ("one", "other"))
    groups = one.answers["group_id"].to_numpy()
    same = scored(draws(60, 1.0, 0, labels)[0], labels, groups)
    for run, signal in ((one, 3.0), (other, 0.0)):
        own = scored(draws(60, signal, 1, labels)[0], labels, groups)
        run.scores = {"style": same, "latents": own}
    alike, differs = paired_table(one, other, ("one", "other")).to_dicts()
    assert np.isnan(alike["p"])
    assert differs["p_holm"] == differs["p"]
    assert alike["n_compared"] == differs["n_compared"] == 1


def test_where_nothing_is_shared_both_intervals_stand_without_a_difference():
    labels = np.arange(60) % 2
    one = fake_run("one", [f"q{i}" for i in range(60)], labels)
    other = fake_run("other", [f"r{i}" for i in range(60)], labels)
    for run in (one, other):
        scores = draws(60, 1.0, 0, labels)[0]
        run.scores = {"style": scored(scores, labels, run.answers["group_id"].to_numpy())}
    row = paired_table(one, other, ("one", "other")).to_dicts()[0]
    assert row["paired_by"] == NOT_PAIRED
    assert row["difference"] is None
    assert row["one_auroc_low"] < row["one_auroc"] < row["one_auroc_high"]


COLUMNS = Method("style", "columns", "logistic", "style", 1)
LATENTS = Method("latents", "columns", "logistic", "latents", 1)
BASELINE = Method("baseline", "columns", "logistic", "baseline", 1)


def with_columns(run, seed, sign=1.0):
    """Two columns, the first of which tells the label."""
    luck = np.random.default_rng(seed)
    labels = run.answers["label"].to_numpy()
    x = luck.normal(size=(len(labels), 2))
    x[:, 0] += 3 * sign * labels
    run.features = {"style": Features(x, ("first", "second"))}
    run.config.methods = {"style": COLUMNS}
    groups = run.answers["group_id"].to_numpy()
    run.scores = {"style": scored(x[:, 0], labels.astype(bool), groups)}
    return run


def two_sets(sign=1.0):
    labels = np.arange(120) % 2
    one = fake_run("one", [f"q{i}" for i in range(120)], labels)
    other = fake_run("other", [f"r{i}" for i in range(120)], labels)
    return with_columns(one, 1), with_columns(other, 2, sign)


def table(runs):
    found = transfer.transfer(runs, [run.name for run in runs])
    return {(row["trained_on"], row["tested_on"]): row for row in found.to_dicts()}


def test_a_detector_that_learnt_what_holds_in_both_sets_transfers():
    found = table(two_sets())
    assert found["one", "other"]["auroc"] > 0.95
    assert found["other", "one"]["auroc_low"] > 0.9
    assert found["one", "one"]["n_answers"] == 120


def test_a_detector_of_what_runs_the_other_way_there_is_worse_than_chance():
    found = table(two_sets(sign=-1.0))
    assert found["one", "other"]["auroc_high"] < 0.1
    assert found["one", "one"]["auroc"] > 0.95


def test_groups_that_both_sets_have_are_left_out_of_the_test_and_counted():
    one, _ = two_sets()
    labels = np.arange(120) % 2
    # Ten share a name, ten a prompt in other letters, and ten a whole text without a prompt.
    groups = [f"q{i}" if i < 10 else f"s{i}" for i in range(120)]
    prompts = [f" Q{i}" if 10 <= i < 20 else f"s{i}" for i in range(120)]
    other = with_columns(fake_run("other", prompts, labels, groups), 3)
    row = table((one, other))["one", "other"]
    assert row["n_groups_left_out"] == 20
    assert row["n_answers"] == row["n_groups"] == 100


def test_a_test_with_one_label_is_told_as_nothing():
    one, other = two_sets()
    other.answers = other.answers.with_columns(label=pl.lit(1, pl.Int8))
    found = transfer._trained_on(
        one,
        other,
        COLUMNS,
        (one.features["style"].x, other.features["style"].x),
        np.ones(120, bool),
    )
    assert np.isnan(found).all()


def test_latents_of_two_runs_are_brought_into_one_order_with_0_where_one_was_silent():
    one, other = two_sets()
    one.features["latents"] = Features(np.array([[1.0, 2.0]]), ("a", "b"))
    other.features["latents"] = Features(np.array([[3.0, 4.0]]), ("c", "b"))
    first, second = transfer.aligned_columns((one, other), LATENTS)
    assert first.tolist() == [[1, 2, 0]]
    assert second.tolist() == [[0, 4, 3]]


def test_columns_of_samples_are_left_out_of_the_baseline_where_samples_were_drawn_otherwise():
    one, other = two_sets()
    other.config.answers = build(AnswerSettings, {"samples": 0})
    sampled = {name: Features(np.zeros((1, 1)), (name,)) for name in transfer.OF_SAMPLES}
    one.features |= sampled
    names = ("length", "agreement of samples", "entropy", "self-check")
    one.features["baseline"] = Features(np.arange(4.0)[None], names)
    other.features["baseline"] = Features(np.array([[5.0, 6.0]]), ("length", "entropy"))
    first, second = transfer.aligned_columns((one, other), BASELINE)
    assert (first.tolist(), second.tolist()) == ([[0, 2]], [[5, 6]])


def test_methods_whose_columns_mean_another_thing_are_not_carried_over():
    one, other = two_sets()
    names = ("style", "tracking", "baseline + tracking", "agreement of samples", "self-check")
    for run in (one, other):
        run.config.methods = {
            name: Method(name, "columns", "logistic", name, 1) for name in names
        } | {
            "length alone": Method("length alone", "raw", "", "length", 1),
            "style (forest)": Method("style (forest)", "columns", "forest", "style", 1),
        }
    shared = [method.name for method in transfer.shared_methods((one, other))]
    assert shared == list(names)
    other.config.tracking = build(TrackingSettings, {"tracker": "nearest"})
    other.config.answers = build(AnswerSettings, {"samples": 4})
    assert [method.name for method in transfer.shared_methods((one, other))] == ["style"]


def test_the_table_of_sizes_gives_the_ratio_to_the_first_run(monkeypatch):
    runs = [fake_run(name, ["a"], [0]) for name in ("small", "medium")]
    numbers = {"small": 12, "medium": 24}
    monkeypatch.setattr(
        comparing,
        "_sizes",
        lambda run: {
            "layers": numbers[run.name],
            "SAE batch": None,
            "time": 60.0 * numbers[run.name],
        },
    )
    found = comparing.sizes(runs, ["small", "medium"])
    assert found.columns == ["quantity", "small", "medium", "ratio"]
    assert found.rows()[0] == ("layers", "12", "24", "2\u00d7")
    assert found.rows()[1] == ("SAE batch", "-", "-", "-")
    assert found["ratio"][2] == "2\u00d7"


def test_a_difference_is_called_one_only_where_interval_and_p_agree():
    row = {"difference": 0.1, "difference_low": 0.02, "difference_high": 0.2, "p_holm": 0.2}
    assert "not told apart" in comparing._verdict(row)
    assert "higher" in comparing._verdict({**row, "p_holm": 0.01})
    alike = Interval(0.0, np.nan, np.nan)
    row = dict(zip(("difference", "difference_low", "difference_high"), alike, strict=True))
    assert "score alike" in comparing._verdict({**row, "p_holm": 1.0})
