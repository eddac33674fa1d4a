import json
from pathlib import Path

import polars as pl
import pytest

from fluoroscope.core.errors import CorpusError
from fluoroscope.data.corpus_config import CorpusConfig
from fluoroscope.data.documents import corpus_files, read_documents, split_of


def texts(**settings: object) -> list[str]:
    return [document.text for document in read_documents(CorpusConfig(**settings))]


@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".parquet"])
def test_every_format_gives_the_same_documents(tmp_path: Path, story_texts: list[str], suffix: str):
    path = tmp_path / f"corpus{suffix}"
    frame = pl.DataFrame({"number": range(200), "body": story_texts})
    match suffix:
        case ".txt":
            path.write_text("\n".join(story_texts))
        case ".jsonl":
            frame.write_ndjson(path)
        case _:
            frame.write_parquet(path)
    assert texts(source=str(path), text_field="body") == story_texts


def test_a_data_set_of_the_hub_is_read_by_its_name(tmp_path: Path, story_texts: list[str]):
    # A folder is the one data set that `datasets` opens without the network.
    pl.DataFrame({"text": story_texts}).write_parquet(tmp_path / "train-0.parquet")
    assert texts(source=f"hf:{tmp_path}") == story_texts


def test_a_folder_is_read_in_the_order_of_its_paths(tmp_path: Path):
    for name in ("b/one.txt", "a.jsonl", "c.txt", "notes.md"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"text": name}) if path.suffix == ".jsonl" else name)
    assert texts(source=str(tmp_path)) == ["a.jsonl", "b/one.txt", "c.txt"]


def test_first_and_last_are_parts_of_the_whole_with_its_numbers(story_file: Path):
    everything = list(read_documents(CorpusConfig(source=str(story_file))))
    first = read_documents(CorpusConfig(source=str(story_file), take="first:30"))
    last = read_documents(CorpusConfig(source=str(story_file), take="last:30"))
    assert list(first) == everything[:30]
    assert list(last) == everything[-30:]
    assert [document.index for document in everything] == list(range(200))


def test_a_hash_takes_about_its_share_and_smaller_shares_are_parts_of_larger(story_file: Path):
    quarter = texts(source=str(story_file), take="hash:0.25")
    half = texts(source=str(story_file), take="hash:0.5")
    assert 25 < len(quarter) < 75
    assert 75 < len(half) < 125
    assert set(quarter) < set(half)


def test_equal_texts_fall_on_the_same_side(story_texts: list[str]):
    sides = {text: split_of(text, 0.2) for text in story_texts}
    assert all(split_of(str(text), 0.2) == side for text, side in sides.items())
    counts = [list(sides.values()).count(side) for side in ("train", "validation", "test")]
    assert 140 < counts[0] < 180
    assert min(counts) > 8


def test_more_held_out_never_moves_a_document_back_into_training(story_texts: list[str]):
    for text in story_texts:
        if split_of(text, 0.1) != "train":
            assert split_of(text, 0.3) != "train"


def test_which_documents_are_taken_does_not_depend_on_their_split(story_file: Path):
    taken = texts(source=str(story_file), take="hash:0.5")
    share = sum(split_of(text, 0.5) == "train" for text in taken) / len(taken)
    assert 0.3 < share < 0.7


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"text": "x"}\n{"body": "y"}\n', "line 2 has no field 'text', only body"),
        ("a.jsonl", '{"text": "x"}\nnonsense\n', "line 2 is not JSON"),
        ("a.jsonl", "[1]\n", "line 1 is not a JSON object"),
        ("a.jsonl", '{"text": 3}\n', "must hold text, got int"),
        ("a.jsonl", b'{"text": "\xff"}\n', "not UTF-8 text: byte 0xff at offset 10"),
        ("a.parquet", "nonsense", "not a parquet file"),
        ("a.csv", "text\nx\n", "not one of .txt"),
    ],
)
def test_a_file_that_is_not_as_it_should_be_is_named(
    tmp_path: Path, name: str, content: str | bytes, message: str
):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(CorpusError, match=message):
        texts(source=str(path))


def test_a_missing_column_is_named_with_those_that_there_are(tmp_path: Path):
    pl.DataFrame({"body": ["x"], "id": [1]}).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(CorpusError, match="no field 'text', only body, id"):
        texts(source=str(tmp_path))


def test_a_missing_corpus_says_where_it_was_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FLUOROSCOPE_DATA", str(tmp_path / "data"))
    with pytest.raises(CorpusError, match=r"at none\.txt nor .*data/none\.txt"):
        corpus_files("none.txt")


def test_a_relative_path_is_found_under_the_data_folder(
    story_file: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FLUOROSCOPE_DATA", str(story_file.parent))
    assert corpus_files(story_file.name) == [story_file]


def test_a_folder_without_text_is_refused(tmp_path: Path):
    with pytest.raises(CorpusError, match="holds no file"):
        corpus_files(str(tmp_path))
