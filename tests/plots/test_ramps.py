import matplotlib
import numpy as np
import pytest
import seaborn

from fluoroscope.plots.palettes import (
    LAYER_PALETTE,
    PALETTE_RAMPS,
    POSITION_PALETTE,
    QUANTILE_PALETTE,
    channels,
    palette_colors,
    ramp_color,
)
from fluoroscope.plots.style import RAMPS, RAMPS_IN_THE_DARK


def _original(name):
    """The 256 colours as numbers from 0 to 255."""
    if name in ("viridis", "coolwarm"):
        ramp = matplotlib.colormaps[name]
    else:
        ramp = seaborn.color_palette(name, as_cmap=True)
    return 255 * ramp(np.arange(256))[:, :3]


@pytest.mark.parametrize("name", ["viridis", "rocket", "mako", "flare", "coolwarm"])
def test_a_ramp_is_its_original_along_its_whole_length(name):
    mixed = [channels(ramp_color(PALETTE_RAMPS[name], i / 255)) for i in range(256)]
    assert np.abs(np.array(mixed) - _original(name)).max() <= 2.5


@pytest.mark.parametrize("palette", [LAYER_PALETTE, POSITION_PALETTE, QUANTILE_PALETTE])
@pytest.mark.parametrize("n", [1, 5, 12, 24])
def test_colours_of_a_palette_are_those_that_seaborn_picks(palette, n):
    ours = np.array([channels(color) for color in palette_colors(palette, n)])
    assert np.abs(ours - 255 * np.array(seaborn.color_palette(palette, n))).max() <= 2.5


def test_layers_are_viridis_positions_flare_quantiles_mako():
    assert (LAYER_PALETTE, POSITION_PALETTE, QUANTILE_PALETTE) == ("viridis", "flare", "mako")
    assert len(set(palette_colors(LAYER_PALETTE, 12))) == 12


def test_a_reversed_ramp_is_the_other_one_from_its_end():
    assert PALETTE_RAMPS["rocket_r"][0] == PALETTE_RAMPS["rocket"][-1]
    assert ramp_color(PALETTE_RAMPS["viridis_r"], 0.2) == ramp_color(PALETTE_RAMPS["viridis"], 0.8)


def test_every_ramp_can_be_drawn_on_a_dark_page_too():
    assert set(RAMPS) == set(RAMPS_IN_THE_DARK)
