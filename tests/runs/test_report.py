import re
from html.parser import HTMLParser

import polars
import pytest

from fluoroscope.core.storage import sha256_folder
from fluoroscope.plots.chart import Chart, Line
from fluoroscope.runs.markdown_lite import markdown_html
from fluoroscope.runs.report import Gate, Report
from fluoroscope.runs.report_cards import Context, FeatureCard

FRAME = polars.DataFrame(
    {
        "layer": [0, 1],
        "name": ["a<b>", "c&d"],
        "fvu": [0.048, None],
        "dead": [True, False],
    }
)
CONTEXT = Context(["▁Once", "Ġupon", "Ċ", "<s>"], [0.0, 2.0, -1.0, 1.0], marked=1)
VOID = {"meta", "input", "br", "img", "link"}


class Page(HTMLParser):
    """Checks that tags close in order, and keeps what a test asks about."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.identifiers: list[str] = []
        self.fetched: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        values = dict(attrs)
        self.identifiers += [values["id"]] if "id" in values else []
        self.fetched += [values[key] for key in ("src", "srcset", "poster") if key in values]
        if tag == "link":
            self.fetched.append(values.get("href", ""))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag


def full_report() -> Report:
    report = Report("Dictionary of <tiny>", "All layers", {"Tokens": 2_000_000, "Model": "tiny"})
    report.section("Quality")
    report.text("Each SAE passes **four** gates.\n\n- `l0`\n- *fvu*")
    report.gates(
        [Gate("l0", 14.7, "8 to 32", True, "0.resid_post"), Gate("fvu", 0.3, "≤ 0.2", False)]
    )
    report.subsection("All")
    report.table("sae_quality", FRAME, "Held-out <documents>.")
    report.section("Quality")
    report.figure("curves", Chart.single(Line("</script>", [0, 1], [1, 0]), x="samples"), "Loss.")
    report.cards([FeatureCard("latent 7", {"density": 0.01}, [CONTEXT] * 7, [("▁Lily", 2.0)])])
    report.contexts([CONTEXT])
    report.html("<p>by hand</p>")
    return report


def test_the_page_is_well_formed_and_no_name_is_used_twice():
    page = Page(full_report().page())
    assert page.open == []
    assert len(page.identifiers) == len(set(page.identifiers))


def test_the_page_fetches_nothing():
    text = full_report().page()
    assert Page(text).fetched == []
    assert "default-src 'none'" in text
    assert "url(" not in text[: text.index("</style>")]


def test_the_script_of_figures_is_inside_once_and_only_where_there_are_figures():
    assert full_report().page().count("plotly.js v") == 1
    assert "plotly.js v" not in Report("Words only").page()


def test_what_comes_from_data_is_shown_and_not_obeyed():
    text = full_report().page()
    assert "a&lt;b&gt;" in text
    assert "Dictionary of &lt;tiny&gt;" in text
    assert "&lt;s&gt;" in text
    assert "Held-out &lt;documents&gt;" in text
    assert '"name":"</script>"' not in text


def test_a_failed_gate_is_told_under_the_title_and_stands_first():
    text = full_report().page()
    assert "1 of 2 gates failed" in text
    assert text.index("✕ fail") < text.index("✓ pass")


def test_gates_that_all_pass_are_told_too():
    report = Report("Title")
    report.gates([Gate("l0", 14.7, "8 to 32", passed=True)])
    assert "All 1 gates passed" in report.page()


def test_writing_leaves_the_page_and_the_files_for_a_paper(tmp_path):
    full_report().write(tmp_path)
    assert sorted(sha256_folder(tmp_path)) == [
        "figures/curves.pdf",
        "figures/curves.png",
        "report.html",
        "tables/gates.csv",
        "tables/gates.tex",
        "tables/sae_quality.csv",
        "tables/sae_quality.tex",
    ]


def test_a_report_is_the_same_bytes_every_time(tmp_path):
    for name in ("one", "two"):
        full_report().write(tmp_path / name)
    assert sha256_folder(tmp_path / "one") == sha256_folder(tmp_path / "two")


def test_the_csv_holds_the_numbers_in_full(tmp_path):
    frame = polars.DataFrame({"fvu": [0.1234567890123, 1e-9]})
    report = Report("Title")
    report.table("quality", frame)
    report.write(tmp_path)
    assert polars.read_csv(tmp_path / "tables" / "quality.csv").equals(frame)


@pytest.mark.parametrize("name", ["../escape", "a/b", "", ".hidden", "a b"])
def test_a_name_that_is_no_file_name_is_refused(name):
    with pytest.raises(ValueError, match="becomes a file name"):
        Report("Title").table(name, FRAME)


def test_a_name_is_used_once():
    report = Report("Title")
    report.table("quality", FRAME)
    with pytest.raises(ValueError, match="called 'quality' already"):
        report.figure("quality", Chart.single(Line("a", [0], [0])))


def test_a_format_for_a_column_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="no column 'fvv'"):
        Report("Title").table("quality", FRAME, formats={"fvv": ".2f"})


def test_a_table_of_lists_is_refused():
    with pytest.raises(ValueError, match=r"'values'.*one number or text a cell"):
        Report("Title").table("quality", polars.DataFrame({"values": [[1, 2]]}))


def test_an_empty_table_and_an_empty_report_are_pages_too(tmp_path):
    report = Report("Title")
    report.table("quality", FRAME.clear())
    report.gates([])
    report.contexts([])
    report.cards([FeatureCard("latent 1")])
    report.write(tmp_path)
    assert Page((tmp_path / "report.html").read_text()).open == []


def test_the_strongest_token_has_the_strongest_ground_and_the_marked_one_a_ring():
    text = full_report().page()
    assert '<span class="marked" style="--s:100%" title="2"> upon</span>' in text
    assert '<span style="--s:50%" title="1">&lt;s&gt;</span>' in text
    assert "<span>Once</span>" in text


def test_contexts_after_the_fifth_unfold():
    assert "<summary>2 more</summary>" in full_report().page()


def test_a_context_needs_one_activation_a_token():
    with pytest.raises(ValueError, match="2 tokens and 1 activations"):
        Context(["a", "b"], [1.0])


@pytest.mark.parametrize(
    ("markdown", "html"),
    [
        ("**b** and *i*", "<p><strong>b</strong> and <em>i</em></p>"),
        ("`a*b*c` & 2*3*4", "<p><code>a*b*c</code> &amp; 2*3*4</p>"),
        ("one\ntwo\n\nthree", "<p>one two</p><p>three</p>"),
        ("- a\n- b", "<ul><li>a</li><li>b</li></ul>"),
        ("[t](https://x.org/a_b)", '<p><a href="https://x.org/a_b">t</a></p>'),
        ("[t](javascript:x)", "<p>[t](javascript:x)</p>"),
        ("<b>", "<p>&lt;b&gt;</p>"),
        ("snake_case_name", "<p>snake_case_name</p>"),
        ("", ""),
    ],
)
def test_a_little_markdown_is_read_and_everything_else_shown(markdown, html):
    assert markdown_html(markdown) == html


def test_every_colour_of_the_page_has_a_dark_twin():
    style = full_report().page().split("</style>")[0]
    light, dark = re.findall(r":root(?:\.dark)? \{([^}]*--ink[^}]*)\}", style)
    names = set(re.findall(r"(--[a-z-]+):", light)) - {"--sans", "--mono"}
    assert names == set(re.findall(r"(--[a-z-]+):", dark))
