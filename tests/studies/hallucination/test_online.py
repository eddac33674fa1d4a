"""A score after every token: its columns, what it learns, how early it knows, and watching."""

from dataclasses import replace

import numpy as np
import pytest

from fluoroscope.core.errors import DamagedError, MismatchError
from fluoroscope.core.seeding import derive_seed, stream
from fluoroscope.core.sink import Sink
from fluoroscope.models.generation import generate
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.models.sampling import Sampling
from fluoroscope.models.texts import Request
from fluoroscope.studies.hallucination.metrics.describe import METRICS
from fluoroscope.studies.hallucination.online.columns import (
    COLUMNS,
    UNCERTAINTY,
    learnt_prefixes,
    prefix_columns,
)
from fluoroscope.studies.hallucination.online.detector import (
    TENSORS,
    check_model,
    fit_linear,
    fit_online,
    load_detector,
    save_detector,
)
from fluoroscope.studies.hallucination.online.early import Prefixes, at_ends, how_early
from fluoroscope.studies.hallucination.signals.tokens import answer_tokens
from fluoroscope.studies.hallucination.steps.answers import read_answer_records
from fluoroscope.studies.hallucination.steps.features import features, readable_answers
from fluoroscope.studies.hallucination.steps.online import (
    AUROC,
    PrefixRows,
    early_sentence,
    out_of_fold,
    prefix_rows,
    read_early,
    read_judged,
)
from fluoroscope.studies.hallucination.steps.watcher import open_watcher


def columns_of(logprobs, entropies, metrics):
    rows = prefix_columns(np.array(logprobs), np.array(entropies), np.array(metrics))
    return [dict(zip(COLUMNS, row, strict=True)) for row in rows]


def test_a_row_knows_the_tokens_before_it_and_none_behind():
    some = stream(0, "metrics").random((4, len(METRICS)))
    before, one, _, three = columns_of([-1.0, -3.0, -2.0], [0.5, 2.0, 1.0], some)
    assert before["tokens"] == 0
    assert before["entropy first"] == 0.5
    assert np.isnan(before["logprob sum"])
    assert (one["logprob sum"], one["entropy mean"]) == (-1.0, 0.5)
    assert (three["logprob sum"], three["logprob mean"], three["logprob min"]) == (-6, -2, -3)
    assert (three["entropy max"], three["entropy last"]) == (2.0, 1.0)
    assert before["gini at the prompt"] == three["gini at the prompt"]
    gini = list(METRICS).index("gini")
    assert np.isnan(before["gini so far"])
    assert three["gini so far"] == pytest.approx(some[1:, gini].mean())
    shorter = columns_of([-1.0], [0.5], some[:2])
    assert list(shorter[1].values()) == list(one.values())


def test_columns_of_other_tokens_than_those_tracked_are_refused():
    with pytest.raises(MismatchError, match="metrics of 3 positions"):
        columns_of([-1.0, -2.0], [0.5, 1.0], np.zeros((2, len(METRICS))))


def test_a_detector_learns_from_both_ends_of_an_answer_and_evenly_between():
    assert learnt_prefixes(3, 16) == [1, 2, 3]
    assert learnt_prefixes(61, 16) == list(range(1, 62, 4))


def planted(n=120, d=6, seed=0):
    """Answers of one row each; the second column tells, the others do not."""
    random = stream(seed, "planted")
    labels = random.random(n) < 0.4
    x = random.normal(size=(n, d))
    x[:, 1] += 2 * labels
    return x, labels, np.arange(n) // 2


def test_contributions_add_up_to_the_log_odds_and_name_the_column_that_tells():
    x, labels, groups = planted()
    found = fit_linear(x, labels, groups, np.ones(len(x)), seed=0)
    parts = found.contributions(x)
    odds = parts.sum(axis=1) + found.bias
    np.testing.assert_allclose(found.scores(x), 1 / (1 + np.exp(-odds)))
    assert np.abs(parts).mean(axis=0).argmax() == 1
    np.testing.assert_allclose(parts.mean(axis=0), 0, atol=1e-12)


def test_the_prefixes_of_an_answer_weigh_as_much_as_one():
    x, labels, groups = planted()
    once = fit_linear(x, labels, groups, np.ones(len(x)), seed=0)
    three = [np.repeat(one, 3, axis=0) for one in (x, labels, groups)]
    thrice = fit_linear(three[0], three[1], three[2], np.full(3 * len(x), 1 / 3), seed=0)
    np.testing.assert_allclose(thrice.scores(x), once.scores(x), rtol=1e-4)


def test_what_tells_nothing_scores_every_answer_by_the_share_made_up():
    x, labels, groups = planted()
    told = np.full((len(x), 2), 3.0)
    found = fit_linear(told, labels, groups, np.ones(len(x)), seed=0)
    np.testing.assert_allclose(found.scores(told), labels.mean())
    noise = stream(1, "noise").normal(size=(400, 60))
    many = stream(2, "labels").random(400) < 0.4
    found = fit_linear(noise, many, np.arange(400), np.ones(400), seed=0)
    new = stream(3, "noise").normal(size=(400, 60))
    # Without calibration a model of 60 columns of noise is as sure as one that knows.
    assert np.abs(found.scores(new) - many.mean()).max() < 0.2


def online_rows(n=60, length=3):
    x, labels, groups = planted(n)
    rows = np.repeat(x, length + 1, axis=0)
    rows[:, 0] = np.tile(np.arange(length + 1.0), n)
    wide = np.full((len(rows), len(COLUMNS)), np.nan)
    wide[:, : rows.shape[1]] = rows
    wide[rows[:, 0] == 0, 1:3] = np.nan
    ids = np.array([f"{i:03d}" for i in range(n)])
    answer_of = np.repeat(np.arange(n), length + 1)
    return PrefixRows(wide, answer_of, ids, np.full(n, length), labels, groups.astype(str))


def test_a_score_does_not_depend_on_the_label_of_its_own_answer():
    rows = online_rows()
    fold = np.arange(len(rows.labels)) // 2 % 3
    found = out_of_fold(rows, fold, "all", 0, Sink())
    labels = rows.labels ^ (fold == 1)
    again = out_of_fold(rows._replace(labels=labels), fold, "all", 0, Sink())
    is_test = (fold == 1)[rows.answer_of]
    np.testing.assert_array_equal(found[is_test], again[is_test])
    assert not np.array_equal(found[~is_test], again[~is_test])


def test_before_the_first_token_only_what_is_known_then_counts():
    rows = online_rows()
    weights = np.ones(len(rows.x))
    labels, groups = rows.labels[rows.answer_of], rows.groups[rows.answer_of]
    found = fit_online(COLUMNS, rows.x, labels, groups, weights, seed=0)
    is_before = rows.x[:, 0] == 0
    assert not found.contributions(rows.x[is_before])[:, 1:3].any()
    assert found.contributions(rows.x[~is_before])[:, 1].any()


def test_a_detector_that_was_kept_scores_as_before_and_a_damaged_one_is_refused(tmp_path):
    rows = online_rows()
    labels, groups = rows.labels[rows.answer_of], rows.groups[rows.answer_of]
    found = fit_online(COLUMNS, rows.x, labels, groups, np.ones(len(rows.x)), seed=0)
    save_detector(found, {"data": "here"}, tmp_path)
    again, about = load_detector(tmp_path)
    np.testing.assert_array_equal(again.scores(rows.x), found.scores(rows.x))
    assert (again.names, about) == (COLUMNS, {"data": "here"})
    file = tmp_path / TENSORS
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    with pytest.raises(DamagedError, match="SHA-256"):
        load_detector(tmp_path)


def test_a_detector_of_another_model_is_refused_with_both_names():
    own = {"id": "small", "weights_sha256": "1" * 64, "tokenizer_sha256": "2" * 64}
    check_model(own, {**own, "id": "elsewhere/small"}, "mine")
    with pytest.raises(MismatchError, match=r"run mine is of small.*score large"):
        check_model(own, {**own, "id": "large", "weights_sha256": "3" * 64}, "mine")


def test_how_early_says_when_a_detector_begins_to_know_and_of_how_many_answers():
    n = 80
    n_tokens = np.where(np.arange(n) < 60, 4, 2)
    labels = np.arange(n) % 2 == 0
    after = np.concatenate([np.arange(t + 1) for t in n_tokens])
    of = np.repeat(labels, n_tokens + 1)
    knows_late = np.where(after >= 3, np.where(of, 0.9, 0.1), 0.5)[None]
    blind = np.full_like(knows_late, 0.5)
    groups = np.arange(n).astype(str)
    folds = (np.arange(n) // 2 % 2)[None]
    found = how_early(Prefixes(n_tokens, labels, groups, folds, knows_late, blind), 0, 50)
    assert found["tokens"].to_list() == [0, 1, 2, 3, 4]
    assert found["answers"].to_list() == [80, 80, 80, 60, 60]
    assert found["auroc"].to_list() == [0.5, 0.5, 0.5, 1, 1]
    assert found["difference"].to_list() == [0, 0, 0, 0.5, 0.5]
    ends = at_ends(Prefixes(n_tokens, labels, groups, folds, knows_late, blind), 0, 50)
    # A quarter of the answers ends before anything is known: half of the pairs with them are right.
    assert 0.5 < ends["last"].one.value < 1
    assert ends["before"].one.value == 0.5


def test_how_long_an_answer_will_be_helps_no_score_before_its_last_token():
    """Made-up answers are twice as long, and a score is the number of tokens so far."""
    n = 80
    labels = np.arange(n) % 2 == 0
    n_tokens = np.where(labels, 8, 4)
    so_far = np.concatenate([np.arange(t + 1.0) for t in n_tokens])[None]
    groups, folds = np.arange(n).astype(str), (np.arange(n) // 2 % 2)[None]
    prefixes = Prefixes(n_tokens, labels, groups, folds, so_far, np.zeros_like(so_far))
    assert how_early(prefixes, 0, 50)["auroc"].to_list() == [0.5] * 5
    ends = at_ends(prefixes, 0, 50)
    assert (ends["before"].one.value, ends["last"].one.value) == (0.5, 1)


def judged_with(difference, score=(0.7, 0.6, 0.8)):
    end = {"score": score, "uncertainty": (0.65, 0.55, 0.75), "difference": difference}
    return {AUROC: {"before": end, "last": end}}


def test_a_difference_from_uncertainty_is_claimed_only_where_it_is_shown_and_its_way_is_said():
    nan = float("nan")
    assert "ahead of uncertainty alone" in early_sentence(judged_with((0.05, 0.01, 0.09)))
    assert "behind uncertainty alone" in early_sentence(judged_with((-0.05, -0.09, -0.01)))
    same = early_sentence(judged_with((0.05, -0.01, 0.11)))
    assert "not shown to differ from uncertainty alone, with 0.650 [0.550, 0.750]" in same
    unknown = early_sentence(judged_with((0.0, nan, nan), score=(0.5, nan, nan)))
    assert "whether the two differ cannot be told" in unknown
    assert "last 0.500 (its interval cannot be told)" in unknown
    assert "nan" not in unknown
    assert "too few groups" in early_sentence({"answers": 8})


def test_the_first_row_of_how_early_is_what_is_judged_before_the_first_token(watched_run):
    first = read_early(watched_run).select("auroc", "auroc_low", "auroc_high").row(0)
    judged = read_judged(watched_run)[AUROC]["before"]["score"]
    np.testing.assert_array_equal(judged, first)


def test_a_report_shows_the_score_by_tokens_and_by_no_share_of_the_answer(watched_run):
    page = (watched_run.folder / "report.html").read_text(encoding="utf-8")
    assert "tokens of the answer that are known" in page
    assert "share of the answer" not in page
    assert "online_shares" not in page


@pytest.fixture(scope="module")
def model():
    return LanguageModel.load("organism")


@pytest.fixture(scope="module")
def watcher(watched_run, model):
    return open_watcher(watched_run, model)


def test_the_last_row_of_an_answer_has_the_columns_of_the_whole_answer(watched_run):
    rows, config = prefix_rows(watched_run), watched_run.config
    last = rows.x[np.cumsum(rows.n_tokens + 1) - 1]
    order = np.argsort(readable_answers(watched_run)["id"].to_numpy())
    whole = [features(watched_run, config, part).x for part in ("uncertainty", "tracking")]
    np.testing.assert_allclose(last[:, 1 : len(UNCERTAINTY)], whole[0][order], rtol=1e-12)
    np.testing.assert_allclose(last[:, len(UNCERTAINTY) :], whole[1][order], rtol=1e-9, atol=1e-12)


def test_watching_an_answer_gives_the_columns_that_the_study_read_of_it(watched_run, watcher):
    rows = prefix_rows(watched_run)
    records = {record.id: record for record in read_answer_records(watched_run)}
    starts = np.cumsum(rows.n_tokens + 1) - rows.n_tokens - 1
    for answer in range(0, len(rows.ids), 4):
        record = records[rows.ids[answer]]
        tokens = answer_tokens(watcher.model, record.prompt, record.completion)
        found = list(watcher.follow(tokens))
        stop = starts[answer] + rows.n_tokens[answer] + 1
        expected = rows.x[starts[answer] : stop]
        columns = np.array([one.columns for one in found])
        np.testing.assert_allclose(columns, expected, rtol=1e-4, atol=1e-4)
        scores = [one.score for one in found]
        np.testing.assert_allclose(scores, watcher.detector.scores(expected), atol=1e-4)
        assert "".join(one.text for one in found) == record.completion


def request_of(run, record, **changes):
    settings = run.config.answers
    request = Request(
        prompt=record.prompt,
        seed=derive_seed(run.config.seed, "answer", record.id.rpartition("/")[0]),
        max_tokens=settings.max_tokens,
        stop=tuple(settings.stop),
    )
    return replace(request, **changes)


def text_of(watched):
    return "".join(one.text for one in watched)


def test_watching_a_prompt_of_the_run_writes_its_answer_again(watched_run, watcher):
    sampling = Sampling(**watched_run.config.answers.sampling.model_dump())
    for record in read_answer_records(watched_run)[::8]:
        found = list(watcher.write(request_of(watched_run, record), sampling))
        assert text_of(found) == record.completion
        assert [one.n_tokens for one in found] == list(range(len(found)))


@pytest.mark.parametrize("stop", [("\n",), ("er",), ("a", "o")])
def test_what_is_watched_is_what_generate_writes_with_the_same_seed(watched_run, watcher, stop):
    records = read_answer_records(watched_run)[:6]
    requests = [
        request_of(watched_run, record, stop=stop, max_tokens=5, seed=seed)
        for seed, record in enumerate(records)
    ]
    expected = generate(watcher.model, requests, sampling=Sampling())
    for request, one in zip(requests, expected, strict=True):
        assert text_of(watcher.write(request, Sampling())).rstrip() == one.text.rstrip()


def test_a_token_is_read_once_whatever_came_before_it(watched_run, watcher, monkeypatch):
    record = read_answer_records(watched_run)[0]
    lengths = []
    network = watcher.model.network
    forward = network.forward

    def counted(*arguments, **named):
        lengths.append(named["input_ids"].shape[1])
        return forward(*arguments, **named)

    monkeypatch.setattr(network, "forward", counted)
    tokens = answer_tokens(watcher.model, record.prompt, record.completion)
    list(watcher.follow(tokens))
    assert lengths == [tokens.n_prompt] + [1] * (len(tokens.tokens) - tokens.n_prompt)


def test_a_model_with_other_weights_is_not_watched(watched_run, monkeypatch):
    other = LanguageModel.load("organism")
    identity = replace(other.identity, id="twin", weights_sha256="0" * 64)
    monkeypatch.setattr(LanguageModel, "identity", property(lambda _: identity))
    with pytest.raises(MismatchError, match=r"score twin.*Watch the model that the run was made"):
        open_watcher(watched_run, other)
