"""Where the words beside annotated points stand, so that they do not cover each other."""

from collections.abc import Sequence
from itertools import product
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

# To the right of a point, its left, above, below, and its corners; then the same further away.
_DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
_DISTANCES = (0.5, 2.0, 3.5, 5.0)
# Lines that stay free around words: widths are guesses, and touching numbers read as one.
_MARGIN = 0.25

_Box = tuple[float, float, float, float]


class LabelPlace(NamedTuple):
    """How far right and up of its point the nearest edge of the words is, in heights of a line."""

    right: float
    up: float

    @property
    def is_far(self) -> bool:
        """Whether a line should lead from the words to their point."""
        return max(abs(self.right), abs(self.up)) > _DISTANCES[0]

    @property
    def horizontal(self) -> Literal["left", "center", "right"]:
        """Which side of the words is at the place."""
        return "left" if self.right > 0 else "right" if self.right < 0 else "center"

    @property
    def vertical(self) -> Literal["bottom", "center", "top"]:
        return "bottom" if self.up > 0 else "top" if self.up < 0 else "center"


def label_places(
    points: Float[np.ndarray, "points 2"],
    widths: Sequence[float],
    line: tuple[float, float],
) -> list[LabelPlace | None]:
    """A place for the words of each point; None where they fit nowhere.

    Points, widths of the words, and the height of a line (in shares of the panel's width, and of
    its height) are in shares of the panel. The first place is taken that is inside the panel and
    clear of the other points and of words that were placed before.
    """
    taken: list[_Box] = []
    chosen: list[LabelPlace | None] = []
    marks = [_around(point, line) for point in points]
    ways = [LabelPlace(far * x, far * y) for far, (x, y) in product(_DISTANCES, _DIRECTIONS)]
    for i, (point, width) in enumerate(zip(points, widths, strict=True)):
        others = [*taken, *marks[:i], *marks[i + 1 :]]
        boxes = [_box(point, width, line, way) for way in ways]
        free = [k for k, box in enumerate(boxes) if _is_inside(box) and not _meets(box, others)]
        chosen.append(ways[free[0]] if free else None)
        taken += [_wider(boxes[k], line) for k in free[:1]]
    return chosen


def _box(
    point: Float[np.ndarray, " 2"], width: float, line: tuple[float, float], way: LabelPlace
) -> _Box:
    """Left, right, bottom and top of the words."""
    x, y = float(point[0]) + way.right * line[0], float(point[1]) + way.up * line[1]
    left = x - {"left": 0, "center": width / 2, "right": width}[way.horizontal]
    bottom = y - {"bottom": 0, "center": line[1] / 2, "top": line[1]}[way.vertical]
    return (left, left + width, bottom, bottom + line[1])


def _around(point: Float[np.ndarray, " 2"], line: tuple[float, float]) -> _Box:
    """The point itself, as large as a third of a line."""
    x, y = float(point[0]), float(point[1])
    return (x - line[0] / 6, x + line[0] / 6, y - line[1] / 6, y + line[1] / 6)


def _wider(box: _Box, line: tuple[float, float]) -> _Box:
    x, y = _MARGIN * line[0], _MARGIN * line[1]
    return (box[0] - x, box[1] + x, box[2] - y, box[3] + y)


def _is_inside(box: _Box) -> bool:
    return min(box) >= 0 and max(box) <= 1


def _meets(box: _Box, others: Sequence[_Box]) -> bool:
    left, right, bottom, top = box
    return any(
        left < other[1] and other[0] < right and bottom < other[3] and other[2] < top
        for other in others
    )
