"""Dots that move from their places in one layer to their places in the next: a GIF.

The axes never change, so what moves has moved. A dot's path means something only if its places are
those of rows that were matched one to one (`features.decoder_paths`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from PIL import Image, ImageSequence

from fluoroscope.core.storage import atomic_path
from fluoroscope.plots.palettes import LAYER_PALETTE, PLAIN_GREY, channels, palette_colors
from fluoroscope.plots.style import INK, MATPLOTLIB_STYLE, MUTED, PAPER, RULE

_INCHES, _DPI = 5.6, 100
_COLORS = 160
"""Of the one palette of all frames; a GIF has room for 256."""

_MOST_SAMPLED = 12
_MOST_BEHIND = 4000


@dataclass(frozen=True)
class Animation:
    gif: bytes
    stills: dict[str, int]
    """Layer -> the frame that shows it, as no other does."""

    alt: str
    """What moves, in words, for who cannot see it."""


def layer_animation(
    places: Float[np.ndarray, "layers n 2"],
    layers: Sequence[str],
    axes: tuple[str, str] = ("", ""),
    title: str = "",
    n_frames: int = 60,
    fps: float = 10,
    loop: int = 0,
) -> Animation:
    """Dot i is at `places[l, i]` in `layers[l]`, such as `Layer 3`; in between it moves.

    Each layer has one frame of its own; dots take its colour on the way. `loop` is how often the
    GIF is played again, 0 for ever. The same bytes for the same arrays.
    """
    if len(layers) != len(places) or len(layers) < 2:
        raise ValueError(
            f"An animation needs 2 layers or more, and a name for each: got {len(places)} layers "
            f"of places and {len(layers)} names."
        )
    if n_frames < len(layers):
        raise ValueError(f"{len(layers)} layers need a frame each, got n_frames={n_frames}.")
    if not np.isfinite(places).all():
        raise ValueError("Every dot needs a place in every layer; some are NaN or infinite.")
    frames = list(_frames(np.asarray(places, np.float64), layers, axes, title, n_frames))
    stills = _still_frames(len(layers), n_frames)
    alt = (
        f"{title or 'Map'}: {places.shape[1]:,} dots move from {layers[0]} to {layers[-1]} in "
        f"{n_frames} frames, on axes that stay the same."
    )
    gif = _gif(frames, stills, fps, loop)
    named = dict(zip(layers, _merged(gif, stills, n_frames), strict=True))
    return Animation(gif, named, alt)


def save_animation(animation: Animation, path: Path) -> None:
    """Writes `path`, a .gif."""
    if path.suffix != ".gif":
        raise ValueError(f"An animation is saved as .gif, got {path.name!r}.")
    with atomic_path(path) as temporary:
        temporary.write_bytes(animation.gif)


def gif_frame(gif: bytes, frame: int) -> bytes:
    """One frame as a png."""
    with Image.open(BytesIO(gif)) as image:
        image.seek(frame)
        found = BytesIO()
        # A frame has fewer colours than the 256 of an indexed png, so none of them changes.
        colors = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
        colors.save(found, "png", optimize=True)
    return found.getvalue()


def _still_frames(n_layers: int, n_frames: int) -> list[int]:
    return np.linspace(0, n_frames - 1, n_layers).round().astype(np.int64).tolist()


def _frames(
    places: np.ndarray, layers: Sequence[str], axes: tuple[str, str], title: str, n_frames: int
) -> Iterator[Image.Image]:
    colors = np.array([channels(one) for one in palette_colors(LAYER_PALETTE, len(layers))]) / 255
    stage = _Stage(places, layers, axes, title, colors)
    depths = np.interp(
        np.arange(n_frames), _still_frames(len(layers), n_frames), np.arange(len(layers))
    )
    for depth in depths:
        below = min(int(depth), len(layers) - 2)
        share = depth - below
        # Slow where a layer is reached, so that the eye can rest there.
        eased = share * share * (3 - 2 * share)
        now = places[below] + eased * (places[below + 1] - places[below])
        color = colors[below] + eased * (colors[below + 1] - colors[below])
        yield stage.frame(now, color, depth, _words(layers, below, share))


def _words(layers: Sequence[str], below: int, share: float) -> str:
    if share in (0, 1):
        return layers[below + int(share)]
    return f"{layers[below]} \u2192 {_short(layers[below + 1])}"


def _short(layer: str) -> str:
    return layer.removeprefix("Layer ")


class _Stage:
    """What stands still, drawn once, and the few things that change from frame to frame."""

    def __init__(
        self,
        places: np.ndarray,
        layers: Sequence[str],
        axes: tuple[str, str],
        title: str,
        colors: np.ndarray,
    ) -> None:
        with matplotlib.rc_context(MATPLOTLIB_STYLE):
            figure = Figure(figsize=(_INCHES, _INCHES), dpi=_DPI)
            self._canvas = FigureCanvasAgg(figure)
            self._map = figure.add_axes((0.125, 0.185, 0.845, 0.685))
            _draw_map(self._map, places, axes)
            figure.text(0.97, 0.925, title, ha="right", color=MUTED, fontsize=9.5)
            track = figure.add_axes((0.125, 0.02, 0.845, 0.07))
            _draw_track(track, layers, colors)
            self._canvas.draw()
            self._background = self._canvas.copy_from_bbox(figure.bbox)
            size = float(np.clip(24_000 / places.shape[1], 6, 26))
            self._dots = self._map.scatter([], [], s=size, alpha=0.75, linewidths=0)
            self._words = figure.text(
                0.125, 0.915, "", color=INK, fontsize=17, fontweight="bold", ha="left"
            )
            self._marker: PathCollection = track.scatter([0], [0.72], s=105, zorder=4, linewidths=2)

    def frame(self, now: np.ndarray, color: np.ndarray, depth: float, words: str) -> Image.Image:
        with matplotlib.rc_context(MATPLOTLIB_STYLE):
            shade = (float(color[0]), float(color[1]), float(color[2]))
            self._canvas.restore_region(self._background)
            self._dots.set_offsets(now)
            self._dots.set_facecolor((*shade, 0.75))
            self._marker.set_offsets([[depth, 0.72]])
            self._marker.set_facecolor(shade)
            self._marker.set_edgecolor(PAPER)
            self._words.set_text(words)
            for artist in (self._dots, self._marker, self._words):
                artist.draw(self._canvas.get_renderer())
            pixels = np.asarray(self._canvas.buffer_rgba())
        return Image.fromarray(pixels[:, :, :3].copy())


def _draw_map(axes: Axes, places: np.ndarray, names: tuple[str, str]) -> None:
    together = places.reshape(-1, 2)
    shown = together[
        np.linspace(0, len(together) - 1, min(len(together), _MOST_BEHIND)).astype(int)
    ]
    axes.scatter(shown[:, 0], shown[:, 1], s=5, color=PLAIN_GREY, alpha=0.16, linewidths=0)
    low, high = together.min(axis=0), together.max(axis=0)
    half = 0.53 * float((high - low).max()) or 1.0
    middle = (low + high) / 2
    axes.set_xlim(middle[0] - half, middle[0] + half)
    axes.set_ylim(middle[1] - half, middle[1] + half)
    axes.set_xlabel(names[0])
    axes.set_ylabel(names[1])


def _draw_track(axes: Axes, layers: Sequence[str], colors: np.ndarray) -> None:
    """A line with a disc a layer, along which a larger one moves."""
    n = len(layers)
    axes.set_axis_off()
    axes.set_xlim(-0.35, n - 0.65)
    axes.set_ylim(0, 1)
    axes.plot([0, n - 1], [0.72, 0.72], color=RULE, linewidth=2.5, zorder=1)
    axes.scatter(np.arange(n), np.full(n, 0.72), s=26, c=colors.tolist(), zorder=2, linewidths=0)
    for i in range(0, n, max(1, -(-n // 16))):
        axes.text(i, 0.0, _short(layers[i]), ha="center", va="bottom", fontsize=8, color=MUTED)


def _gif(frames: Sequence[Image.Image], stills: Sequence[int], fps: float, loop: int) -> bytes:
    # One palette for all frames: what does not move does not flicker.
    palette = _palette([frames[i] for i in stills[:: max(1, -(-len(stills) // _MOST_SAMPLED))]])
    nearest = _nearest(palette)
    first, *others = (_indexed(frame, palette, nearest) for frame in frames)
    found = BytesIO()
    first.save(
        found,
        "gif",
        save_all=True,
        append_images=others,
        duration=max(10 * round(100 / fps), 20),
        loop=loop,
        optimize=False,
    )
    return found.getvalue()


def _merged(gif: bytes, frames: Sequence[int], n_frames: int) -> list[int]:
    """Where `frames` of the `n_frames` drawn are: of equal ones Pillow keeps one, for longer."""
    with Image.open(BytesIO(gif)) as image:
        durations = [frame.info["duration"] for frame in ImageSequence.Iterator(image)]
    ends = np.cumsum(durations)
    middles = (np.asarray(frames) + 0.5) * ends[-1] / n_frames
    return np.searchsorted(ends, middles).tolist()


def _palette(sampled: Sequence[Image.Image]) -> np.ndarray:
    """White, and the colours that serve the sampled frames best."""
    sheet = Image.fromarray(np.concatenate([np.asarray(frame) for frame in sampled]))
    found = sheet.quantize(_COLORS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    colors = np.array(found.getpalette()).reshape(-1, 3)
    return np.concatenate([[[255, 255, 255]], colors]).astype(np.int64)


def _nearest(palette: np.ndarray) -> np.ndarray:
    """The index of the nearest colour for each of 32 x 32 x 32 shades.

    Pillow's own search comes near to the nearest, and paints white paper grey.
    """
    levels = np.arange(32) * 255 / 31
    shades = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    distances = (palette**2).sum(axis=1) - 2 * shades @ palette.T
    return distances.argmin(axis=1).astype(np.uint8)


def _indexed(frame: Image.Image, palette: np.ndarray, nearest: np.ndarray) -> Image.Image:
    red, green, blue = np.moveaxis(np.asarray(frame).astype(np.int32) >> 3, -1, 0)
    found = Image.fromarray(nearest[(red * 32 + green) * 32 + blue])
    found.putpalette(palette.ravel().tolist())
    return found
