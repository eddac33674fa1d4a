import numpy as np
import pytest

from fluoroscope.plots.chart import Axis, Chart, Heatmap, Line, Panel, Scatter
from fluoroscope.plots.labels import label_places
from fluoroscope.plots.matplotlib_renderer import matplotlib_figure, save_chart
from fluoroscope.plots.plotly_renderer import plotly_figures
from fluoroscope.plots.sheets import NOTE_SHEET
from fluoroscope.plots.thinning import kept_points
from fluoroscope.plots.ticks import round_ticks

N = 5000
CLOUD = np.random.default_rng(0).random((2, N))


def _thinned(annotations=None, n_series=1, **more):
    marks = [Scatter(f"s{i}", *CLOUD, annotations=annotations or {}) for i in range(n_series)]
    return Chart([Panel(marks, **more)], Axis("x"), most_points=200)


def _texts(axes):
    return [text.get_text() for text in axes.texts]


def test_a_thinned_series_has_no_more_points_than_was_asked_for_and_says_so():
    (figure,) = plotly_figures(_thinned())
    assert len(figure.data[0].x) == 200
    assert "200 of 5,000 points shown" in figure.layout.xaxis.title.text


def test_series_of_one_panel_share_what_the_panel_may_show():
    (figure,) = plotly_figures(_thinned(n_series=10))
    assert sum(len(trace.x) for trace in figure.data) <= 400


def test_thinning_keeps_annotated_points():
    (figure,) = plotly_figures(_thinned({1234: "odd", 4321: "odder"}))
    for index in (1234, 4321):
        assert np.float32(CLOUD[0, index]) in figure.data[0].x
    assert [one.text for one in figure.layout.annotations] == ["odd", "odder"]


def test_thinning_is_even_and_the_same_every_time():
    kept = kept_points(np.arange(N), 200, [])
    np.testing.assert_array_equal(kept, kept_points(np.arange(N), 200, []))
    assert set(np.diff(kept)) <= {25, 26}
    assert (kept[0], kept[-1]) == (0, N - 1)


def test_thinning_counts_only_points_that_have_a_place():
    y = np.where(np.arange(N) % 2 == 0, CLOUD[1], 0.0)
    y[4] = np.nan
    chart = Chart([Panel([Scatter("s", CLOUD[0], y)])], y=Axis(log=True), most_points=100)
    (figure,) = plotly_figures(chart)
    assert len(figure.data[0].y) == 100
    assert (np.asarray(figure.data[0].y) > 0).all()
    assert "100 of 2,499 points" in figure.layout.xaxis.title.text


def test_paper_shows_every_point_as_an_image_inside_the_pdf(tmp_path):
    axes = matplotlib_figure(_thinned()).axes[0]
    assert len(axes.lines[0].get_xdata()) == N
    assert axes.lines[0].get_rasterized()
    save_chart(_thinned(), tmp_path / "thinned.pdf")
    save_chart(Chart.single(Scatter("s", *CLOUD)), tmp_path / "whole.pdf")
    assert b"/Subtype /Image" in (tmp_path / "thinned.pdf").read_bytes()
    assert b"/Subtype /Image" not in (tmp_path / "whole.pdf").read_bytes()


def test_without_a_limit_the_screen_shows_all():
    (figure,) = plotly_figures(Chart.single(Scatter("s", *CLOUD)))
    np.testing.assert_array_equal(np.asarray(figure.data[0].x), CLOUD[0])
    assert figure.layout.xaxis.title.text == ""


def test_an_annotation_at_no_point_is_refused():
    with pytest.raises(ValueError, match=r"'s' must be at points 0 to 1, got 2"):
        Scatter("s", [0, 1], [0, 1], annotations={2: "here"})


def test_points_of_all_panels_have_one_bar_of_colours():
    panels = [
        Panel([Scatter("p", [0, 1], [0, 1], values=values, ramp="flare", value_label="token")])
        for values in ([0, 10], [500, 1023])
    ]
    chart = Chart(panels)
    assert (chart.color_bar.low, chart.color_bar.high) == (0, 1023)
    assert chart.color_bar.ticks == [100 * i for i in range(11)]
    figure = matplotlib_figure(chart)
    bars = [axes for axes in figure.axes if axes.get_label() == "<colorbar>"]
    assert [axes.get_ylabel() for axes in bars] == ["token"]
    for screen in plotly_figures(chart):
        marker = screen.data[0].marker
        assert (marker.cmin, marker.cmax) == (0, 1023)
        assert "token" in screen.data[0].hovertemplate


def test_two_meanings_of_colour_in_one_chart_are_refused():
    marks = [Scatter(name, [0], [0], values=[1], value_label=name) for name in ("one", "two")]
    with pytest.raises(ValueError, match="one colour bar"):
        matplotlib_figure(Chart.single(*marks))


def test_a_line_may_be_faint_on_paper_and_on_the_screen():
    chart = Chart.single(Line("a", [0, 1], [0, 1], opacity=0.5))
    assert matplotlib_figure(chart).axes[0].lines[0].get_alpha() == 0.5
    assert plotly_figures(chart)[0].data[0].opacity == 0.5


def test_a_heatmap_is_centred_where_it_is_told():
    heatmap = Heatmap([[1.0, 4.0]], ["a", "b"], ["x"], ramp="coolwarm", center=2.0)
    assert heatmap.color_limits == (0.0, 4.0)


def test_a_panel_without_marks_says_why():
    chart = Chart([Panel((), "Layer 0", note="no active latent")], Axis("x"), sheet=NOTE_SHEET)
    axes = matplotlib_figure(chart).axes[0]
    assert _texts(axes) == ["no active latent"]
    assert len(axes.get_xticks()) == 0
    assert plotly_figures(chart)[0].layout.annotations[0].text == "no active latent"


def test_a_note_beside_marks_is_told_apart_from_the_title():
    chart = Chart([Panel([Scatter("s", [0], [0])], "Layer 0", note="3 <b> dead")])
    axes = matplotlib_figure(chart).axes[0]
    assert axes.get_title(loc="left") == "Layer 0"
    assert axes.get_title(loc="right") == "3 <b> dead"
    assert "3 &lt;b&gt; dead" in plotly_figures(chart)[0].layout.xaxis.title.text


def test_a_panel_may_have_an_axis_of_its_own():
    own = Panel([Line("a", [0, 1], [100, 200])], y=Axis("large"))
    chart = Chart([Panel([Line("b", [0, 1], [0, 1])]), own], y=Axis("small"))
    assert chart.limits("y", chart.panels[0])[1] < 2
    assert chart.limits("y", own)[0] > 50
    axes = matplotlib_figure(chart).axes
    assert [one.get_ylabel() for one in axes] == ["small", "large"]


def test_an_axis_of_names_has_a_tick_for_each():
    chart = Chart.single(Line("a", [0, 1], [3, 4]), x=Axis("layer", names=["3", "11"]))
    axes = matplotlib_figure(chart).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["3", "11"]
    assert plotly_figures(chart)[0].layout.xaxis.ticktext == ("3", "11")


def test_words_stand_inside_the_panel_and_clear_of_each_other():
    points = np.array([[0.99, 0.99], [0.98, 0.97], [0.97, 0.98], [0.01, 0.01], [0.5, 0.5]])
    line = (0.03, 0.04)
    boxes = []
    for (x, y), place in zip(points, label_places(points, [0.08] * 5, line), strict=True):
        at_x, at_y = x + place.right * line[0], y + place.up * line[1]
        left = at_x - {"left": 0, "center": 0.04, "right": 0.08}[place.horizontal]
        low = at_y - {"bottom": 0, "center": 0.02, "top": 0.04}[place.vertical]
        boxes.append((left, left + 0.08, low, low + 0.04))
    assert min(min(box) for box in boxes) >= 0
    assert max(max(box) for box in boxes) <= 1
    for i, one in enumerate(boxes):
        for other in boxes[:i]:
            apart = one[0] >= other[1] or other[0] >= one[1]
            assert apart or one[2] >= other[3] or other[2] >= one[3]


def test_words_never_touch_and_those_that_fit_nowhere_are_left_out():
    points, line = np.full((12, 2), 0.5) + np.linspace(0, 0.01, 12)[:, None], (0.1, 0.12)
    found = label_places(points, [0.2] * 12, line)
    assert None in found
    boxes = []
    for (x, y), place in zip(points, found, strict=True):
        if place is None:
            continue
        at_x, at_y = x + place.right * line[0], y + place.up * line[1]
        left = at_x - {"left": 0, "center": 0.1, "right": 0.2}[place.horizontal]
        low = at_y - {"bottom": 0, "center": 0.06, "top": 0.12}[place.vertical]
        boxes.append((left, left + 0.2, low, low + 0.12))
    assert len(boxes) > 3
    for i, one in enumerate(boxes):
        for other in boxes[:i]:
            aside = max(one[0] - other[1], other[0] - one[1])
            above = max(one[2] - other[3], other[2] - one[3])
            assert aside > 0.02 or above > 0.02


def test_words_that_fit_nowhere_are_drawn_nowhere():
    crowd = Scatter("s", np.zeros(40), np.zeros(40), annotations={i: f"{i:06}" for i in range(40)})
    chart = Chart([Panel([crowd])] * 12, columns=4)
    for axes in matplotlib_figure(chart).axes[:1]:
        assert 1 < len(_texts(axes)) < 40
    assert 1 < len(plotly_figures(chart)[0].layout.annotations) < 40


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 1023, list(range(0, 1001, 100))),
        (1, 15, [2, 4, 6, 8, 10, 12, 14]),
        (-0.5, 0.5, [0]),
        (0, 1, [0, 1]),
    ],
)
def test_ticks_of_whole_numbers_are_round_ones(low, high, ticks):
    assert round_ticks(low, high, 12) == ticks
