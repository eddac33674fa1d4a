"""Sample: a prompt with what its replies are judged by. Score and Scorer: how they are judged."""

from abc import ABC
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

from fluoroscope.core.errors import ConfigError, CorpusError
from fluoroscope.data.corpus_config import Split


@dataclass(frozen=True)
class Sample:
    """A prompt, and what a reply to it is judged by."""

    id: str
    group_id: str
    """Samples of one group are never on two sides of a split."""

    prompt: str
    """Empty where whole sentences are compared."""

    options: tuple[str, ...] = ()
    """Of a choice, in the prompt's order; of a pair, what is compared, each as it follows the
    prompt."""

    right: tuple[int, ...] = ()
    """Which options are right."""

    references: tuple[str, ...] = ()
    """Right answers where there are no options."""

    roles: tuple[str, ...] = ()
    """What each option says, right or not ("stereotype", "unknown"...), where the set tells."""

    category: str = ""
    split: Split = "test"
    facts: Mapping[str, str] = field(default_factory=dict)
    """What else is known of it, for tables."""

    def __post_init__(self) -> None:
        if not (self.id.strip() and self.group_id.strip()):
            raise CorpusError(
                f"A sample needs an id and a group_id, got {self.id!r} and {self.group_id!r}."
            )
        if not (self.prompt.strip() or self.options):
            raise CorpusError(f"The sample {self.id!r} has neither a prompt nor options.")
        if twice := equal_options(self.options):
            raise CorpusError(
                f"The sample {self.id!r} has the option {twice!r} twice; nobody could tell which "
                "is meant. Mend or leave it out."
            )
        if not all(0 <= place < len(self.options) for place in self.right):
            raise CorpusError(
                f"The sample {self.id!r} has {len(self.options)} options, and {self.right} are "
                "said to be right; places count from 0."
            )
        if self.roles and len(self.roles) != len(self.options):
            raise CorpusError(
                f"The sample {self.id!r} has {len(self.options)} options and {len(self.roles)} "
                "roles; one each."
            )


class Score(NamedTuple):
    value: float
    """In [0, 1]; 1 is what is wanted."""

    is_readable: bool
    """Whether the reply has the asked form at all; what has not is scored as not wanted."""

    reason: str
    """A sentence for people who look at the scores."""


class Scorer(ABC):
    """Judges a reply by its text, or by probabilities that a model gives; `ways` are the ones
    that it knows.
    """

    ways: ClassVar[tuple[str, ...]]

    def score_text(self, sample: Sample, text: str) -> Score:
        """Of what the model generated after the prompt."""
        raise self._unknown("a text")

    def score_options(self, sample: Sample, probabilities: list[float]) -> Score:
        """Of the probability of each option: `replies` says of which texts, by first token."""
        raise self._unknown("the options' probabilities")

    def score_sums(self, sample: Sample, sums: list[float], n_tokens: list[int]) -> Score:
        """Of the summed log-probability (nats) of each option after the prompt, and its length."""
        raise self._unknown("sums of log-probabilities")

    def score_texts(self, samples: list[Sample], texts: list[str]) -> list[Score]:
        return [self.score_text(*both) for both in zip(samples, texts, strict=True)]

    def replies(self, sample: Sample) -> tuple[str, ...]:
        """What would follow the prompt for each option."""
        return sample.options

    def _unknown(self, given: str) -> ConfigError:
        known = " or ".join(self.ways)
        return ConfigError(f"A {type(self).__name__} scores {known}, and was given {given}.")


def in_split(samples: Iterable[Sample], split: Split) -> list[Sample]:
    return [sample for sample in samples if sample.split == split]


def equal_options(options: Iterable[str]) -> str:
    """An option that is there twice but for case and spaces; empty if there is none."""
    plain = Counter(" ".join(option.casefold().split()) for option in options)
    return next((option for option, n in plain.items() if n > 1), "")
