"""Where a plain text file is cut into documents; line by line, so that no file is held whole."""

import statistics
from collections.abc import Iterable, Iterator
from pathlib import Path

from fluoroscope.core.errors import CorpusError

END_OF_TEXT = "<|endoftext|>"

_HEAD_BYTES = 1 << 20
_PARAGRAPH_CHARACTERS = 100
_BLOCK_CHARACTERS = 1 << 20


def documents_in_file(path: Path, rule: str) -> Iterator[str]:
    """Documents of a plain text file, without surrounding white space; none is empty."""
    chosen = choose_rule(path) if rule == "auto" else rule
    lines = decoded_lines(path)
    match chosen:
        case "line":
            pieces: Iterable[str] = lines
        case "blank_line":
            pieces = _blocks(lines, single_newline_ends=False)
        case "single_newline":
            pieces = _blocks(lines, single_newline_ends=True)
        case "file":
            pieces = ["".join(lines)]
        case separator:
            pieces = _between(lines, separator)
    return (piece.strip() for piece in pieces if not piece.isspace() and piece)


def choose_rule(path: Path) -> str:
    """What `auto` means for this file; see `CorpusConfig.split_documents_on`."""
    with path.open("rb") as file:
        # The last line may be cut short, but not so short as to matter.
        head = file.read(_HEAD_BYTES).decode("utf-8", errors="replace")
    if END_OF_TEXT in head:
        return END_OF_TEXT
    lines = [line.strip() for line in head.strip().splitlines()]
    if "" not in lines:
        return "line"
    is_unwrapped = statistics.median(len(line) for line in lines if line) > _PARAGRAPH_CHARACTERS
    return "single_newline" if is_unwrapped else "blank_line"


def decoded_lines(path: Path) -> Iterator[str]:
    """Lines with newlines as one character; a byte that is not UTF-8 is named by its offset."""
    offset = 0
    with path.open("rb") as file:
        for line in file:
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise CorpusError(
                    f"{path} is not UTF-8 text: byte {line[error.start]:#04x} at offset "
                    f"{offset + error.start}. Convert it, for instance with "
                    "`iconv -f LATIN1 -t UTF-8`."
                ) from None
            if offset == 0:
                text = text.removeprefix("\ufeff")
            offset += len(line)
            yield text.replace("\r\n", "\n")


def _blocks(lines: Iterable[str], *, single_newline_ends: bool) -> Iterator[str]:
    block: list[str] = []
    for line in lines:
        is_blank = line.isspace()
        follows_text = bool(block) and not block[-1].isspace()
        ends = (follows_text and not is_blank) if single_newline_ends else is_blank
        if ends and block:
            yield "".join(block)
            block = []
        block.append(line)
    yield "".join(block)


def _between(lines: Iterable[str], separator: str) -> Iterator[str]:
    # Whole blocks are searched, as a separator may hold newlines.
    rest, block, size = "", [], 0
    for line in lines:
        block.append(line)
        size += len(line)
        if size >= _BLOCK_CHARACTERS:
            *documents, rest = (rest + "".join(block)).split(separator)
            yield from documents
            block, size = [], 0
    yield from (rest + "".join(block)).split(separator)
