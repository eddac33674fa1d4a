from pathlib import Path

import pytest

from fluoroscope.core.errors import CorpusError
from fluoroscope.data.text_splitting import choose_rule, decoded_lines, documents_in_file

STORY = "one day a cat sat on a mat and thought of a hat that it had lost in a boat on a moat. " * 2


def file_of(folder: Path, text: str) -> Path:
    path = folder / "text.txt"
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize(
    ("rule", "text", "documents"),
    [
        ("line", "a\nb\n\nc\n", ["a", "b", "c"]),
        ("blank_line", "a\nb\n\n\nc\n  \nd", ["a\nb", "c", "d"]),
        ("single_newline", "a\n\nb\nc\n\n\nd\ne\n", ["a\n\nb", "c\n\n\nd", "e"]),
        ("file", "\na\n\nb\n", ["a\n\nb"]),
        ("---", "a\n---\nb---c\n\nd---", ["a", "b", "c\n\nd"]),
        ("\n==\n", "a\n==\nb == c", ["a", "b == c"]),
        ("line", "", []),
        ("blank_line", " \n\n", []),
    ],
)
def test_a_rule_cuts_where_it_says(tmp_path: Path, rule: str, text: str, documents: list[str]):
    assert list(documents_in_file(file_of(tmp_path, text), rule)) == documents


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("a\n<|endoftext|>\nb\n\nc", "<|endoftext|>"),
        ("one story\nanother story\n", "line"),
        (f"{STORY}\n\n{STORY}\n{STORY}\n\n{STORY}\n", "single_newline"),
        ("First Citizen:\nSpeak.\n\nAll:\nSpeak, speak.\n", "blank_line"),
    ],
)
def test_auto_finds_how_a_file_is_laid_out(tmp_path: Path, text: str, rule: str):
    path = file_of(tmp_path, text)
    assert choose_rule(path) == rule
    assert list(documents_in_file(path, "auto")) == list(documents_in_file(path, rule))


def test_separators_are_found_across_blocks(tmp_path: Path):
    documents = [f"{i} " + "word " * 30_000 for i in range(20)]
    path = file_of(tmp_path, "\n@@\n".join(documents))
    assert list(documents_in_file(path, "@@")) == [text.strip() for text in documents]


def test_a_byte_that_is_not_utf8_is_named_by_its_offset(tmp_path: Path):
    path = tmp_path / "latin.txt"
    path.write_bytes(b"good\ncaf\xe9\nmore\n")
    with pytest.raises(CorpusError, match=r"latin\.txt is not UTF-8 text: byte 0xe9 at offset 8"):
        list(documents_in_file(path, "line"))


def test_marks_and_newlines_of_other_systems_are_not_text(tmp_path: Path):
    path = tmp_path / "windows.txt"
    path.write_bytes(b"\xef\xbb\xbfa\r\n\r\nb\r\n")
    assert list(decoded_lines(path)) == ["a\n", "\n", "b\n"]


def test_the_shared_stories_are_cut_into_stories(data_folder: Path):
    path = data_folder / "tinystories" / "tinystories_lower.txt"
    documents = list(documents_in_file(path, "auto"))
    assert choose_rule(path) == "single_newline"
    assert 3000 < len(documents) < 3200
    assert documents[1].startswith("once upon a time, there was a little car named beep.")
    assert documents[1].endswith("beep lived happily ever after.")
