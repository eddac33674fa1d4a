"""Pictures that are not charts, as HTML: drawings, and animations with a still for each layer.

They are inside the page as data, which its content security policy allows; a drawing is an SVG
where that is not too long. All stand on white, in the dark too, for their inks are chosen for it.
"""

from base64 import b64encode
from html import escape

from matplotlib.figure import Figure

from fluoroscope.plots.animation import Animation, gif_frame
from fluoroscope.plots.figure_files import figure_bytes
from fluoroscope.runs.report_html import boxed_html

MOST_SVG_BYTES = 1_500_000
"""Of a drawing with more shapes the page holds a png."""


def drawing_html(name: str, figure: Figure, caption: str, alt: str) -> str:
    svg = figure_bytes(figure, "svg")
    if len(svg) <= MOST_SVG_BYTES:
        source = _data("image/svg+xml", svg)
    else:
        source = _data("image/png", figure_bytes(figure, "png"))
    return boxed_html("drawing", _image(source, alt or caption or name, name), caption)


def animation_html(name: str, animation: Animation, caption: str) -> str:
    """The animation, and below it its stills, which unfold on paper and where motion is unwelcome.

    report.js unfolds them, and report.css then hides what moves.
    """
    moving = _image(_data("image/gif", animation.gif), animation.alt, name)
    stills = "".join(
        f"<li>{_image(_data('image/png', gif_frame(animation.gif, frame)), what)}</li>"
        for what, frame in animation.stills.items()
    )
    summary = f"<summary>{len(animation.stills)} stills</summary>"
    folded = f'<details class="stills">{summary}<ul>{stills}</ul></details>'
    return boxed_html("animation", f'<div class="moving">{moving}</div>{folded}', caption)


def _image(source: str, alt: str, name: str = "") -> str:
    # By its name a caption is found again (`written_report.py`); ids are for headings.
    known_as = f' data-name="{escape(name)}"' if name else ""
    return f'<img{known_as} alt="{escape(alt)}" src="{source}">'


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{b64encode(content).decode()}"
