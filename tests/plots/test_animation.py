"""Dots that move from layer to layer: frames, palette, bytes."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from fluoroscope.plots import animation
from fluoroscope.plots.animation import gif_frame, layer_animation, save_animation
from fluoroscope.plots.palettes import LAYER_PALETTE, channels, palette_colors

LAYERS = ["Layer 0", "Layer 2", "Layer 5"]
PLACES = np.random.default_rng(0).standard_normal((3, 40, 2))


@pytest.fixture(scope="module")
def made():
    return layer_animation(PLACES, LAYERS, ("PC 1", "PC 2"), "Rows", n_frames=11, fps=5, loop=3)


def pixels(png):
    with Image.open(BytesIO(png)) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def map_of(made, frame):
    """The part of a frame in which dots move."""
    return pixels(gif_frame(made.gif, frame))[100:440, 80:540]


def test_a_gif_has_the_frames_the_speed_and_the_repeats_that_were_asked_for(made):
    with Image.open(BytesIO(made.gif)) as image:
        assert (image.format, image.n_frames) == ("GIF", 11)
        assert (image.info["loop"], image.info["duration"]) == (3, 200)
    with Image.open(BytesIO(layer_animation(PLACES, LAYERS).gif)) as image:
        assert (image.n_frames, image.info["loop"], image.info["duration"]) == (60, 0, 100)


def test_no_frame_is_lost_though_no_dot_moves():
    still = layer_animation(np.repeat(PLACES[:1], 3, axis=0), LAYERS, n_frames=150)
    with Image.open(BytesIO(still.gif)) as image:
        assert image.n_frames == 150


def test_stills_are_found_though_equal_frames_became_one(monkeypatch):
    """On few pixels next to nothing moves from frame to frame, and equal ones are merged."""
    monkeypatch.setattr(animation, "_DPI", 20)
    places = np.repeat(PLACES[:1], 3, axis=0)
    many, few = (layer_animation(places, LAYERS, n_frames=n) for n in (121, 3))
    with Image.open(BytesIO(many.gif)) as image:
        assert image.n_frames < 121
        assert many.stills["Layer 5"] == image.n_frames - 1
    for layer in LAYERS:
        shown = [pixels(gif_frame(one.gif, one.stills[layer])) for one in (many, few)]
        # The name of the layer alone, without an arrow to the next; palettes differ a little.
        assert (np.abs(shown[0] - shown[1]) > 96).mean() == 0, layer


def test_the_same_arrays_are_the_same_bytes(made):
    again = layer_animation(PLACES, LAYERS, ("PC 1", "PC 2"), "Rows", n_frames=11, fps=5, loop=3)
    assert again.gif == made.gif
    moved = layer_animation(PLACES * np.array([1, 0.5, 1])[:, None, None], LAYERS, n_frames=11)
    assert moved.gif != made.gif


def test_each_layer_has_a_still_of_its_own_in_its_own_colour(made):
    assert made.stills == {"Layer 0": 0, "Layer 2": 5, "Layer 5": 10}
    shades = np.array([channels(color) for color in palette_colors(LAYER_PALETTE, 3)])
    for frame, shade in zip(made.stills.values(), shades, strict=True):
        seen = map_of(made, frame).reshape(-1, 3)
        # Where dots overlap their colour is nearly full: nowhere is another layer's as strong.
        nearest = [np.abs(seen - other).sum(axis=1).min() for other in shades]
        assert np.argmin(nearest) == list(made.stills.values()).index(frame)
        assert nearest[np.argmin(nearest)] < 60, shade


def test_paper_is_white_and_axes_stand_still(made):
    first, last = (pixels(gif_frame(made.gif, frame)) for frame in (0, 7))
    assert (first[:5, :5] == 255).all()
    # Left of the axis and below it: ticks and names.
    np.testing.assert_array_equal(first[:, :68], last[:, :68])
    np.testing.assert_array_equal(first[460:505], last[460:505])
    assert (map_of(made, 0) != map_of(made, 7)).any()


def test_dots_end_where_their_layer_has_them():
    """The dot of a path that leads to a corner is in that corner in that layer's still, alone."""
    places = np.zeros((3, 3, 2))
    places[:, 0], places[:, 1] = (-1, -1), (1, 1)
    places[:, 2] = [(-1, 1), (0, 0), (1, -1)]
    made = layer_animation(places, LAYERS, n_frames=9)
    for (column, row), layer in (((-1, 1), 0), ((1, -1), 2)):
        for name, frame in made.stills.items():
            seen = pixels(gif_frame(made.gif, frame))
            x, y = (
                round(70 + 473 * (0.53 + 0.5 * column) / 1.06),
                round(73 + 383 * (0.53 - 0.5 * row) / 1.06),
            )
            is_dark = seen[y - 2 : y + 3, x - 2 : x + 3].min() < 150
            assert is_dark == (name == LAYERS[layer])


def test_a_file_is_written_whole_and_only_as_gif(made, tmp_path):
    save_animation(made, tmp_path / "a.gif")
    assert (tmp_path / "a.gif").read_bytes() == made.gif
    assert [path.name for path in tmp_path.iterdir()] == ["a.gif"]
    with pytest.raises(ValueError, match=r"\.gif, got 'a\.png'"):
        save_animation(made, tmp_path / "a.png")


def test_what_cannot_move_is_refused():
    with pytest.raises(ValueError, match="2 layers or more"):
        layer_animation(PLACES[:1], LAYERS[:1])
    with pytest.raises(ValueError, match="3 layers of places and 2 names"):
        layer_animation(PLACES, LAYERS[:2])
    with pytest.raises(ValueError, match="need a frame each, got n_frames=2"):
        layer_animation(PLACES, LAYERS, n_frames=2)
    with pytest.raises(ValueError, match="NaN"):
        layer_animation(PLACES * np.nan, LAYERS)
