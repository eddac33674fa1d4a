"""F18: a panel a layer on shared axes, and all layers in one."""

import numpy as np
import pytest

from fluoroscope.plots.anatomy.layers import layer_colors
from fluoroscope.plots.anatomy.maps import axis_names, combined_map, layer_maps
from fluoroscope.plots.matplotlib_renderer import save_chart
from fluoroscope.plots.plotly_renderer import plotly_figures

RANDOM = np.random.default_rng(0)
PLACES = {f"Layer {i}": RANDOM.standard_normal((20 + i, 2)) * [3, 1] for i in range(12)}
LATENTS = {name: np.arange(len(dots)) + 100 for name, dots in PLACES.items()}


def test_every_dot_of_a_layer_is_in_its_panel_in_its_colour():
    chart = layer_maps(PLACES, ("PC 1", "PC 2"), LATENTS)
    assert [panel.title for panel in chart.panels] == list(PLACES)
    assert chart.columns == 4
    colors = layer_colors(list(PLACES))
    for panel, (name, dots) in zip(chart.panels, PLACES.items(), strict=True):
        behind, own = panel.marks
        np.testing.assert_array_equal(np.c_[own.x, own.y], dots)
        assert (own.color, own.labels[3]) == (colors[name], f"{name}, latent 103")
        assert len(behind.x) == sum(map(len, PLACES.values()))


def test_all_panels_have_the_same_axes_as_long_as_each_other():
    for chart in (layer_maps(PLACES), combined_map(PLACES)):
        ends = {(chart.limits("x", panel), chart.limits("y", panel)) for panel in chart.panels}
        ((x, y),) = ends
        assert x[1] - x[0] == pytest.approx(y[1] - y[0])
        everything = np.concatenate(list(PLACES.values()))
        assert (everything > [x[0], y[0]]).all()
        assert (everything < [x[1], y[1]]).all()


def test_the_combined_map_has_every_dot_once_and_layers_take_turns():
    (panel,) = combined_map(PLACES, latents=LATENTS).panels
    names = [mark.name for mark in panel.marks]
    assert names[:24] == list(PLACES) * 2
    for name, dots in PLACES.items():
        own = [mark for mark in panel.marks if mark.name == name]
        drawn = np.concatenate([np.c_[mark.x, mark.y] for mark in own])
        np.testing.assert_array_equal(np.sort(drawn, axis=0), np.sort(dots, axis=0))
        words = [label for mark in own for label in mark.labels]
        assert sorted(words) == [f"{name}, latent {i}" for i in LATENTS[name]]


def test_one_layer_and_an_empty_layer_are_drawn_on_paper_and_screen(tmp_path):
    alone, empty = {"Layer 0": PLACES["Layer 0"]}, {**PLACES, "Layer 3": np.empty((0, 2))}
    for i, chart in enumerate((layer_maps(alone), combined_map(alone), layer_maps(empty))):
        save_chart(chart, tmp_path / f"{i}.png")
        assert len(plotly_figures(chart)) == len(chart.panels)
    assert len(layer_maps(alone).panels[0].marks) == 1
    notes = {panel.title: panel.note for panel in layer_maps(empty).panels if panel.note}
    assert notes == {"Layer 3": "no latent of this layer"}


def test_axes_say_how_much_of_the_variance_they_hold():
    assert axis_names("pca", (0.1234, 0.05)) == (
        "PC 1 (12.3% of variance)",
        "PC 2 (5.0% of variance)",
    )
    assert axis_names("tsne") == ("t-SNE 1", "t-SNE 2")


def test_a_map_without_dots_or_with_names_missing_is_refused():
    with pytest.raises(ValueError, match="at least one dot"):
        layer_maps({"Layer 0": np.empty((0, 2))})
    with pytest.raises(ValueError, match="each of the 21 dots of 'Layer 1'"):
        combined_map(PLACES, latents={"Layer 0": LATENTS["Layer 0"]})
