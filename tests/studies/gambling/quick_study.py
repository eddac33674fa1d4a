"""The whole gambling study at a size for tests: few conditions, with games of both endings, and
the two prompts of the original's rule.
"""

from collections.abc import Callable, Sequence

from fluoroscope.core.config import build
from fluoroscope.studies.gambling.episodes import Ask, Conversation, Episode, Reply
from fluoroscope.studies.gambling.players.base import Player
from fluoroscope.studies.gambling.spec import GamblingSpec

QUICK = {
    "model": "organism",
    "saes": {"source": "organism:batch_topk", "hook_points": "2-3.resid_post"},
    "game": {
        "name": "slot_machine",
        "rules": {"wording": "organism", "max_balance": 9999, "max_rounds": 8},
        "conditions": ["fixed-GRWP", "variable-GMR", "variable-GMRW", "variable-GRWP"],
    },
    "play": {
        "repetitions": 20,
        "repetitions_per_shard": 10,
        "max_tokens": 12,
        "sampling": {"temperature": 1.0},
    },
    "contrast": {"top": 6, "permutations": 4},
    "patch": {
        "states": 10,
        "held_out_states": 10,
        "states_per_shard": 6,
        "shortlist": 3,
        "controls": 5,
        "alpha": 0.2,
        "truth_pairs": 4,
        "confirm": {"latents": 1, "random": 1, "prompts": 2, "trials": 4},
    },
    "games": {"latents": 1, "repetitions": 2, "conditions": 1},
    "pathway": {
        "games": 12, "latents_per_layer": 2, "states": 10, "controls": 2, "shuffles": 2,
    },
    "words": {"latents": 2, "min_texts": 3},
}  # fmt: skip


def quick_spec(**changes: object) -> GamblingSpec:
    """`QUICK` with changes, which go as deep as they are given: play={"rows": 8}."""
    return build(GamblingSpec, _changed(QUICK, changes))


def _changed(given: dict, changes: dict) -> dict:
    deep = {
        name: _changed(given[name], value)
        for name, value in changes.items()
        if isinstance(value, dict) and isinstance(given.get(name), dict)
    }
    return {**given, **changes, **deep}


class Actor(Player):
    """Answers for a model, by a function; what is read inside the model is its own."""

    def __init__(self, answer: Callable[[Ask], str]) -> None:
        self.answer = answer

    def play(self, conversations: Sequence[Conversation], on_finish=None) -> list[Episode]:
        return [self._one(conversation) for conversation in conversations]

    def _one(self, conversation: Conversation) -> Episode:
        ask = next(conversation)
        while True:
            try:
                ask = conversation.send(Reply(self.answer(ask)))
            except StopIteration as end:
                return end.value
