"""Numbers as people read them: every number of a column with the same decimals.

The decimals follow the middle of the column, so that a typical value shows three digits; a
column that would show small values as zero is written in powers of ten instead.
"""

import math
from collections.abc import Sequence

import polars

MINUS, THIN_SPACE, NOTHING = "\u2212", "\u202f", "\u2013"


def column_texts(column: polars.Series, number_format: str | None = None) -> list[str]:
    """The cells of a column as text; `number_format` is a format such as `.3f`."""
    values = column.to_list()
    if column.dtype.is_float() or (number_format and column.dtype.is_numeric()):
        chosen = number_format or float_format([v for v in values if v is not None])
        return [_number_text(value, chosen) for value in values]
    return [cell_text(value) for value in values]


def cell_text(value: object) -> str:
    """One value by itself: a float with up to three digits, whole numbers with thin spaces."""
    match value:
        case None:
            return NOTHING
        case bool():
            return "yes" if value else "no"
        case int():
            return _number_text(value, "d")
        case float():
            text = _number_text(value, float_format([value]))
            # Alone, 0.0480 says no more than 0.048.
            return text.rstrip("0").rstrip(".") if "." in text and "e" not in text else text
        case _:
            return str(value)


def float_format(values: Sequence[float | int]) -> str:
    """The format that suits these numbers together."""
    sizes = sorted(abs(value) for value in values if math.isfinite(value) and value != 0)
    if not sizes:
        return ".1f"
    middle, largest, smallest = sizes[len(sizes) // 2], sizes[-1], sizes[0]
    decimals = min(max(2 - math.floor(math.log10(middle)), 0), 4)
    vanishes = smallest < 0.5 * 10**-decimals
    typical_vanishes = middle < 10 ** -(decimals - 1)
    if largest >= 1e7 or typical_vanishes or (vanishes and smallest < 1e-4 and largest < 1e-1):
        return ".1e"
    return f".{decimals}f"


def _number_text(value: float | int | None, number_format: str) -> str:
    if value is None:
        return NOTHING
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "\u221e" if value > 0 else f"{MINUS}\u221e"
    text = format(value, number_format if "e" in number_format else f",{number_format}")
    if "e" in text:
        digits, _, power = text.partition("e")
        text = f"{digits}e{int(power)}"
    return text.replace(",", THIN_SPACE).replace("-", MINUS)
