import numpy as np
import pytest

from fluoroscope.plots.chart import Axis, Bars, Chart, Heatmap, Histogram, Line, Reference, Scatter
from fluoroscope.plots.style import CATEGORICAL, colors, ramp_color
from fluoroscope.plots.ticks import log_text, log_ticks, whole_ticks


def test_parts_of_different_length_are_refused_by_name():
    with pytest.raises(ValueError, match=r"'train' must be equally long.*'x': 3, 'y': 2"):
        Line("train", [1, 2, 3], [1, 2])


def test_a_histogram_needs_one_more_edge_than_counts():
    with pytest.raises(ValueError, match="2 edges and 2 counts"):
        Histogram("density", [0, 1], [3, 4])


def test_a_histogram_counts_every_value_between_its_edges():
    histogram = Histogram.of("density", [0.1, 0.4, 0.5, 2.0], [0, 0.45, 1])
    assert list(np.asarray(histogram.counts)) == [2, 1]


def test_a_heatmap_must_have_a_name_for_each_row_and_column():
    with pytest.raises(ValueError, match=r"\(2, 3\).*got \(3, 2\)"):
        Heatmap(np.zeros((3, 2)), ["a", "b", "c"], ["x", "y"])


def test_a_diverging_heatmap_is_centred_on_zero():
    heatmap = Heatmap([[-1.0, 3.0]], ["a", "b"], ["x"], ramp="diverging")
    assert heatmap.color_limits == (-3.0, 3.0)


def test_a_heatmap_without_one_finite_number_still_has_a_scale():
    low, high = Heatmap([[np.nan]], ["a"], ["x"]).color_limits
    assert low < high
    low, high = Heatmap([[2.0]], ["a"], ["x"]).color_limits
    assert low < high


def test_a_series_has_one_colour_in_every_panel():
    line = Line("topk", [0, 1], [0, 1])
    other = Line("relu", [0, 1], [0, 1])
    chart = Chart.grid({"a": [line, other], "b": [other], "c": [line]})
    assert chart.series_colors == {"topk": CATEGORICAL[0], "relu": CATEGORICAL[1]}


def test_a_colour_that_is_asked_for_is_kept():
    chart = Chart.single(Line("a", [0], [0], color="#000000"), Line("b", [0], [0]))
    assert chart.series_colors == {"a": "#000000", "b": CATEGORICAL[0]}


def test_shared_axes_hold_every_panel_and_reference():
    panels = {"a": [Line("s", [0, 1], [0, 1])], "b": [Line("s", [0, 5], [2, 3], [1, 2], [4, 9])]}
    chart = Chart.grid(panels, references=[Reference(-2.0)])
    for panel in chart.panels:
        low, high = chart.limits("y", panel)
        assert low < -2.0
        assert high > 9.0


def test_axes_that_are_not_shared_fit_their_own_panel():
    panels = {"a": [Scatter("s", [0, 1], [0, 1])], "b": [Scatter("s", [0, 1], [100, 200])]}
    chart = Chart.grid(panels, share_y=False)
    assert chart.limits("y", chart.panels[0])[1] < 2
    assert chart.limits("y", chart.panels[1])[0] > 90


def test_bars_stand_on_zero():
    chart = Chart.single(Bars("fvu", ["a", "b"], [5.0, 6.0]))
    assert chart.limits("y", chart.panels[0])[0] == 0.0


def test_what_is_not_positive_does_not_spoil_a_log_axis():
    chart = Chart.single(Line("a", [0, 1, 2], [0.0, 0.1, np.nan]), y=Axis("fvu", log=True))
    low, high = chart.limits("y", chart.panels[0])
    assert 0 < low < 0.1 < high


def test_limits_that_are_stated_are_kept():
    chart = Chart.single(Line("a", [0, 1], [0, 9]), y=Axis("fvu", limits=(0, 1)))
    assert chart.limits("y", chart.panels[0]) == (0, 1)


def test_a_legend_is_left_out_where_titles_say_it_all():
    one, two = Line("one", [0], [0]), Line("two", [0], [0])
    assert not Chart.single(one).needs_legend
    assert Chart.single(one, two).needs_legend
    assert not Chart.grid({"one": [one], "two": [two]}).needs_legend
    assert Chart.grid({"a": [one, two], "b": [two]}).needs_legend


@pytest.mark.parametrize("n", [1, 2, 5, 30])
def test_ordered_colours_are_all_different(n):
    assert len(set(colors("ordered", n))) == n


def test_a_ramp_begins_and_ends_at_its_anchors():
    assert ramp_color(("#000000", "#808080", "#ffffff"), 0.0) == "#000000"
    assert ramp_color(("#000000", "#808080", "#ffffff"), 0.5) == "#808080"
    assert ramp_color(("#000000", "#808080", "#ffffff"), 1.0) == "#ffffff"


@pytest.mark.parametrize(("low", "high"), [(1e-5, 1.0), (0.012, 1.1), (0.3, 0.9), (1e-12, 1e12)])
def test_a_log_axis_has_a_readable_number_of_ticks_inside(low, high):
    ticks = log_ticks(low, high)
    assert 1 <= len(ticks) <= 10
    assert all(low <= tick <= high for tick in ticks)


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (2.1, 4.9, ["2.5", "3", "3.5", "4", "4.5"]),
        (5.5, 9.1, ["6", "7", "8", "9"]),
        (1.05, 1.9, ["1.2", "1.4", "1.6", "1.8"]),
        (2.1e-5, 3.2e-5, ["2.2·10⁻⁵", "2.4·10⁻⁵", "2.6·10⁻⁵", "2.8·10⁻⁵", "3·10⁻⁵", "3.2·10⁻⁵"]),
        (6.0, 19.0, ["10", "15"]),
        (3.1e4, 6.9e4, ["4·10⁴", "5·10⁴", "6·10⁴"]),
    ],
)
def test_a_log_axis_between_powers_still_has_two_numbers(low, high, words):
    assert [log_text(tick) for tick in log_ticks(low, high)] == words


@pytest.mark.parametrize("ratio", [1.02, 1.1, 1.7, 2.6, 5.0])
def test_no_log_axis_is_without_numbers_or_full_of_them(ratio):
    for low in np.geomspace(1e-5, 1e5, 101):
        ticks = log_ticks(low, low * ratio)
        assert 2 <= len(ticks) <= 7
        assert all(low <= tick * (1 + 1e-9) and tick <= low * ratio * (1 + 1e-9) for tick in ticks)
        assert len({log_text(tick) for tick in ticks}) == len(ticks)


@pytest.mark.parametrize(
    ("tick", "text"),
    [(1.0, "1"), (0.02, "0.02"), (0.001, "0.001"), (1e-5, "10⁻⁵"), (5e4, "5·10⁴"), (500.0, "500")],
)
def test_ticks_read_as_people_write_them(tick, text):
    assert log_text(tick) == text


def test_layers_get_whole_ticks_and_samples_do_not():
    assert whole_ticks(np.arange(5.0)) == [0, 1, 2, 3, 4]
    assert whole_ticks(np.array([0.0, 31.0])) == [0, 5, 10, 15, 20, 25, 30]
    assert whole_ticks(np.array([0.0, 0.5])) is None
    assert whole_ticks(np.array([0.0, 2e6])) is None
