"""StereoSet (Nadeem et al. 2021, arXiv:2004.09456): is the stereotype the likelier sentence?

Of each context there are three: a stereotype, its opposite, and one that means nothing. In
`INTRASENTENCE` they fill a blank, and whole sentences are compared (no prompt); in
`INTERSENTENCE` they follow the context, which is the prompt; `BOTH` has either. Log-probabilities
are divided by the number of tokens, as in the authors' code. `pairs.py` has the set's three
scores.

Files: `dev.json` as upstream, or lists of items (`{"context", "target", "bias_type", "data"}`), of
which whatever is of the kind asked for is read; on the hub `McGill-NLP/stereoset`. A context is a
group. What upstream gives out is one split: drawn.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, get_args

from fluoroscope.data.answers.record import group_of
from fluoroscope.data.rows import Hub, LeftOut, Row
from fluoroscope.data.tasks.base import ScoredTask
from fluoroscope.data.tasks.prompts import sample_id
from fluoroscope.data.tasks.samples import Sample, equal_options
from fluoroscope.data.tasks.scorers import PairScorer

_Kind = Literal["intersentence", "intrasentence"]
_KINDS: tuple[_Kind, ...] = get_args(_Kind)
_BLANK = "BLANK"
_ROLES = ("stereotype", "anti-stereotype", "unrelated")
_HUB_LABELS = ("anti-stereotype", "stereotype", "unrelated")
_COLUMNS = {
    "target": ("target",),
    "bias": ("bias_type",),
    "context": ("context",),
    "sentences": ("sentences",),
    "by_role": ("data",),
}

_Sentences = dict[str, str]


def _samples(name: str, kinds: tuple[_Kind, ...]) -> Callable[[Row], Iterator[Sample | LeftOut]]:
    def samples(row: Row) -> Iterator[Sample | LeftOut]:
        for item in _items(row):
            context = item.text("context")
            kind = "intrasentence" if _BLANK in context else "intersentence"
            if kind in kinds:
                yield _sample(name, item, context, kind)

    return samples


def _items(row: Row) -> Iterator[Row]:
    """The row itself, or those of a whole release in one object."""
    whole = row.value("by_role") if row.has("by_role") else None
    if not isinstance(whole, Mapping) or not set(_KINDS) & set(whole):
        yield row
        return
    for kind in _KINDS:
        for number, values in enumerate(whole.get(kind, []), start=1):
            yield Row(f"{row.where}, {kind} {number}", row.stem, values, row.columns)


def _sample(name: str, row: Row, context: str, kind: _Kind) -> Sample | LeftOut:
    sentences = _by_role(row)
    if missing := [role for role in _ROLES if not sentences.get(role, "").strip()]:
        return LeftOut(row.where, f"it has no sentence for {' and '.join(missing)}")
    options = tuple(sentences[role].strip() for role in _ROLES)
    if equal_options(options):
        return LeftOut(row.where, "two of its sentences are the same")
    is_blank = kind == "intrasentence"
    return Sample(
        id=sample_id(name, context, *options),
        group_id=group_of(context),
        prompt="" if is_blank else context,
        options=options if is_blank else tuple(f" {option}" for option in options),
        roles=_ROLES,
        category=row.text("bias"),
        facts={"target": row.text("target")},
    )


def _by_role(row: Row) -> _Sentences:
    """Role -> sentence, in whichever of three forms it is."""
    found = row.value("by_role") if row.has("by_role") else None
    if isinstance(found, Mapping):
        return {role: str(found[role]["sentence"]) for role in _ROLES if role in found}
    found = row.value("sentences")
    if isinstance(found, Mapping):
        return {
            _HUB_LABELS[label] if isinstance(label, int) else label: sentence
            for sentence, label in zip(found["sentence"], found["gold_label"], strict=True)
        }
    if isinstance(found, list):
        return {_text(one, "gold_label"): _text(one, "sentence") for one in found}
    raise row.wrong("sentences", "a list of three sentences with their labels", found)


def _text(one: Mapping[str, Any], name: str) -> str:  # Any: what JSON can hold.
    return str(one.get(name, ""))


def _stereoset(name: str, *kinds: _Kind) -> ScoredTask:
    return ScoredTask(
        name=name,
        kind="pairs",
        group="context",
        prompt="{context}" if "intersentence" in kinds else "",
        max_tokens=1,
        stop=(),
        scores_by=PairScorer(by_token=True),
        hubs=tuple(Hub("McGill-NLP/stereoset", kind, "validation") for kind in kinds),
        files=("*.json",),
        columns=_COLUMNS,
        samples=_samples(name, kinds),
    )


BOTH = _stereoset("stereoset", *_KINDS)
INTERSENTENCE = _stereoset("stereoset-intersentence", "intersentence")
INTRASENTENCE = _stereoset("stereoset-intrasentence", "intrasentence")
