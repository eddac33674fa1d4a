"""A drawing of measured norms: what it shows is what was measured, at any depth."""

import matplotlib
import numpy as np
import pytest
from matplotlib.text import Text

from fluoroscope.plots.figure_files import figure_bytes, save_figure
from fluoroscope.plots.residual_stream import Tap, residual_stream

NORMS = np.array([10.0, 20.0, 40.0])
ADDED = np.array([5.0, 12.0])
TAPS = [Tap(0, 0.9, 32.0, 0.5), Tap(2, -0.25, None, 0.004)]


def words(figure):
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


@pytest.mark.parametrize("n", [1, 12, 27, 48])
def test_words_stay_on_the_page_and_do_not_cover_each_other_at_any_depth(n):
    norms = np.geomspace(3, 300, n + 1)
    taps = [Tap(i, 0.9, 100.0, 0.123) for i in range(n + 1)]
    figure = residual_stream(norms, 0.4 * norms[:-1], 0.6 * norms[:-1], taps, "A model's stream")
    renderer = figure.canvas.get_renderer()
    found = [text for text in figure.findobj(Text) if text.get_text()]
    extents = [text.get_window_extent(renderer) for text in found]
    assert f"Layer {n - 1}" in words(figure)
    page = figure.bbox
    for i, one in enumerate(extents):
        assert page.x0 <= one.x0, found[i]
        assert one.x1 <= page.x1, found[i]
        assert page.y0 <= one.y0, found[i]
        assert one.y1 <= page.y1, found[i]
        # A pixel at the edges of a box is air.
        inner = one.padded(-1)
        assert not any(inner.overlaps(other.padded(-1)) for other in extents[:i]), found[i]


def test_the_stream_is_as_wide_as_its_norms_and_branches_are_as_long():
    figure = residual_stream(NORMS, ADDED, ADDED[::-1])
    shapes = [patch.get_path().vertices for patch in figure.axes[0].patches]
    stream = next(shape for shape in shapes if len(shape) > 60)
    sides = {round(y, 6): x for x, y in np.abs(stream)}
    heights = sorted(sides)
    widths = np.array([sides[heights[i]] for i in (0, len(heights) // 2, -1)]) * 2
    np.testing.assert_allclose(widths / widths[0], NORMS / NORMS[0], rtol=1e-6)
    inches = widths[0] / NORMS[0]
    branches = [shape for shape in shapes if len(shape) == 10]
    # Vertex 6 and 7: where the bend begins and the edge of the stream; vertex 3 is the outer end.
    lengths = [abs(shape[3, 0] - shape[7, 0]) / inches for shape in branches]
    np.testing.assert_allclose(lengths, [5, 12, 12, 5], rtol=1e-6)
    assert [np.sign(shape[3, 0]) for shape in branches] == [-1, -1, 1, 1]


def test_taps_say_what_was_measured_and_what_was_not():
    said = words(residual_stream(NORMS, ADDED, ADDED, TAPS))
    assert {"90.0%", "32.0", "50%", "\u221225.0%", "\u2013", "0.4%"} <= set(said)
    without = words(residual_stream(NORMS, ADDED, ADDED))
    assert "SAE explains" not in without


def test_a_branch_that_was_not_measured_is_not_drawn():
    with_all, without = (
        len(residual_stream(NORMS, ADDED, mlp).axes[0].patches)
        for mlp in (ADDED, np.array([np.nan, 3.0]))
    )
    assert without == with_all - 1
    residual_stream(NORMS, np.full(2, np.nan), np.full(2, np.nan))


@pytest.mark.parametrize("kind", ["png", "pdf", "svg"])
def test_a_drawing_is_the_same_bytes_every_time_and_holds_no_date(kind, tmp_path):
    figure, again = (residual_stream(NORMS, ADDED, ADDED, TAPS, "T") for _ in range(2))
    content = figure_bytes(figure, kind)
    assert content == figure_bytes(again, kind) == figure_bytes(figure, kind)
    assert not any(word in content for word in (b"CreationDate", b"<dc:date>", b"Software"))
    save_figure(figure, tmp_path / f"stream.{kind}")
    assert (tmp_path / f"stream.{kind}").read_bytes() == content


def test_drawing_leaves_matplotlibs_settings_as_they_were_and_other_files_are_refused(tmp_path):
    before = dict(matplotlib.rcParams)
    figure = residual_stream(NORMS, ADDED, ADDED)
    figure_bytes(figure, "svg")
    assert dict(matplotlib.rcParams) == before
    with pytest.raises(ValueError, match=r"\.png, \.pdf or \.svg, got 'a\.jpg'"):
        save_figure(figure, tmp_path / "a.jpg")


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match="got 2, 2 and 2"):
        residual_stream(NORMS[:2], ADDED, ADDED)
    with pytest.raises(ValueError, match="finite and above 0"):
        residual_stream(NORMS * np.nan, ADDED, ADDED)
    with pytest.raises(ValueError, match="0 or more"):
        residual_stream(NORMS, -ADDED, ADDED)
    for taps in ([Tap(3)], [Tap(1), Tap(1)]):
        with pytest.raises(ValueError, match="places 0 to 2, one at each"):
            residual_stream(NORMS, ADDED, ADDED, taps)
