"""Where an axis has its ticks, and what they say; the same on the screen and on paper."""

import math

import numpy as np

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten from `low` to `high`; 1, 2, 5 of each where that would be too few.

    A short axis, such as one from 2.1 to 4.9, has evenly spaced round numbers instead.
    """
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    step = max(1, math.ceil((last - first) / 7))
    powers = [10.0**power for power in range(first, last + 1, step)]
    inside = [tick for tick in powers if low <= tick <= high]
    if len(inside) >= 3:
        return inside
    finer = [factor * 10.0**power for power in range(first, last + 1) for factor in (1, 2, 5)]
    found = [tick for tick in finer if low <= tick <= high]
    return found if len(found) >= 2 or low >= high else _even_ticks(low, high)


def _even_ticks(low: float, high: float) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten: 2 at least, as ends are 2.4 to 6 steps apart."""
    power = math.floor(math.log10((high - low) / 6))
    step = next(s for f in (1, 2, 5, 10, 20) if 6 * (s := f * 10.0**power) >= high - low)
    places = range(math.ceil(low / step), math.floor(high / step) + 1)
    return [round(place * step, max(-power, 0)) for place in places]


def log_text(tick: float) -> str:
    """`0.02`, `500`, and beyond three zeros `10⁻⁵`."""
    power = math.floor(math.log10(tick) + 1e-9)
    if -3 <= power <= 3:
        return f"{tick:g}"
    factor = f"{tick / 10.0**power:g}"
    base = "10" + str(power).translate(_SUPERSCRIPTS)
    return base if factor == "1" else f"{factor}·{base}"


def whole_ticks(values: np.ndarray) -> list[int] | None:
    """Ticks on whole numbers, at most a dozen; None unless all `values` are whole and near."""
    if values.size == 0 or not np.array_equal(values, np.round(values)):
        return None
    low, high = int(values.min()), int(values.max())
    if high - low > 100 or np.unique(values).size < 2:
        return None
    step = next(step for step in (1, 2, 5, 10) if (high - low) / step <= 12)
    return list(range(low, high + 1, step))


def round_ticks(low: float, high: float, most: int) -> list[float]:
    """Whole multiples of 1, 2 or 5 times a power of ten between the ends, at most `most` + 1.

    Ends that have no whole number between them get finer multiples.
    """
    width = high - low
    steps = [factor * 10.0**power for power in range(-12, 13) for factor in (1, 2, 5)]
    is_whole = math.floor(high) >= math.ceil(low)
    step = next(
        (step for step in steps if width <= most * step and (step >= 1 or not is_whole)), width
    )
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(place * step, 12) for place in range(first, last + 1)]
