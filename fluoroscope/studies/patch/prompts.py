"""Prompts of a sweep: a list, a file, or those of the organism's world."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, get_args

import polars as pl

from fluoroscope.core.errors import ConfigError
from fluoroscope.organism.prompts import VARIABLES, Variable
from fluoroscope.organism.shipping import load_truth
from fluoroscope.studies.patch.files import reading

_OF_ORGANISM = 20


class GivenPrompt(NamedTuple):
    id: str
    text: str


def read_prompts(given: str | Sequence[str], n: int | None) -> list[GivenPrompt]:
    """The first `n` prompts (all, if not said) with their ids, which are unique."""
    if not isinstance(given, str):
        found = _numbered(list(given))
    elif given.startswith("organism:"):
        return _of_organism(given.removeprefix("organism:"), n or _OF_ORGANISM)
    else:
        found = _of_file(Path(given))
    if not found:
        raise ConfigError(f"There is no prompt in {given!r}.")
    if n is not None and n > len(found):
        raise ConfigError(f"prompts.n={n}, and there are {len(found)} prompts in {given!r}.")
    ids = [prompt.id for prompt in found]
    twice = next((name for name in ids if ids.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"Two prompts have the id {twice!r}; ids must differ.")
    return found[:n]


def _of_file(path: Path) -> list[GivenPrompt]:
    if not path.is_file():
        raise ConfigError(
            f'There is no file {path}. Give prompts as a list of texts, prompts=["..."], or a '
            ".txt (a prompt a line), .jsonl, .csv or .parquet file."
        )
    with reading(path):
        match path.suffix:
            case ".txt":
                return _numbered([line for line in _lines(path) if line])
            case ".jsonl":
                frame = _of_jsonl(path)
            case ".csv":
                frame = pl.read_csv(path, infer_schema=False)
            case ".parquet":
                frame = pl.read_parquet(path)
            case _:
                raise ConfigError(f"{path} must end in .txt, .jsonl, .csv or .parquet.")
    if "text" not in frame.columns:
        raise ConfigError(f"{path} needs a column `text`; it has {', '.join(frame.columns)}.")
    texts = [str(text) if text is not None else "" for text in frame["text"]]
    if "id" not in frame.columns:
        return _numbered(texts)
    if frame["id"].null_count():
        raise ConfigError(
            f"A prompt in {path} has no id; give one to each, or leave the column out."
        )
    return [GivenPrompt(str(name), text) for name, text in zip(frame["id"], texts, strict=True)]


def _lines(path: Path) -> list[str]:
    # Not `splitlines`: a text may hold line separators of Unicode.
    return path.read_text(encoding="utf-8").split("\n")


def _of_jsonl(path: Path) -> pl.DataFrame:
    rows = []
    for number, line in enumerate(_lines(path), start=1):
        try:
            row = json.loads(line) if line.strip() else None
        except ValueError as error:
            raise ConfigError(f"Line {number} of {path} is not JSON: {error}.") from error
        if row is not None and not isinstance(row, dict):
            raise ConfigError(f'Line {number} of {path} must be an object like {{"text": "..."}}.')
        if row is not None:
            rows.append(row)
    return pl.DataFrame(rows, infer_schema_length=None)


def _of_organism(variable: str, n: int) -> list[GivenPrompt]:
    if variable not in VARIABLES:
        raise ConfigError(f"The organism's prompts are {', '.join(get_args(Variable))}.")
    world = load_truth("organism").world
    prompts = [world.prompt(variable, "sweep", index) for index in range(n)]
    return [GivenPrompt(f"{variable}-{i}", prompt.text) for i, prompt in enumerate(prompts)]


def _numbered(texts: Sequence[str]) -> list[GivenPrompt]:
    return [GivenPrompt(str(number), text) for number, text in enumerate(texts)]
