import numpy as np
import pytest

from fluoroscope.plots.anatomy.matching import (
    RANDOM,
    THRESHOLD_RED,
    assignment_histogram,
    layer_pair_matrix,
    match_distributions,
)
from fluoroscope.plots.marks import Heatmap, Histogram, Line
from fluoroscope.plots.matplotlib_renderer import matplotlib_figure, save_chart
from fluoroscope.plots.plotly_renderer import plotly_figures

WAYS = ("decoder, A to B", "decoder, B to A", "encoder, A to B", "encoder, B to A")


def ranked(n=200, k=4, seed=0):
    cosines = np.sort(np.random.default_rng(seed).uniform(-0.1, 1, (n, k)))[:, ::-1].copy()
    cosines[:3] = np.nan
    return cosines


def distributions():
    return match_distributions(
        {way: ranked(100 + 50 * i, seed=i) for i, way in enumerate(WAYS)},
        {way: np.random.default_rng(9).uniform(0.2, 0.4, 500) for way in WAYS},
        dict.fromkeys(WAYS, 0.31),
        title="two seeds",
    )


def test_a_panel_a_way_has_a_histogram_and_a_curve_for_each_rank_and_the_null():
    chart = distributions()
    assert [panel.title.split(":")[0] for panel in chart.panels] == list(WAYS)
    for panel in chart.panels:
        for kind in (Histogram, Line):
            names = [mark.name for mark in panel.marks if isinstance(mark, kind)]
            assert names == [RANDOM, "top 1", "top 2", "top 3", "top 4"]
        assert [line.value for line in panel.references] == [0.7, 0.31]


def test_bars_and_curves_are_shares_of_live_latents():
    for panel in distributions().panels:
        for mark in panel.marks:
            if isinstance(mark, Histogram):
                assert np.sum(mark.counts) == pytest.approx(1)
                width = mark.edges[1] - mark.edges[0]
            if isinstance(mark, Line):
                # A curve that ends below the least cosine of all loses next to nothing.
                assert np.trapezoid(mark.y, mark.x) / width == pytest.approx(1, abs=0.04)


def test_the_title_says_the_share_above_the_threshold():
    cosines = np.array([[0.9], [0.8], [0.1], [np.nan]])
    chart = match_distributions({"decoder": cosines}, {})
    assert chart.panels[0].title == "decoder: 66.7% above 0.7"
    chart = match_distributions({"decoder": np.full((2, 1), np.nan)}, {})
    assert chart.panels[0].title == "decoder: no live latent"


def test_the_axis_holds_every_cosine():
    chart = match_distributions({"decoder": np.array([[0.95], [-0.43]])}, {})
    low, high = chart.x.limits
    assert low <= -0.43
    assert high == 1
    assert np.sum(chart.panels[0].marks[0].counts) == pytest.approx(1)


def test_the_axis_holds_the_threshold_and_chance_below_all_cosines():
    expected = {"decoder": 0.31}
    charts = [
        match_distributions({"decoder": np.array([[0.95], [0.97]])}, {}),
        match_distributions({"decoder": np.array([[0.95]])}, {}, expected),
        assignment_histogram({"decoder": np.array([0.95, 0.97])}),
        assignment_histogram({"decoder": np.array([0.95])}, expected=expected),
    ]
    for chart, lowest in zip(charts, (0.7, 0.31, 0.7, 0.31), strict=True):
        low, high = chart.x.limits
        assert low < lowest < high


def test_a_panel_with_nothing_to_draw_says_so():
    chart = match_distributions({"decoder": np.full((2, 1), np.nan)}, {})
    assert (list(chart.panels[0].marks), chart.panels[0].note) == ([], "no live latent")
    chart = assignment_histogram({"decoder": np.array([0.5]), "encoder": np.empty(0)})
    assert [panel.note for panel in chart.panels] == ["", "no pairs"]
    assert list(chart.panels[1].marks) == []
    for axes, words in zip(matplotlib_figure(chart).axes, ([], ["no pairs"]), strict=True):
        assert [text.get_text() for text in axes.texts] == words


def test_equal_cosines_have_a_curve_that_ends_at_one():
    chart = match_distributions({"itself": np.ones((50, 1))}, {})
    curve = chart.panels[0].marks[1]
    assert np.isfinite(curve.y).all()
    assert np.argmax(curve.y) == len(curve.y) - 1


def test_pairs_of_an_assignment_stand_beside_a_dashed_red_threshold():
    pairs = {"decoder": np.array([0.2, 0.72, 0.9]), "encoder": np.array([0.3, 0.4, 0.5])}
    chart = assignment_histogram(pairs, expected={"decoder": 0.3, "encoder": 0.3})
    assert [panel.title for panel in chart.panels] == [
        "decoder: 66.7% above 0.7",
        "encoder: 0.0% above 0.7",
    ]
    for panel in chart.panels:
        histogram, line = panel.marks
        assert np.sum(histogram.counts) == 3
        assert (line.style, line.color, list(line.x)) == ("dashed", THRESHOLD_RED, [0.7, 0.7])
        assert [reference.value for reference in panel.references] == [0.3]


def test_matrices_of_layers_stand_side_by_side_with_one_scale():
    names, others = [f"Layer {i}" for i in range(12)], ["Layer 0", "Layer 1"]
    ratios = {f"k = {k}": np.random.default_rng(k).random((12, 2)) for k in (16, 32)}
    chart = layer_pair_matrix(names, others, ratios, "shared ratios", axes=("seed 2", "seed 1"))
    assert chart.columns == 2
    assert [panel.title for panel in chart.panels] == ["k = 16", "k = 32"]
    for panel, values in zip(chart.panels, ratios.values(), strict=True):
        (heatmap,) = panel.marks
        assert isinstance(heatmap, Heatmap)
        assert heatmap.color_limits == (0, 1)
        assert (heatmap.y_names, heatmap.x_names) == (names, others)
        np.testing.assert_allclose(heatmap.values, values, atol=0.005)


@pytest.mark.parametrize("n", [1, 30])
def test_both_renderers_draw_them(n, tmp_path):
    charts = [
        match_distributions({"decoder": ranked(10 * n)}, {}),
        assignment_histogram({"decoder": np.linspace(0, 1, n)}),
        layer_pair_matrix(
            [f"a{i}" for i in range(n)], [f"b{i}" for i in range(n)], {"": np.eye(n)}
        ),
    ]
    for number, chart in enumerate(charts):
        save_chart(chart, tmp_path / f"{number}.png")
        assert (tmp_path / f"{number}.png").stat().st_size > 5000
        assert plotly_figures(chart)
