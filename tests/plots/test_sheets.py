import math

import pytest

from fluoroscope.plots.chart import Chart, Panel, Scatter
from fluoroscope.plots.matplotlib_renderer import matplotlib_figure
from fluoroscope.plots.sheets import NOTE_SHEET, PAGE_SHEET, grid_columns
from fluoroscope.plots.style import MATPLOTLIB_STYLE, PNG_DPI


@pytest.mark.parametrize(
    ("n", "rows", "columns"),
    [(1, 1, 1), (2, 1, 2), (3, 1, 3), (4, 2, 2), (5, 2, 3), (6, 2, 3), (12, 3, 4), (24, 4, 6)],
)
def test_panels_stand_in_their_natural_grid(n, rows, columns):
    assert grid_columns(n) == columns
    assert math.ceil(n / columns) == rows


@pytest.mark.parametrize("n", range(4, 60))
def test_a_grid_is_wide_rather_than_high_and_has_no_empty_row(n):
    columns = grid_columns(n)
    rows = math.ceil(n / columns)
    assert rows <= columns <= 2.5 * rows
    assert (rows - 1) * columns < n


def test_twelve_layers_are_three_rows_of_four_and_three_thousand_pixels():
    panels = [Panel([Scatter("a", [0, 1], [0, 1])], f"Layer {i}") for i in range(12)]
    chart = Chart(panels, columns=grid_columns(12), title="All layers", sheet=NOTE_SHEET)
    figure = matplotlib_figure(chart)
    assert tuple(figure.get_size_inches()) == (40, 24)
    assert NOTE_SHEET.dpi(figure.get_figwidth()) * figure.get_figwidth() == 3000
    places = [axes.get_subplotspec() for axes in figure.axes]
    assert {place.get_gridspec().get_geometry() for place in places} == {(3, 4)}
    assert figure.get_suptitle() == "All layers"
    assert [axes.get_title(loc="left") for axes in figure.axes] == [f"Layer {i}" for i in range(12)]


def test_the_note_has_type_of_eighteen_points_and_the_page_its_own():
    assert NOTE_SHEET.style["font.size"] == pytest.approx(18)
    assert PAGE_SHEET.style == MATPLOTLIB_STYLE
    assert PAGE_SHEET.dpi(50.0) == PNG_DPI


def test_a_title_that_is_wider_than_the_sheet_is_broken():
    chart = Chart([Panel([Scatter("a", [0], [0])])], title="word " * 30, sheet=NOTE_SHEET)
    assert "\n" in matplotlib_figure(chart).get_suptitle()
