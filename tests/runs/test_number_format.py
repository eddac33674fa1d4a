import math

import polars
import pytest

from fluoroscope.runs.latex import latex_table, latex_text
from fluoroscope.runs.number_format import cell_text, column_texts


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([0.048, 0.117, 0.1823], ["0.048", "0.117", "0.182"]),
        ([14.71, 16.0], ["14.7", "16.0"]),
        ([1234.5, 20.25], ["1\u202f234", "20"]),
        ([4e-5, 1e-4], ["4.0e−5", "1.0e−4"]),
        ([0.0, 0.0], ["0.0", "0.0"]),
        ([-0.5, math.nan, None, math.inf], ["−0.500", "NaN", "–", "∞"]),
        ([1.5e9, 2.5e9], ["1.5e9", "2.5e9"]),
        ([], []),
    ],
)
def test_a_column_has_the_same_decimals_throughout(values, texts):
    assert column_texts(polars.Series(values, dtype=polars.Float64)) == texts


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2_000_000, "2\u202f000\u202f000"),
        (0.048, "0.048"),
        (0.0, "0"),
        (-1, "−1"),
        (True, "yes"),
        (None, "–"),
        ("batch_topk", "batch_topk"),
        (1.5e-7, "1.5e−7"),
    ],
)
def test_a_value_alone_is_as_short_as_it_can_be(value, text):
    assert cell_text(value) == text


def test_a_format_that_is_asked_for_is_used():
    assert column_texts(polars.Series([1, 2]), ".2f") == ["1.00", "2.00"]


def test_latex_reads_our_text_as_text():
    assert latex_text(r"a_b & 50% {x} #1 $ ~ ^ \ <") == (
        r"a\_b \& 50\% \{x\} \#1 \$ \textasciitilde{} \textasciicircum{} "
        r"\textbackslash{} \textless{}"
    )


def test_a_latex_table_has_a_row_for_each_row_and_numbers_to_the_right():
    frame = polars.DataFrame({"hook_point": ["0.resid_post"], "fvu": [-0.048]})
    text = latex_table(frame, "Quality", "sae_quality")
    assert r"\begin{tabular}{lr}" in text
    assert r"    hook\_point & fvu \\" in text
    assert r"    0.resid\_post & $-$0.0480 \\" in text
    assert r"\label{tab:sae_quality}" in text
