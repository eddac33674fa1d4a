import math
import re

import pytest
from test_report import Page

from fluoroscope.runs.report import Report
from fluoroscope.runs.report_strips import Strip, StripRow, strips_html

ROW = StripRow("surprise", [0.0, 1.0, 4.0], 2.0, "nats")
STRIP = Strip(["The", " cat", " sat"], [ROW], "One", "Say:\n", {"score": 0.5}, ("fail", "wrong"))
NASTY = '<script>alert("1")</script>\'&'


def shares(text):
    return [int(share) for share in re.findall(r"--s:(\d+)%", text)]


def test_a_cell_is_coloured_by_its_share_of_the_scale_and_no_further_than_full():
    assert shares(strips_html([STRIP])) == [0, 50, 100]


def test_the_number_of_every_token_is_under_the_pointer():
    titles = re.findall(r'<span title="([^"]*)"><b>', strips_html([STRIP]))
    assert titles == ["surprise 0 nats", "surprise 1 nats", "surprise 4 nats"]


def test_a_number_that_is_not_known_is_not_said():
    row = StripRow("tracks", [math.nan, 3.0], 3.0)
    text = strips_html([Strip(["a", "b"], [row])])
    assert shares(text) == [0, 100]
    assert 'title=""' in text
    assert "nan" not in text


@pytest.mark.parametrize("part", ["title", "prompt", "fact", "verdict", "token", "row", "unit"])
def test_whatever_comes_from_data_is_shown_and_not_obeyed(part):
    given = {name: NASTY if name == part else name for name in
             ("title", "prompt", "fact", "verdict", "token", "row", "unit")}  # fmt: skip
    strip = Strip(
        [given["token"], "\n"],
        [StripRow(given["row"], [1.0, 2.0], 2.0, given["unit"])],
        given["title"],
        given["prompt"],
        {given["fact"]: given["fact"]},
        ("pass", given["verdict"]),
    )
    report = Report("Title")
    report.strips([strip], "Caption.")
    page = Page(report.page())
    assert page.open == []
    text = strips_html([strip])
    assert "<script>" not in text
    assert 'alert("' not in text
    assert "&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&#x27;&amp;" in text


def test_rows_of_one_name_have_one_colour_and_one_scale():
    other = Strip(["a"], [StripRow("tracks", [1.0], 5.0), StripRow("surprise", [1.0], 2.0, "nats")])
    text = strips_html([STRIP, other])
    key = text[: text.index("</ul>")]
    assert key.count("<li") == 2
    assert "0 to 2 nats" in key
    assert re.findall(r'class="row-(\d)" style="--s:(\d+)%', text)[3:] == [("1", "20"), ("0", "50")]
    with pytest.raises(ValueError, match="must have one scale"):
        strips_html([STRIP, Strip(["a"], [StripRow("surprise", [1.0], 3.0, "nats")])])


def test_a_row_of_another_length_and_a_scale_of_nothing_are_refused():
    with pytest.raises(ValueError, match="got 3 for 1 tokens"):
        Strip(["a"], [ROW])
    with pytest.raises(ValueError, match="must be above 0"):
        StripRow("doubt", [0.0], 0.0)


def test_more_rows_than_there_are_colours_are_refused():
    rows = [StripRow(f"row {i}", [1.0], 1.0) for i in range(6)]
    with pytest.raises(ValueError, match="5 rows at most"):
        strips_html([Strip(["a"], rows)])
