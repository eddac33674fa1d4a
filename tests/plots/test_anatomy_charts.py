"""Laws of the figures of latents and positions; losses and ablations are in the file beside."""

import numpy as np
import pytest
from scipy.stats import gaussian_kde

from fluoroscope.plots.anatomy.latents import (
    count_curves,
    density_histograms,
    kernel_density,
    latent_count_against_density,
    latent_mean_against_density,
    latent_mean_against_std,
    latent_mean_densities,
)
from fluoroscope.plots.anatomy.layers import layer_names
from fluoroscope.plots.anatomy.outliers import MOST_OUTLIERS, outliers
from fluoroscope.plots.anatomy.positions import (
    moving_mean,
    position_count_against_density,
    position_mean_against_density,
    position_mean_against_std,
    position_means,
    smoothed_position_means,
)
from fluoroscope.plots.anatomy.quantiles import latent_quantiles
from fluoroscope.plots.matplotlib_renderer import matplotlib_figure
from fluoroscope.plots.palettes import LAYER_PALETTE, QUANTILE_PALETTE, palette_colors
from fluoroscope.plots.plotly_renderer import plotly_figures

FIGURES = {
    "quantiles": lambda names, a, b: latent_quantiles(names, _levels(a), with_bos=True),
    "mean and std": lambda names, a, b: position_mean_against_std(names, a, b),
    "means with BOS": lambda names, a, b: position_means(names, a, with_bos=True),
    "means without BOS": lambda names, a, b: position_means(names, a, with_bos=False),
    "smoothed": lambda names, a, b: smoothed_position_means(names, a),
    "position density": lambda names, a, b: position_mean_against_density(names, a, b),
    "position count": lambda names, a, b: position_count_against_density(names, a, b),
    "latent density": lambda names, a, b: latent_mean_against_density(names, a, b),
    "latent count": lambda names, a, b: latent_count_against_density(names, a, b),
    "density histograms": lambda names, a, b: density_histograms(names, b),
    "mean densities": lambda names, a, b: latent_mean_densities(names, a),
    "latent mean and std": lambda names, a, b: latent_mean_against_std(names, a, b),
    "count curves": lambda names, a, b: count_curves(names, a, b, statistic="median"),
}


def _levels(values):
    return [one[:, None] * np.linspace(0.1, 1.0, 10) for one in values]


def _numbers(n_layers=2, n=30, seed=0):
    return np.random.default_rng(seed).lognormal(size=(n_layers, n)) + 0.1


def _drawn(chart):
    """Both forms; raises where one cannot be made."""
    figure = matplotlib_figure(chart)
    # Drawn where the axes are at first: to find room for words takes most of the time.
    figure.set_layout_engine("none")
    figure.draw_without_rendering()
    for screen in plotly_figures(chart):
        screen.to_json()
    return figure


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_drawn_on_paper_and_on_the_screen(name):
    chart = FIGURES[name](layer_names([0, 5]), _numbers(), _numbers(seed=1))
    _drawn(chart)
    assert all(panel.marks for panel in chart.panels)
    assert chart.title


HARD = {
    "zeros": np.zeros((2, 6)),
    "absent": np.full((2, 6), np.nan),
    "one number": _numbers(1, 1),
    "one layer of zeros": np.stack([np.zeros(6), np.arange(6.0)]),
    "gaps": np.where(np.arange(12).reshape(2, 6) % 3 == 0, np.nan, 2.0),
}


@pytest.mark.parametrize("data", HARD)
@pytest.mark.parametrize("name", FIGURES)
def test_what_is_absent_is_said_and_never_an_empty_axis(name, data):
    values = HARD[data]
    chart = FIGURES[name](layer_names(range(len(values))), values, values)
    for panel, axes in zip(chart.panels, _drawn(chart).axes, strict=False):
        assert bool(panel.marks) or panel.note in [text.get_text() for text in axes.texts]
        assert panel.marks or panel.note


def test_dictionaries_of_different_size_stand_side_by_side():
    chart = latent_mean_against_density(
        ["a", "b"], [np.ones(3), np.ones(5)], [np.ones(3) / 2, np.ones(5) / 2]
    )
    assert [len(panel.marks[0].x) for panel in chart.panels] == [3, 5]


def test_layers_without_names_are_refused():
    with pytest.raises(ValueError, match="means must have 3 layers as names, got 2"):
        position_means(layer_names(range(3)), _numbers(), with_bos=True)


@pytest.mark.parametrize("with_bos", [True, False])
def test_the_axis_of_positions_ends_at_the_context_length(with_bos):
    chart = position_means(layer_names(range(2)), _numbers(2, 128), with_bos=with_bos)
    for axes in matplotlib_figure(chart).axes[:2]:
        assert axes.get_xlim() == (0, 127)
    for screen in plotly_figures(chart):
        assert tuple(screen.layout.xaxis.range) == (0, 127)


def test_the_axis_of_means_is_logarithmic_only_where_bos_would_hide_the_text():
    means = np.ones((2, 16))
    assert not position_means(["a", "b"], means, with_bos=True).y.log
    means[1, 0] = 100.0
    assert position_means(["a", "b"], means, with_bos=True).y.log
    assert not position_means(["a", "b"], means, with_bos=False).y.log


@pytest.mark.parametrize(("with_bos", "first"), [(True, 0), (False, 1)])
def test_without_bos_the_first_position_is_one(with_bos, first):
    chart = position_means(["Layer 0"], _numbers(1, 16), with_bos=with_bos)
    line, points = chart.panels[0].marks
    for mark in (line, points):
        np.testing.assert_array_equal(np.asarray(mark.x), np.arange(first, 16))
    assert (chart.color_bar.low, chart.color_bar.high) == (first, 15)


def test_an_outlier_is_named_by_its_true_position_although_bos_was_cut():
    means = np.ones((1, 50)) + 0.01 * _numbers(1, 50)
    means[0, [0, 17]] = 900.0, 300.0
    for above in (None, 100.0):
        chart = position_mean_against_std(["Layer 0"], means, means, outlier_above=above)
        (points,) = chart.panels[0].marks
        texts = {points.annotations[i]: float(np.asarray(points.x)[i]) for i in points.annotations}
        assert texts["17"] == 300.0
        assert "0" not in texts
    assert texts == {"17": 300.0}


def test_outliers_are_few_and_the_largest():
    values = np.concatenate([np.random.default_rng(0).normal(size=500), np.arange(50.0, 70.0)])
    found = outliers(values)
    assert len(found) == MOST_OUTLIERS
    np.testing.assert_array_equal(values[found], np.arange(69.0, 69.0 - MOST_OUTLIERS, -1))
    assert list(outliers(np.ones(9))) == []
    assert list(outliers(np.array([np.nan, 1.0, 200.0]), above=100.0)) == [2]


def test_outliers_of_deviation_are_named_beside_those_of_the_mean_and_none_twice():
    means = np.ones((1, 200)) + 0.01 * _numbers(1, 200)
    stds = np.ones((1, 200)) + 0.01 * _numbers(1, 200, seed=1)
    means[0, 20:40] = 50.0 + np.arange(20.0)
    stds[0, [39, 70, 80]] = 9.0, 8.0, 7.0
    (points,) = position_mean_against_std(["Layer 0"], means, stds).panels[0].marks
    texts = list(points.annotations.values())
    assert {"39", "38", "70", "80"} <= set(texts)
    assert len(set(texts)) == len(texts) == MOST_OUTLIERS


def test_a_position_where_nothing_was_active_has_no_point():
    means = np.array([[5.0, 1.0, 0.0, np.nan, 2.0]])
    chart = position_means(["Layer 0"], means, with_bos=True)
    assert list(np.asarray(chart.panels[0].marks[1].x)) == [0, 1, 4]


def test_smoothed_means_are_means_of_ten_positions_at_their_middle():
    values = np.random.default_rng(0).random(40)
    x, y = moving_mean(values, 10, 1)
    np.testing.assert_allclose(y, [values[i : i + 10].mean() for i in range(1, 31)])
    np.testing.assert_allclose(x, np.arange(1, 31) + 4.5)
    chart = smoothed_position_means(["Layer 0"], values[None])
    assert chart.panels[0].marks[0].color == palette_colors(LAYER_PALETTE, 1)[0]


def test_a_gap_is_left_out_of_a_moving_mean():
    _, y = moving_mean(np.array([1.0, np.nan, 3.0, np.nan, np.nan, np.nan]), 2, 0)
    np.testing.assert_array_equal(y, [1.0, 3.0, 3.0, np.nan, np.nan])
    x, y = moving_mean(np.where(np.arange(40) < 20, 1.0, np.nan), 10, 0)
    assert x[np.isfinite(y)][-1] == 15 + 4.5


def test_a_smoothed_line_is_not_drawn_across_a_gap():
    measured = np.where((np.arange(100) > 30) & (np.arange(100) < 70), np.nan, 2.0)
    line = smoothed_position_means(["Layer 0"], measured[None]).panels[0].marks[0]
    y, x = np.asarray(line.y), np.asarray(line.x)
    # Wherever the line has two neighbours they are one position apart.
    np.testing.assert_array_equal(np.diff(x), 1.0)
    assert np.isnan(y[(x > 36) & (x < 64)]).all()
    assert np.isfinite(y[(x < 30) | (x > 70)]).all()


def test_deciles_are_clouds_in_mako_with_one_legend():
    chart = latent_quantiles(layer_names(range(3)), _levels(_numbers(3)), with_bos=False)
    shades = palette_colors(QUANTILE_PALETTE, 10)
    assert chart.series_colors == {f"Decile {k + 1}": shades[k] for k in range(10)}
    assert all(mark.opacity == 0.7 for mark in chart.panels[1].marks)
    assert len(matplotlib_figure(chart).legends) == 1
    assert chart.y.log


def test_latents_that_are_never_active_have_no_point_and_are_counted():
    means = np.array([[0.0, 2.0, 3.0, np.nan]])
    for chart in (
        latent_mean_against_density(["Layer 0"], means, means / 10),
        latent_quantiles(["Layer 0"], _levels(means), with_bos=True),
        density_histograms(["Layer 0"], means / 10),
    ):
        assert chart.panels[0].note == "2 of 4 latents never active"
    points = latent_mean_against_density(["Layer 0"], means, means / 10).panels[0].marks[0]
    assert list(np.asarray(points.x)) == [2.0, 3.0]


def test_figures_of_all_layers_in_one_say_how_many_latents_they_leave_out():
    means = np.array([[0.0, 2.0, 3.0, np.nan], [1.0, 2.0, 0.0, 4.0]])
    stds = np.array([[0.0, 0.0, 1.0, np.nan], [1.0, 2.0, 0.0, 4.0]])
    names = layer_names(range(2))
    assert latent_mean_densities(names, means).panels[0].note == "3 of 8 latents never active"
    (panel,) = latent_mean_against_std(names, means, stds).panels
    assert panel.note == "4 of 8 latents have no deviation, or no mean"
    assert sum(len(mark.x) for mark in panel.marks) == 4
    (panel,) = latent_mean_against_std(names[:1], [np.ones(3)], [np.ones(3)]).panels
    assert panel.note == ""


def test_a_histogram_of_densities_counts_every_active_latent():
    densities = np.concatenate([_numbers(2, 200) / 100, np.zeros((2, 5))], axis=1)
    for panel in density_histograms(layer_names(range(2)), densities).panels:
        assert np.sum(panel.marks[0].counts) == 200


def test_each_layer_has_its_colour_in_all_figures():
    names, values = layer_names(range(12)), _numbers(12)
    expected = dict(zip(names, palette_colors(LAYER_PALETTE, 12), strict=True))
    for figure in ("smoothed", "mean densities", "latent mean and std", "latent density"):
        assert FIGURES[figure](names, values, values).series_colors == expected


def test_twelve_layers_stand_in_three_rows_of_four_titled_by_layer_alone():
    chart = latent_mean_against_density(layer_names(range(12)), _numbers(12), _numbers(12))
    assert (chart.columns, len(chart.panels)) == (4, 12)
    assert [panel.title for panel in chart.panels] == [f"Layer {i}" for i in range(12)]


@pytest.mark.parametrize("n", [2, 30, 3000])
def test_a_density_of_means_is_the_kernel_estimate_of_scott(n):
    values = np.random.default_rng(n).normal(size=n)
    places, heights = kernel_density(values)
    expected = gaussian_kde(values)(places)
    np.testing.assert_allclose(heights, expected, atol=0.01 * expected.max())
    np.testing.assert_allclose(np.trapezoid(heights, places), 1.0, atol=0.01)


def test_equal_means_are_a_narrow_peak_of_area_one():
    places, heights = kernel_density(np.zeros(7))
    np.testing.assert_allclose(np.trapezoid(heights, places), 1.0, atol=0.01)
    assert np.ptp(places) < 0.2
