"""The names of question sets, and how else they are written. Free of torch and of data."""

from collections.abc import Mapping

from fluoroscope.core.errors import ConfigError
from fluoroscope.core.registry import nearest

FILE_PREFIX = "file:"
"""Begins the name of a set that is a table of the user's own."""

_HERE = "fluoroscope.data.questions"
HOMES: Mapping[str, str] = {
    "babi": f"{_HERE}.babi_like:MIXED",
    "babi1": f"{_HERE}.babi_like:ONE_FACT",
    "babi2": f"{_HERE}.babi_like:TWO_FACTS",
    "babi3": f"{_HERE}.babi_like:THREE_FACTS",
    "commonsenseqa": f"{_HERE}.commonsenseqa:COMMONSENSEQA",
    "deduction": f"{_HERE}.deduction:DEDUCTION",
    "graph_distance": f"{_HERE}.small_graph:DISTANCE",
    "graph_reach": f"{_HERE}.small_graph:REACH",
    "gsm8k": f"{_HERE}.gsm8k:GSM8K",
    "logiqa": f"{_HERE}.logiqa:LOGIQA",
    "mnli": f"{_HERE}.classified:MNLI",
    "pointer_fixed": f"{_HERE}.pointer_chasing:FIXED",
    "pointer_text": f"{_HERE}.pointer_chasing:IN_TEXT",
    "sst2": f"{_HERE}.classified:SST2",
    "strategyqa": f"{_HERE}.strategyqa:CLOSED_BOOK",
    "strategyqa_facts": f"{_HERE}.strategyqa:WITH_FACTS",
}
_ALIASES = {"multinli": "mnli", "csqa": "commonsenseqa", "babi15": "deduction"}


def canonical_name(name: str) -> str:
    """`SST-2` -> `sst2`, `MultiNLI` -> `mnli`; `file:PATH` stays as it is."""
    if name.startswith(FILE_PREFIX) or name in HOMES:
        return name
    plain = {_plain(known): known for known in (*HOMES, *_ALIASES)}
    if _plain(name) not in plain:
        raise ConfigError(
            f"Question set {name!r} does not exist.{nearest(name.casefold(), HOMES)} There are: "
            f"{', '.join(HOMES)}, and {FILE_PREFIX}PATH for a table with columns source and target."
        )
    found = plain[_plain(name)]
    return _ALIASES.get(found, found)


def _plain(name: str) -> str:
    return "".join(sign for sign in name.casefold() if sign.isalnum())
