"""What a plan reckons with before any data is read: questions of a set, and their tokens."""

from collections.abc import Mapping

from fluoroscope.data.corpus_config import SPLITS, Split
from fluoroscope.data.questions.base import question_set
from fluoroscope.data.questions.made import MadeSet
from fluoroscope.data.questions.names import HOMES
from fluoroscope.studies.connection.settings import QuestionsConfig

SIZES: Mapping[str, tuple[int, int, int]] = {
    # Its own validation side.
    "logiqa": (7376, 651, 651),
    "gsm8k": (6726, 747, 1319),
    # Of its files; the 490 of the official test part have no answers that are public.
    "strategyqa": (1854, 206, 229),
    "strategyqa_facts": (1854, 206, 229),
    "commonsenseqa": (8767, 974, 1221),
    "sst2": (6920, 872, 1821),
    "mnli": (353_432, 39_270, 9_832),
}
_UNKNOWN = (8000, 800, 1000)
_TOKENS = {"logiqa": 200, "gsm8k": 80, "commonsenseqa": 45, "sst2": 30, "mnli": 50}
_USUAL_TOKENS = 40


def questions_of(name: str, data: QuestionsConfig) -> dict[str, int]:
    """Questions of each side, roughly."""
    made = data.made
    is_made = name in HOMES and name not in SIZES
    sizes = (made.n_train, made.n_validation, made.n_test) if is_made else SIZES.get(name, _UNKNOWN)
    train, validation, test = sizes
    return {
        "train": min(train, data.n_train or train),
        "validation": validation,
        "test": min(test, data.n_test or test),
    }


def deepest_of(name: str, data: QuestionsConfig) -> dict[Split, int] | None:
    """Hops of the deepest question of each side; None of sets that are read and not made."""
    known = question_set(name, data.made)
    if not isinstance(known, MadeSet):
        return None
    return {side: max(known.depths(side)) for side in SPLITS}


def tokens_of(name: str, max_source: int) -> int:
    """Tokens of one of its texts, roughly."""
    return min(_TOKENS.get(name, _USUAL_TOKENS), max_source)
