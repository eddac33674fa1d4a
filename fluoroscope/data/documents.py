"""A corpus as a stream of documents: files, folders of files, hub data sets, made texts."""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from fluoroscope.core.config import settings_hash
from fluoroscope.core.errors import CorpusError
from fluoroscope.core.storage import fingerprints
from fluoroscope.data.corpus_config import (
    GENERATED,
    HUB_PREFIX,
    MODEL_SOURCE,
    CorpusConfig,
    Split,
    parse_take,
)
from fluoroscope.data.text_splitting import decoded_lines, documents_in_file

_SUFFIXES = (".txt", ".jsonl", ".parquet")
_GENERATED_LOOKED_AT = 64


@dataclass(frozen=True, slots=True)
class Document:
    index: int
    """Place in the whole corpus, whatever of it is taken."""

    text: str


def read_documents(config: CorpusConfig) -> Iterator[Document]:
    """The documents that `config.take` names; empty ones are passed over and not counted."""
    rule, amount = parse_take(config.take)
    documents = _all_documents(config)
    match rule:
        case "all":
            return documents
        case "first":
            return islice(documents, int(amount))
        case "last":
            # Counted first, as holding the last N could take more memory than there is.
            n_documents = sum(1 for _ in documents)
            return islice(_all_documents(config), max(n_documents - int(amount), 0), None)
        case "hash":
            return (d for d in documents if text_share(d.text, "take") < amount)


def split_of(text: str, held_out: float) -> Split:
    """The side of a document; a function of its text alone, so copies stay together."""
    share = text_share(text, "split")
    if share < held_out / 2:
        return "test"
    return "validation" if share < held_out else "train"


def text_share(text: str, purpose: str) -> float:
    """A number in [0, 1) that a text has for a purpose, uniform over texts."""
    digest = hashlib.sha256(f"{purpose}\0{text}".encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def text_id(text: str) -> str:
    """What a document is known by in tables: 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]


def corpus_files(source: str) -> list[Path]:
    """The file that `source` names, or the text files below the folder, sorted by path.

    A relative path that is not there is looked for under $FLUOROSCOPE_DATA.
    """
    path = _find(source)
    if path.is_file():
        if path.suffix not in _SUFFIXES:
            raise CorpusError(
                f"The corpus {path} is not one of {', '.join(_SUFFIXES)}; rename or convert it."
            )
        return [path]
    files = sorted(p for p in path.rglob("*") if p.is_file() and p.suffix in _SUFFIXES)
    if not files:
        raise CorpusError(f"The folder {path} holds no file ending in {', '.join(_SUFFIXES)}.")
    return files


def corpus_fingerprint(config: CorpusConfig) -> str | None:
    """What tells a corpus from another in its place; None where it is not files.

    Raises `CorpusError` where there is none, no document is in it, or its first document
    cannot be read. Nothing is fetched for it.
    """
    if config.source == MODEL_SOURCE or config.source.startswith(HUB_PREFIX):
        return None
    if config.source in GENERATED:
        # Another version of the package may make other texts under the same name.
        return settings_hash([d.text for d in islice(_all_documents(config), _GENERATED_LOOKED_AT)])
    files = corpus_files(config.source)
    if next(_all_documents(config), None) is None:
        raise CorpusError(
            f"The corpus {config.source} gives zero tokens: no document in it has any text. Give "
            "a corpus with text."
        )
    try:
        return settings_hash(fingerprints(files))
    except OSError as error:
        raise CorpusError(
            f"A file of the corpus {config.source} cannot be read: {error}."
        ) from None


def _find(source: str) -> Path:
    places = [Path(source).expanduser()]
    if root := os.environ.get("FLUOROSCOPE_DATA"):
        places.append(Path(root) / source)
    for place in places:
        if place.exists():
            return place
    looked = " nor ".join(str(place) for place in places)
    raise CorpusError(
        f"There is no corpus at {looked}. Give a .txt, .jsonl or .parquet file, a folder of them, "
        "hf:NAME for a data set on the hub, model: for text sampled from the model, or "
        f"{', '.join(GENERATED)} for texts made as they are read; "
        "relative paths are also looked for under $FLUOROSCOPE_DATA."
    )


def _all_documents(config: CorpusConfig) -> Iterator[Document]:
    if config.source in GENERATED:
        texts = GENERATED.load(config.source)()
    elif config.source.startswith(HUB_PREFIX):
        texts = _hub_texts(config)
    else:
        texts = _file_texts(config)
    filled = (text for text in texts if text and not text.isspace())
    return (Document(index, text) for index, text in enumerate(filled))


def _file_texts(config: CorpusConfig) -> Iterator[str]:
    for path in corpus_files(config.source):
        match path.suffix:
            case ".txt":
                yield from documents_in_file(path, config.split_documents_on)
            case ".jsonl":
                yield from _jsonl_texts(path, config.text_field)
            case _:
                yield from _parquet_texts(path, config.text_field)


def _jsonl_texts(path: Path, field: str) -> Iterator[str]:
    for number, line in enumerate(decoded_lines(path), start=1):
        if line.isspace():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise CorpusError(f"{path}, line {number} is not JSON: {error}.") from None
        if not isinstance(record, dict):
            raise CorpusError(f"{path}, line {number} is not a JSON object with {field!r} in it.")
        yield _text_in(record, field, f"{path}, line {number}")


def _text_in(record: dict[str, object], field: str, where: str) -> str:
    if field not in record:
        raise _no_field(field, where, sorted(record))
    value = record[field]
    if value is None:
        return ""
    if not isinstance(value, str):
        raise CorpusError(f"{where}: {field!r} must hold text, got {type(value).__name__}.")
    return value


def _no_field(field: str, where: str, names: list[str]) -> CorpusError:
    return CorpusError(
        f"{where} has no field {field!r}, only {', '.join(names)}. Set text_field to one of them."
    )


def _parquet_texts(path: Path, field: str) -> Iterator[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise CorpusError(f"{path} is not a parquet file: {error}.") from None
    with file:
        names = file.schema_arrow.names
        if field not in names:
            raise _no_field(field, str(path), sorted(names))
        for batch in file.iter_batches(batch_size=1024, columns=[field]):
            for value in batch.column(0).to_pylist():
                yield _text_in({field: value}, field, str(path))


def _hub_texts(config: CorpusConfig) -> Iterator[str]:
    from datasets import load_dataset
    from datasets.exceptions import DatasetNotFoundError

    name = config.source.removeprefix(HUB_PREFIX)
    try:
        rows = load_dataset(name, config.hub_subset, split=config.hub_split, streaming=True)
    except (DatasetNotFoundError, FileNotFoundError, ConnectionError, ValueError) as error:
        raise CorpusError(
            f"The data set {name!r} (subset {config.hub_subset}, split {config.hub_split!r}) could "
            f"not be opened: {error} Check its name, that you may read it (`hf auth login`), and "
            "the network."
        ) from error
    for number, row in enumerate(rows):
        yield _text_in(dict(row), config.text_field, f"{name}, row {number}")
