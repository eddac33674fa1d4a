"""Where the words beside annotated points stand, so that they do not cover each other."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

# Directions around a point, tried in turn: to its right, its left, above, below, and corners.
_DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))


def label_directions(
    points: Float[np.ndarray, "points 2"],
    widths: Sequence[float],
    height: float,
) -> list[tuple[int, int]]:
    """For each point the direction (x, y: -1, 0 or 1) in which its words go.

    Points, widths and the height of the words are in shares of the panel's width and height.
    The first direction is taken that stays inside the panel and clear of words that were placed
    before; the first of all where there is none.
    """
    boxes: list[tuple[float, float, float, float]] = []
    chosen: list[tuple[int, int]] = []
    for (x, y), width in zip(points, widths, strict=True):
        tried = [(way, _box(float(x), float(y), width, height, way)) for way in _DIRECTIONS]
        free = [pair for pair in tried if _is_inside(pair[1]) and not _meets(pair[1], boxes)]
        way, box = (free or tried)[0]
        chosen.append(way)
        boxes.append(box)
    return chosen


def _box(
    x: float, y: float, width: float, height: float, way: tuple[int, int]
) -> tuple[float, float, float, float]:
    """Left, right, bottom and top of words that stand half their height away from the point."""
    gap = height / 2
    left = x + (gap if way[0] > 0 else -gap - width if way[0] < 0 else -width / 2)
    bottom = y + (gap if way[1] > 0 else -gap - height if way[1] < 0 else -height / 2)
    return (left, left + width, bottom, bottom + height)


def _is_inside(box: tuple[float, float, float, float]) -> bool:
    return min(box) >= 0 and max(box) <= 1


def _meets(
    box: tuple[float, float, float, float], others: Sequence[tuple[float, float, float, float]]
) -> bool:
    left, right, bottom, top = box
    return any(
        left < other[1] and other[0] < right and bottom < other[3] and other[2] < top
        for other in others
    )
