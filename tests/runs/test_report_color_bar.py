from fluoroscope.plots.chart import Axis, Chart, Panel, Scatter
from fluoroscope.plots.sheets import NOTE_SHEET
from fluoroscope.runs.report import Report


def _page(chart):
    report = Report("A page")
    report.figure("figure", chart, "What it shows.")
    return report.page()


def _points(**more):
    return Scatter("position", [0, 1], [0, 1], values=[0, 100], ramp="flare", **more)


def test_the_page_says_once_what_colours_mean():
    panels = [Panel([_points(value_label="token <index>")], f"Layer {i}") for i in range(3)]
    page = _page(Chart(panels, Axis("x"), legend=False))
    assert page.count('<div class="color-bar">') == 1
    assert "token &lt;index&gt;" in page
    assert page.count('<span style="left:') == 11
    assert '<span style="left:100.0%">100</span>' in page


def test_a_page_without_colours_by_number_has_no_bar():
    assert '<div class="color-bar">' not in _page(Chart.single(Scatter("a", [0], [0])))


def test_the_title_of_a_figure_stands_above_its_panels():
    page = _page(Chart([Panel([_points()])], title="All <layers>"))
    assert '<p class="title">All &lt;layers&gt;</p>' in page


def test_a_page_has_room_for_four_panels_side_by_side():
    panels = [Panel([_points()], f"Layer {i}") for i in range(24)]
    assert "--columns:4" in _page(Chart(panels, columns=6, sheet=NOTE_SHEET))
