import json

import matplotlib
import numpy as np
import pytest

from fluoroscope.plots.chart import Axis, Bars, Chart, Heatmap, Histogram, Line, Reference, Scatter
from fluoroscope.plots.matplotlib_renderer import matplotlib_figure, save_chart
from fluoroscope.plots.plotly_renderer import plotly_figures

X = np.arange(5.0)
LINE = Line("topk", X, X**2, X**2 - 1, X**2 + 1, markers=True)
CHARTS = {
    "line with band": Chart.single(LINE, Line("relu", X, X, style="dashed"), x="layer", y="fvu"),
    "log": Chart.single(LINE, y=Axis("fvu", log=True), references=[Reference(0.2, "gate")]),
    "bars": Chart.single(
        Bars("a", ["x", "y"], [1, 2], [0.5, 1.5], [1.5, 2.5]), Bars("b", ["x", "y"], [2, 1])
    ),
    "histogram": Chart.grid(
        {f"layer {i}": [Histogram(f"layer {i}", [0.01, 0.1, 1], [3, i])] for i in range(4)},
        x=Axis("density", log=True),
        palette="ordered",
    ),
    "scatter": Chart.single(
        Scatter("latents", X, X, [f"<{i}>" for i in range(5)]), references=[Reference(2, "x", "x")]
    ),
    "heatmap": Chart.single(Heatmap(np.eye(3), list("abc"), list("xyz"), "r", "diverging")),
    "empty": Chart.single(Line("nothing", [], []), x=Axis("x", log=True)),
    "one point": Chart.single(Line("point", [1], [1])),
    "not a number": Chart.single(Line("gap", [0, 1, 2], [1, np.nan, 3])),
    "large": Chart.single(Line("samples", [0, 2e6], [0, 1e9])),
}


@pytest.mark.parametrize("name", CHARTS)
def test_every_chart_is_drawn_for_the_screen_as_json(name):
    chart = CHARTS[name]
    figures = plotly_figures(chart)
    assert len(figures) == len(chart.panels)
    for figure in figures:
        json.loads(figure.to_json())


@pytest.mark.parametrize("name", CHARTS)
def test_every_chart_is_drawn_on_paper(name, tmp_path):
    save_chart(CHARTS[name], tmp_path / "chart.png")
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("kind", ["png", "pdf"])
def test_a_file_is_the_same_bytes_every_time_and_holds_no_date(tmp_path, kind):
    for name in ("one", "two"):
        save_chart(CHARTS["line with band"], tmp_path / f"{name}.{kind}")
    one = (tmp_path / f"one.{kind}").read_bytes()
    assert one == (tmp_path / f"two.{kind}").read_bytes()
    assert b"CreationDate" not in one


def test_a_kind_of_file_that_we_do_not_write_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"\.png or \.pdf, got 'chart\.jpg'"):
        save_chart(CHARTS["bars"], tmp_path / "chart.jpg")


def test_drawing_leaves_matplotlibs_settings_as_they_were():
    before = dict(matplotlib.rcParams)
    matplotlib_figure(CHARTS["log"])
    assert dict(matplotlib.rcParams) == before


def test_the_band_and_the_line_are_switched_together():
    (figure,) = plotly_figures(Chart.single(LINE))
    assert [trace.legendgroup for trace in figure.data] == ["topk"] * 3
    assert [trace.hoverinfo for trace in figure.data] == ["skip", "skip", None]


def test_the_screen_shows_the_numbers_that_were_given():
    (figure,) = plotly_figures(Chart.single(Line("a", X, X**2)))
    np.testing.assert_array_equal(np.asarray(figure.data[0].y), X**2)


def test_panels_that_share_an_axis_have_the_same_range():
    figures = plotly_figures(CHARTS["histogram"])
    assert len({figure.layout.yaxis.range for figure in figures}) == 1
    assert len({figure.layout.xaxis.range for figure in figures}) == 1


def test_labels_of_points_are_shown_as_they_are_written():
    (figure,) = plotly_figures(CHARTS["scatter"])
    assert figure.data[0].text[0] == "&lt;0&gt;"


def test_paper_has_one_axis_for_each_panel_and_one_legend():
    figure = matplotlib_figure(Chart.grid({"a": [LINE], "b": [LINE], "c": [LINE, Line("b", X, X)]}))
    assert len(figure.axes) == 3
    assert len(figure.legends) == 1
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["a", "b", "c"]
