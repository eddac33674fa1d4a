"""Laws of the figures of losses, ablations, slices and quality."""

import numpy as np
import pytest

from fluoroscope.plots.anatomy.ablations import (
    latent_coefficients_by_position,
    overlaid_position_densities,
    overlaid_position_means,
    position_shares,
)
from fluoroscope.plots.anatomy.layers import Estimates, layer_names
from fluoroscope.plots.anatomy.losses import (
    ce_by_position,
    ce_under_ablations,
    sae_losses_by_position,
)
from fluoroscope.plots.anatomy.quality import cross_heatmaps, layer_quality
from fluoroscope.plots.anatomy.slices import densities_on_two_slices, latent_on_two_slices
from fluoroscope.plots.marks import Heatmap, Histogram
from fluoroscope.plots.matplotlib_renderer import matplotlib_figure
from fluoroscope.plots.palettes import PLAIN_GREY
from fluoroscope.plots.plotly_renderer import plotly_figures
from fluoroscope.plots.style import INK

FIGURES = {
    "SAE losses": lambda names, a: sae_losses_by_position(
        names, {"L1": a, "L2": 2 * a}, bands={"L2": (a, 3 * a)}
    ),
    "CE": lambda names, a: ce_by_position(names, a[0], a),
    "CE under ablations": lambda names, a: ce_under_ablations(a[0], {"zeroed": a[-1]}),
    "overlaid means": lambda names, a: overlaid_position_means(
        names, {"clean": a, "zeroed": 2 * a}
    ),
    "overlaid densities": lambda names, a: overlaid_position_densities(names, {"clean": a}),
    "coefficients": lambda names, a: latent_coefficients_by_position(
        names, {"clean": a, "zeroed": a}, bands={"clean": (a / 2, 2 * a)}
    ),
    "shares": lambda names, a: position_shares(names, {"clean": a, "zeroed": a}, null=a[:, 0]),
    "slices": lambda names, a: latent_on_two_slices(names, {"first": list(a), "last": list(a)}),
    "densities": lambda names, a: densities_on_two_slices(names, a, a),
    "quality": lambda names, a: layer_quality(
        names, {"explained": Estimates(a[:, 0], a[:, 0] - 1, a[:, 0] + 1)}
    ),
    "cross": lambda names, a: cross_heatmaps(
        names, names, a[:, : len(names)], a[:, : len(names)], a[:, : len(names)]
    ),
}

GOOD = np.random.default_rng(0).lognormal(size=(3, 20))
HARD = {
    "zeros": np.zeros((2, 6)),
    "absent": np.full((2, 6), np.nan),
    "one number": GOOD[:1, :1],
    "gaps": np.where(np.arange(12).reshape(2, 6) % 3 == 0, np.nan, 2.0),
}


def _drawn(chart):
    figure = matplotlib_figure(chart)
    # Drawn where the axes are at first: to find room for words takes most of the time.
    figure.set_layout_engine("none")
    figure.draw_without_rendering()
    for screen in plotly_figures(chart):
        screen.to_json()
    return figure


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_drawn_on_paper_and_on_the_screen(name):
    chart = FIGURES[name](layer_names(range(3)), GOOD)
    _drawn(chart)
    assert all(panel.marks for panel in chart.panels)


@pytest.mark.parametrize("data", HARD)
@pytest.mark.parametrize("name", FIGURES)
def test_what_is_absent_is_said_and_never_an_empty_axis(name, data):
    chart = FIGURES[name](layer_names(range(len(HARD[data]))), HARD[data])
    for panel, axes in zip(chart.panels, _drawn(chart).axes, strict=False):
        assert bool(panel.marks) or panel.note in [text.get_text() for text in axes.texts]
        assert panel.marks or panel.note


@pytest.mark.parametrize("name", ["SAE losses", "CE", "overlaid means", "coefficients"])
def test_axes_of_positions_end_at_the_context_length(name):
    chart = FIGURES[name](layer_names(range(3)), GOOD)
    assert all(axes.get_xlim() == (0, 19) for axes in matplotlib_figure(chart).axes[:3])


def test_a_loss_of_nothing_is_a_gap_and_no_fall_to_the_bottom_of_the_axis():
    losses = np.array([[1.0, 0.0, 2.0]])
    line = sae_losses_by_position(["Layer 0"], {"L2": losses}).panels[0].marks[0]
    np.testing.assert_array_equal(np.asarray(line.y), [1.0, np.nan, 2.0])


def test_a_layer_with_fewer_positions_is_refused():
    with pytest.raises(ValueError, match=r"same positions, got \[4, 20\]"):
        overlaid_position_means(["a"], {"clean": [GOOD[0]], "zeroed": [GOOD[0, :4]]})
    with pytest.raises(ValueError, match="a has 4 positions, but the clean model 20"):
        ce_by_position(["a"], GOOD[0], [GOOD[0, :4]])


def test_the_clean_model_is_grey_in_every_figure_of_ablations():
    names = layer_names(range(3))
    for figure in ("overlaid means", "coefficients", "shares"):
        assert FIGURES[figure](names, GOOD).series_colors["clean"] == PLAIN_GREY
    ce = FIGURES["CE"](names, GOOD)
    assert ce.series_colors["clean"] == PLAIN_GREY
    assert ce.color_bar.label == "token index"


def test_a_layer_of_which_nothing_was_measured_says_so_beside_the_clean_line():
    chart = ce_by_position(["a", "b"], GOOD[0], [GOOD[1], np.full(20, np.nan)])
    assert [panel.note for panel in chart.panels] == ["", "nothing was measured"]
    assert [mark.name for mark in chart.panels[1].marks] == ["clean"]


def test_the_last_position_has_no_next_token_and_no_point():
    clean = np.append(GOOD[0, :-1], np.nan)
    points = ce_by_position(["a"], clean, [clean]).panels[0].marks[0]
    assert list(np.asarray(points.x)) == list(range(19))


def test_shares_are_medians_and_percentiles_over_latents_that_are_there():
    shares = np.concatenate([np.linspace(0, 1, 101), [np.nan] * 5])[None]
    line, null = (
        position_shares(["Layer 7"], {"clean": shares}, null=np.array([0.01])).panels[0].marks
    )
    np.testing.assert_allclose([line.low[0], line.y[0], line.high[0]], [0.1, 0.5, 0.9])
    assert (null.name, null.y[0]) == ("chance", 0.01)
    zero = position_shares(["Layer 7"], {"clean": shares}, null=np.zeros(1)).panels[0].marks[1]
    assert zero.name == "chance (0)"
    # Of one layer alone the band has a width all the same.
    assert line.x[1] > line.x[0]


def test_axes_by_layer_name_the_layers_that_were_picked():
    chart = position_shares(layer_names([2, 7, 11]), {"clean": GOOD})
    axes = matplotlib_figure(chart).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["2", "7", "11"]


def test_slices_of_different_length_are_compared_by_share():
    short, long = np.array([1.0, 2.0]), np.tile([1.0, 2.0], 50)
    panel = latent_on_two_slices(["latent 3"], {"first": [short], "last": [long]}).panels[0]
    one, other = panel.marks
    assert isinstance(one, Histogram)
    np.testing.assert_allclose(one.counts, other.counts)
    assert np.sum(one.counts) == pytest.approx(1.0)
    assert panel.note == "activations in first: 2, last: 100"


def test_latents_of_one_slice_alone_are_counted_beside_the_diagonal():
    one = np.array([[0.1, 0.2, 0.0, 0.4, 0.0]])
    other = np.array([[0.1, 0.0, 0.3, 0.4, 0.0]])
    panel = densities_on_two_slices(["Layer 0"], one, other).panels[0]
    assert panel.note == "2 latents active on one slice alone"
    np.testing.assert_array_equal(np.asarray(panel.marks[1].x), np.asarray(panel.marks[1].y))


def test_titles_of_ablations_promise_nothing_of_what_the_variants_are():
    for figure in (overlaid_position_means, overlaid_position_densities):
        title = figure(["a"], {"clean": GOOD[:1], "SAEs spliced in": GOOD[:1]}).title
        assert title.endswith(", clean and ablated")


def test_cross_heatmaps_are_of_saes_on_texts_and_a_missing_cell_is_a_dash_in_ink():
    values = np.array([[0.9, np.nan]])
    chart = cross_heatmaps(["seed 1"], ["books", "code"], values, values, values)
    assert (chart.x.label, chart.y.label) == ("text", "SAEs")
    assert chart.title == "SAEs of each set, judged on each text"
    cells = {text.get_text(): text.get_color() for text in matplotlib_figure(chart).axes[0].texts}
    assert cells["–"] == INK
    assert set(cells) == {"0.900", "–"}


def test_cross_heatmaps_have_their_ramps_limits_and_centre():
    explained = np.array([[0.9, 0.85], [0.95, 0.99]])
    ce = np.array([[-0.1, 0.2], [0.4, 0.0]])
    chart = cross_heatmaps(["a", "b"], ["c", "d"], explained, explained, ce)
    maps = [panel.marks[0] for panel in chart.panels]
    assert all(isinstance(one, Heatmap) and one.has_cell_texts for one in maps)
    assert [one.ramp for one in maps] == ["viridis_r", "rocket_r", "coolwarm"]
    assert maps[0].color_limits == (0.8, 1.0)
    assert maps[2].color_limits == (-0.4, 0.4)
    assert chart.columns == 3
    poor = cross_heatmaps(["a", "b"], ["c", "d"], explained - 0.6, explained, ce)
    assert poor.panels[0].marks[0].color_limits == (pytest.approx(0.25), 1.0)


def test_each_measure_of_quality_has_its_own_axis():
    value = np.array([0.9, 0.8])
    chart = layer_quality(
        ["Layer 0", "Layer 1"], {"explained": Estimates(value), "CE": Estimates(100 * value)}
    )
    assert chart.limits("y", chart.panels[0])[1] < 1.1
    assert chart.limits("y", chart.panels[1])[0] > 50
