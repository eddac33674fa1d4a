"""Drawings and animations of a report: in its page, its files, its one namespace, and a paper."""

import re
from base64 import b64decode
from io import BytesIO

import numpy as np
import pytest
from finished_runs import finished_run
from matplotlib.figure import Figure
from PIL import Image
from test_report import Page

from fluoroscope.core.storage import read_json, sha256_folder
from fluoroscope.plots.animation import layer_animation
from fluoroscope.plots.chart import Chart, Line
from fluoroscope.runs import report_pictures
from fluoroscope.runs.engine import REPORT_FILES
from fluoroscope.runs.manifest import write_report_manifest
from fluoroscope.runs.paper.export import export_run
from fluoroscope.runs.report import Report
from fluoroscope.runs.run import DONE
from fluoroscope.runs.written_report import read_report

LAYERS = ["Layer 0", "Layer 1", "Layer 2"]


def figure(title="norms"):
    drawn = Figure(figsize=(3, 2))
    axes = drawn.subplots()
    axes.plot([0, 1], [1, 3])
    axes.set_title(title)
    return drawn


def animation():
    return layer_animation(np.random.default_rng(0).random((3, 9, 2)), LAYERS, n_frames=5)


def pictured() -> Report:
    report = Report("Anatomy")
    report.section("stream")
    report.drawing("stream", figure(), "Norms of <all> layers.", "A stream that widens.")
    report.drawing("other", figure("other"))
    report.animation("moving", animation(), "Rows from layer to layer.")
    report.figure("curve", Chart.single(Line("a", [0, 1], [1, 0])), "A curve.")
    return report


@pytest.fixture(scope="module")
def page() -> str:
    """Without its scripts, which hold images of their own."""
    return pictured().page().split("<script>")[0]


def data(text, kind):
    return [b64decode(found) for found in re.findall(rf'src="data:{kind};base64,([^"]+)"', text)]


def test_the_page_is_well_formed_and_holds_what_it_shows():
    text = pictured().page()
    page = Page(text)
    assert page.open == []
    assert len(page.identifiers) == len(set(page.identifiers))
    # One image a drawing, the animation, and its stills: all are data, none is fetched.
    assert len(page.fetched) == 2 + 1 + 3
    assert all(source.startswith("data:image/") for source in page.fetched)
    assert "img-src data:" in text


def test_drawings_are_svg_that_two_of_a_page_cannot_confuse(page):
    one, other = data(page, r"image/svg\+xml")
    assert one.startswith(b"<?xml")
    assert one != other


def test_a_drawing_of_too_many_shapes_is_a_png_in_the_page(monkeypatch):
    monkeypatch.setattr(report_pictures, "MOST_SVG_BYTES", 100)
    report = Report("Anatomy")
    report.drawing("stream", figure())
    (found,) = data(report.page(), "image/png")
    assert found.startswith(b"\x89PNG")


def test_every_picture_says_in_words_what_it_is(page):
    images = re.findall(r"<img[^>]*>", page)
    alts = [re.search(r'alt="([^"]*)"', image)[1] for image in images]
    assert alts[:2] == ["A stream that widens.", "other"]
    assert alts[2].startswith("Map: 9 dots move from Layer 0 to Layer 2")
    assert alts[3:] == LAYERS


def test_an_animation_has_the_still_of_each_layer_below_it(page):
    (gif,) = data(page, "image/gif")
    assert gif == animation().gif
    stills = data(page, "image/png")
    with Image.open(BytesIO(gif)) as moving:
        for frame, still in zip((0, 2, 4), stills, strict=True):
            moving.seek(frame)
            with Image.open(BytesIO(still)) as shown:
                np.testing.assert_array_equal(shown.convert("RGB"), moving.convert("RGB"))


def test_files_of_pictures_are_the_same_bytes_every_time(tmp_path):
    for name in ("one", "two"):
        pictured().write(tmp_path / name)
    hashes = sha256_folder(tmp_path / "one")
    assert hashes == sha256_folder(tmp_path / "two")
    assert {name for name in hashes if name.startswith("figures/")} == {
        f"figures/{name}"
        for name in (
            *("curve.pdf", "curve.png", "moving.gif"),
            *("other.pdf", "other.png", "stream.pdf", "stream.png"),
        )
    }


def test_drawings_and_animations_share_the_names_of_tables_and_figures():
    report, again = pictured(), animation()
    for name in ("stream", "moving", "curve"):
        with pytest.raises(ValueError, match=f"called '{name}' already"):
            report.drawing(name, figure())
        with pytest.raises(ValueError, match=f"called '{name}' already"):
            report.animation(name, again)
        with pytest.raises(ValueError, match=f"called '{name}' already"):
            report.figure(name, Chart.single(Line("a", [0], [0])))
    with pytest.raises(ValueError, match="becomes a file name"):
        report.drawing("a/b", figure())


def test_captions_are_found_again_under_every_kind_of_picture(tmp_path):
    pictured().write(tmp_path)
    assert read_report(tmp_path / "report.html").captions == {
        "stream": "Norms of <all> layers.",
        "moving": "Rows from layer to layer.",
        "curve": "A curve.",
    }


def test_a_paper_has_drawings_with_their_captions_and_animations_as_files(tmp_path):
    run = finished_run(tmp_path / "runs")
    pictured().write(run)
    write_report_manifest(run, read_json(run / DONE)["inputs"], REPORT_FILES)
    found = export_run(run, tmp_path / "paper")
    # The drawing, another, the curve, and the run's own figure.
    assert found.n_figures == 4
    text = (tmp_path / "paper" / "paper.tex").read_text(encoding="utf-8")
    assert r"{{figures/stream}.pdf}" in text
    assert r"\caption{Norms of" in text
    assert "moving" not in text
    gif = (tmp_path / "paper" / "figures" / "moving.gif").read_bytes()
    assert gif == animation().gif
