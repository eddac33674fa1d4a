"""Just enough Markdown for the sentences of a report.

Paragraphs, `-` lists, **bold**, *italic*, `code` and [links](https://...). Everything else
is shown as it is written; HTML is escaped.
"""

import re
from html import escape

_INLINE = (
    (re.compile(r"\*\*(.+?)\*\*"), r"<strong>\1</strong>"),
    (re.compile(r"(?<![\w*])\*([^*\s](?:[^*]*[^*\s])?)\*(?![\w*])"), r"<em>\1</em>"),
    (re.compile(r"\[([^\]]+)\]\(((?:https?://|#)[^)\s]+)\)"), r'<a href="\2">\1</a>'),
)


def markdown_html(text: str) -> str:
    """The paragraphs and lists of `text`, which are set apart by blank lines."""
    blocks = [block.strip() for block in re.split(r"\n\s*\n", text.strip())]
    return "".join(_block_html(block) for block in blocks if block)


def inline_html(text: str) -> str:
    """One line, without a paragraph around it."""
    # Odd pieces stand between backticks, where nothing else is read.
    pieces = re.split(r"`([^`]+)`", text)
    return "".join(
        f"<code>{escape(piece)}</code>" if i % 2 else _styled(escape(piece))
        for i, piece in enumerate(pieces)
    )


def _styled(escaped: str) -> str:
    for pattern, replacement in _INLINE:
        escaped = pattern.sub(replacement, escaped)
    return escaped


def _block_html(block: str) -> str:
    lines = [line.strip() for line in block.splitlines()]
    if not all(line.startswith(("- ", "* ")) for line in lines):
        return f"<p>{inline_html(' '.join(lines))}</p>"
    items = "".join(f"<li>{inline_html(line[2:])}</li>" for line in lines)
    return f"<ul>{items}</ul>"
