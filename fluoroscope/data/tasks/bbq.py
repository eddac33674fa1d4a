"""BBQ (Parrish et al. 2022, arXiv:2110.08193): who is blamed where the text does not say.

A context of two people, and a question with three options, one of which is "cannot be known"
(in the words of ten variants). `AMBIGUOUS`: the context does not tell, so that option is right;
`DISAMBIGUATED`: it does. Prompt: the context, the question, the lettered options, "Choose one of
A, B, C only.", "Answer:"; one token, read unconstrained. Of each sample `roles` says which option
is of the stereotyped group, as far as the row tells ("target", "other", "unknown"), and
`facts["polarity"]` whether the question is a negative one: the stereotyped answer is the target of
a negative question and the other person of a "nonneg" one.

Files: one `.jsonl` a category, as upstream; on the hub a copy with one split a category.
Questions come in families (`question_index`) of one template, so a family of a category is a
group. There is no split upstream: drawn.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from fluoroscope.data.rows import Hub, Row, UnusableRowError
from fluoroscope.data.tasks.base import ScoredTask
from fluoroscope.data.tasks.prompts import CHOICE_PROMPT, choice_sample
from fluoroscope.data.tasks.samples import Sample
from fluoroscope.data.tasks.scorers import ChoiceScorer

_CATEGORIES = (
    "age",
    "disability_status",
    "gender_identity",
    "nationality",
    "physical_appearance",
    "race_ethnicity",
    "race_x_gender",
    "race_x_ses",
    "religion",
    "ses",
    "sexual_orientation",
)
_ANSWERS = ("ans0", "ans1", "ans2")
_COLUMNS = {
    "family": ("question_index",),
    "polarity": ("question_polarity",),
    "condition": ("context_condition",),
    "category": ("category",),
    "info": ("answer_info",),
    "metadata": ("additional_metadata",),
    "context": ("context",),
    "question": ("question",),
    "label": ("label", "answer_label"),
} | {name: (name,) for name in _ANSWERS}


def _samples(name: str, condition: str) -> Callable[[Row], Iterator[Sample]]:
    def samples(row: Row) -> Iterator[Sample]:
        if row.text("condition") != condition:
            return
        label = row.value("label")
        if label is None:
            raise UnusableRowError("it has no answer key")
        if not isinstance(label, int):
            raise row.wrong("label", "a number of an answer, from 0", label)
        category = row.text("category")
        sample = choice_sample(
            name,
            f"{category}-{row.value('family')}",
            f"{row.text('context')}\n{row.text('question')}",
            [row.text(answer) for answer in _ANSWERS],
            label,
            category=category,
            roles=_roles(row),
        )
        yield replace(sample, facts={"polarity": row.text("polarity")})

    return samples


def _roles(row: Row) -> tuple[str, ...]:
    """Of the answers, where one of the two people is of a stereotyped group and the other not."""
    info, metadata = row.value("info"), row.value("metadata")
    if not isinstance(info, Mapping) or not isinstance(metadata, Mapping):
        return ()
    stereotyped = {_plain(group) for group in metadata.get("stereotyped_groups") or ()}
    roles = []
    for answer in _ANSWERS:
        said = [_plain(one) for one in info.get(answer) or ()]
        is_target = bool(stereotyped & set(said))
        roles.append("unknown" if "unknown" in said else "target" if is_target else "other")
    return tuple(roles) if sorted(roles) == ["other", "target", "unknown"] else ()


def _plain(group: object) -> str:
    return str(group).casefold().strip()


def _bbq(name: str, condition: str) -> ScoredTask:
    return ScoredTask(
        name=name,
        kind="choice",
        group="category and family of questions",
        prompt=CHOICE_PROMPT,
        max_tokens=1,
        stop=("\n",),
        scores_by=ChoiceScorer(),
        hubs=tuple(Hub("Elfsong/BBQ", None, category) for category in _CATEGORIES),
        files=("*.jsonl",),
        columns=_COLUMNS,
        samples=_samples(name, condition),
    )


AMBIGUOUS = _bbq("bbq-ambiguous", "ambig")
DISAMBIGUATED = _bbq("bbq-disambiguated", "disambig")
