"""What the report makes of scores, tracks and scenes; none of it needs a run."""

import numpy as np
import polars as pl
import pytest

from fluoroscope.core.intervals import clustered_share_interval
from fluoroscope.data.answers.record import stated_answer
from fluoroscope.models.loading import load_tokenizer
from fluoroscope.plots.chart import Line, Scatter
from fluoroscope.plots.matplotlib_renderer import matplotlib_figure
from fluoroscope.plots.plotly_renderer import plotly_figures
from fluoroscope.studies.hallucination.charts import confusion_chart
from fluoroscope.studies.hallucination.chosen_answers import (
    Pair,
    choose_answers,
    differing_metrics,
    typical_pair,
)
from fluoroscope.studies.hallucination.detection.curves import precision_curve, roc_curve
from fluoroscope.studies.hallucination.detection.scores import aurocs, metrics, scored
from fluoroscope.studies.hallucination.lanes_chart import N_LANES, lane_marks, lanes_chart
from fluoroscope.studies.hallucination.method_charts import precision_of_methods, roc_of_methods
from fluoroscope.studies.hallucination.metrics.describe import METRICS
from fluoroscope.studies.hallucination.report_answers import answer_pieces
from fluoroscope.studies.hallucination.report_detection import flagged_share, kind_table
from fluoroscope.studies.hallucination.report_saes import seed_gates
from fluoroscope.studies.hallucination.report_trackers import claim_sentence, claim_table


def rows_of(scores, labels):
    return scored(np.array(scores), np.array(labels), np.arange(len(labels)))


def scores_of(n=120, repeats=2, folds=3, seed=0, ties=False):
    random = np.random.default_rng(seed)
    labels = random.random(n) < 0.4
    scores = np.clip(0.5 * labels + random.normal(0.3, 0.3, (repeats, n)), 0, 1)
    return scored(
        scores.round(1) if ties else scores,
        labels,
        np.arange(n) // 3,
        random.integers(folds, size=(repeats, n)),
    )


@pytest.mark.parametrize("ties", [False, True])
def test_the_area_under_the_roc_curve_is_the_auroc_of_the_table(ties):
    rows = scores_of(ties=ties)
    curve = roc_curve(rows)
    (told,) = aurocs(rows, np.ones((1, 40)))
    assert np.trapezoid(curve.y, curve.x) == pytest.approx(told, abs=0.005)
    assert (curve.x[0], curve.y[0], curve.x[-1], curve.y[-1]) == (0, 0, 1, 1)
    assert np.all(np.diff(curve.y) >= 0)


@pytest.mark.parametrize("ties", [False, True])
def test_the_mean_of_the_precision_curve_is_the_auprc_of_the_table(ties):
    rows = scores_of(ties=ties)
    assert precision_curve(rows).y.mean() == pytest.approx(metrics(rows, 0, 0.5, 20)["auprc"].value)


def test_charts_of_methods_show_where_each_works():
    rows = rows_of([0.9, 0.8, 0.1, 0.6], [1, 1, 0, 0])
    chart = roc_of_methods({"one": rows})
    (point,) = (mark for mark in chart.panels[0].marks if isinstance(mark, Scatter))
    assert (list(point.x), list(point.y)) == ([0.5], [1.0])
    (point,) = (
        mark
        for mark in precision_of_methods({"one": rows}).panels[0].marks
        if isinstance(mark, Scatter)
    )
    assert (list(point.x), list(point.y)) == ([1.0], [2 / 3])


def test_a_method_that_flags_nothing_has_a_curve_and_no_point_of_precision():
    rows = rows_of([0.4, 0.3, 0.1, 0.2], [1, 1, 0, 0])
    marks = precision_of_methods({"one": rows}).panels[0].marks
    assert [type(mark) for mark in marks] == [Line]


def test_the_confusion_matrix_holds_shares_of_each_label():
    rows = rows_of([0.9, 0.2, 0.1, 0.6, 0.3], [1, 1, 0, 0, 0])
    (heat,) = confusion_chart(rows).panels[0].marks
    np.testing.assert_allclose(heat.values, [[2 / 3, 1 / 3], [1 / 2, 1 / 2]])
    assert heat.y_names == ["true (3)", "made up (2)"]


def test_a_kind_of_one_label_is_ranked_against_all_of_the_other():
    kinds = np.array(["trap", "trap", "plain", "plain", "mixed", "mixed"])
    rows = rows_of([0.9, 0.2, 0.1, 0.4, 0.3, 0.05], [1, 1, 0, 0, 0, 1])
    table = {row["kind"]: row for row in kind_table({"one": rows}, kinds, 0, 10).rows(named=True)}
    # 0.9 is above three true answers, 0.2 above one.
    assert (table["trap"]["against"], table["trap"]["auroc"]) == ("all true", 4 / 6)
    # Above 0.1 are two made-up answers of three, above 0.4 one.
    assert (table["plain"]["against"], table["plain"]["auroc"]) == ("all made up", 3 / 6)
    assert (table["mixed"]["against"], table["mixed"]["auroc"]) == ("its own", 0.0)
    assert [table[kind]["flagged"] for kind in ("trap", "plain", "mixed")] == [0.5, 0, 0]
    assert all(np.isnan(row["auroc_low"]) for row in table.values())


def test_the_share_flagged_takes_repeats_of_an_answer_as_one_group():
    rows = rows_of(np.tile(np.linspace(0, 1, 30), (4, 1)), np.arange(30) % 2)
    found = flagged_share(rows, np.ones(30, bool))
    alone = clustered_share_interval(rows.scores[0] >= 0.5, rows.groups)
    np.testing.assert_allclose(found, alone, rtol=1e-9)


def answers(rows):
    names = ("id", "group_id", "category", "label", "score")
    return pl.DataFrame(rows, schema=names, orient="row")


def test_answers_are_chosen_by_scores_ties_by_name_and_none_twice():
    table = answers(
        [
            ("b", "1", "", 1, 0.1),
            ("a", "2", "", 1, 0.1),
            ("c", "3", "", 0, 0.8),
            ("d", "4", "", 1, 0.99),
            ("e", "5", "", 0, 0.02),
            ("f", "6", "", 0, 0.49),
        ]
    )
    for rows in (table, table.reverse()):
        assert choose_answers(rows, n_each=2) == [
            ("Made up, and called true", "a"),
            ("Made up, and called true", "b"),
            ("Made up, and called so", "d"),
            ("True, and called so", "e"),
            ("True, and called so", "f"),
            ("True, on the border", "c"),
        ]
    assert choose_answers(table.filter(pl.col("id") == "c")) == [("True, and called made up", "c")]


def test_the_pair_is_the_median_one_of_a_question_if_one_has_both():
    table = answers(
        [
            ("t1", "1", "x", 0, 0.1), ("m1", "1", "x", 1, 0.9),
            ("t2", "2", "x", 0, 0.4), ("m2", "2", "x", 1, 0.6),
            ("t3", "3", "y", 0, 0.9), ("m3", "3", "y", 1, 0.1),
            ("t4", "4", "y", 0, 0.5),
        ]
    )  # fmt: skip
    found = typical_pair(table)
    assert (found.true, found.made_up) == ("t2", "m2")
    assert "group" in found.within
    apart = table.with_columns(group_id=pl.col("id"))
    # 0.9 - 0.1, 0.9 - 0.4, 0.6 - 0.1, 0.6 - 0.4, and 0.1 - 0.9, 0.1 - 0.5: 0.2 is the third.
    assert typical_pair(apart)[:2] == ("t2", "m2")
    assert "kind" in typical_pair(apart).within
    strangers = apart.with_columns(category=pl.col("id"))
    assert typical_pair(strangers).within == "of all"


def test_numbers_that_differ_are_in_standard_deviations_of_all_answers():
    frame = pl.DataFrame({"id": ["a", "b", "c", "d"]}).with_columns(
        *(pl.lit(1.0).alias(name) for name in METRICS),
        entropy=pl.Series([0.0, 0.0, 3.0, 3.0]),
        surprise=pl.Series([1.0, 2.0, 2.0, 5.0]),
    )
    found = differing_metrics(frame, Pair("a", "b", ""), n=3)
    # Constant metrics are not told from anything.
    assert found["number"].to_list() == ["surprise", "entropy"]
    np.testing.assert_allclose(found["difference in sd"], [1 / np.std([1, 2, 2, 5]), 0])


def test_pieces_of_tokens_are_the_characters_of_the_answer():
    tokenizer = load_tokenizer("organism")
    record = stated_answer("set", "group", "Question: Who?\nAnswer:", ' <b>"A"</b> & co', 0)
    n_prompt = len(tokenizer(record.prompt)["input_ids"])
    n_all = len(tokenizer(record.prompt + record.completion)["input_ids"])
    pieces = answer_pieces(tokenizer, record, n_prompt, n_all - n_prompt)
    assert len(pieces) == n_all - n_prompt
    assert "".join(piece for piece in pieces if piece != "\u00b7") == record.completion


def tracks(*rows):
    names = ("track", "layer", "latent", "activation", "strength", "existence", "parent")
    return pl.DataFrame(rows, schema=names, orient="row")


LANES = tracks(
    (0, 0, 7, 2.0, 0.4, 0.9, -1),
    (0, 1, 8, 3.0, 0.6, 0.9, -1),
    (0, 3, 9, 4.0, 1.2, 0.9, -1),
    (1, 2, 5, 1.0, 5.0, 0.8, 0),
)


def segments(line):
    x, y = np.reshape(line.x, (-1, 3))[:, :2], np.reshape(line.y, (-1, 3))[:, :2]
    return [tuple(map(float, (*one, *other))) for one, other in zip(x, y, strict=True)]


def test_lanes_show_gaps_and_splits_at_the_layers_of_the_model():
    track, missed, split, *dots = lane_marks(LANES, [4, 6, 8, 10])
    # Track 1 has more strength, so it is in the first lane, and track 0 in the second.
    assert segments(track) == [(4, 6, 2, 2)]
    assert segments(missed) == [(6, 10, 2, 2)]
    assert segments(split) == [(6, 8, 2, 1)]
    assert [list(mark.x) for mark in dots] == [[4], [6], [8, 10]]
    assert "layer 4, latent 7: activation 2, strength 0.40" in dots[0].labels[0]


def test_lanes_are_few_marks_however_many_tracks_there_are():
    many = tracks(*((i, layer, i, 1.0, 1.0 + i, 0.5, -1) for i in range(40) for layer in (0, 1)))
    marks = lane_marks(many, [0, 1])
    assert len(marks) == 6
    assert len(segments(marks[0])) == N_LANES
    empty = lane_marks(many.clear(), [0, 1])
    assert all(len(mark.x) == 0 for mark in empty)


def test_lanes_are_drawn_on_the_screen_and_on_paper_with_the_strongest_on_top():
    chart = lanes_chart({"one": LANES, "none": LANES.clear()}, [4, 6, 8, 10])
    for figure in plotly_figures(chart):
        low, high = figure.layout.yaxis.range
        assert low > high
        # Each point says what it is, and not its whole layer.
        assert figure.layout.hovermode == "closest"
    assert len(matplotlib_figure(chart).axes) == 2


def pairs():
    rows = [
        ("easy", one, other, *(0.0, np.nan, np.nan) * 2, 5)
        for one, other in (("mht", "nearest"), ("nearest", "greedy"))
    ]
    rows += [
        ("hard", "mht", "nearest", 3.0, 1.0, 5.0, 0.5, -1.0, 2.0, 40),
        ("hard", "nearest", "greedy", -2.0, -3.0, -1.0, 0.0, -1.0, 1.0, 40),
        ("hard", "mht", "jpda", 9.0, 8.0, 10.0, 9.0, 8.0, 10.0, 40),
    ]
    numbers = [f"less_{q}{end}" for q in ("gospa", "n_switches") for end in ("", "_low", "_high")]
    return pl.DataFrame(
        rows, schema=["world", "tracker", "than", *numbers, "n_scenes"], orient="row"
    )


def test_a_claim_about_trackers_holds_only_where_its_interval_is_above_0():
    table = claim_table(pairs())
    said = {(row[0], row[1], row[2]): row[-1] for row in table.rows()}
    assert said["MHT beats nearest", "hard", "GOSPA"] == "holds"
    assert said["MHT beats nearest", "hard", "identity switches"] == "not shown"
    assert said["MHT beats nearest", "easy", "GOSPA"] == "not shown"
    assert said["nearest beats greedy", "hard", "GOSPA"] == "the contrary holds"
    assert len(table) == 8
    assert claim_sentence(pairs(), "mht", "nearest", "gospa") == (
        "**MHT beats nearest in GOSPA**: holds in hard; not shown in easy."
    )


def test_gates_of_saes_are_the_seeds_and_what_is_not_known_passes_none():
    def passed(fvu, l0):
        return [gate.passed for gate in seed_gates("3.resid_post", fvu, l0)]

    assert passed(0.009, 50.0) == [True, True]
    assert passed(0.01, 100.1) == [False, False]
    assert passed(None, None) == [False, False]
