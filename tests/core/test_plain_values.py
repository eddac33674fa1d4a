import math

from fluoroscope.core.plain_values import with_nan, without_nan


def test_numbers_that_cannot_be_told_are_null_in_json_and_nan_again_when_read():
    told = {"value": 0.5, "ends": [math.nan, math.inf, 1.0], "words": "null", "n": 3, "is": False}
    written = without_nan(told)
    assert written == {
        "value": 0.5, "ends": [None, None, 1.0], "words": "null", "n": 3, "is": False,
    }  # fmt: skip
    read = with_nan(written)
    assert [math.isnan(end) for end in read["ends"]] == [True, True, False]
    assert {name: read[name] for name in ("value", "words", "n", "is")} == {
        "value": 0.5, "words": "null", "n": 3, "is": False,
    }  # fmt: skip
