"""The whole gambling study at a size for tests: few conditions, with games of both endings, and
the two prompts of the original's rule.
"""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from fluoroscope.core.config import build
from fluoroscope.runs.engine import execute
from fluoroscope.runs.how import How
from fluoroscope.runs.step import MapStep
from fluoroscope.studies.gambling.episodes import Ask, Conversation, Episode, Reply
from fluoroscope.studies.gambling.players.base import Player
from fluoroscope.studies.gambling.spec import GamblingSpec
from fluoroscope.studies.gambling.study import GamblingStudy

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


def strike_each_step(strike: Callable[[str], None], struck: Path) -> None:
    """From now on every step of the study calls `strike` with its name once in all: when its
    second shard begins, or, where there is one, when that has been written but not sealed; and
    again when it has been merged. `struck` is a folder that remembers.
    """
    own_steps = GamblingStudy.steps

    def steps(study: GamblingStudy, config) -> Sequence[MapStep]:
        found = own_steps(study, config)
        for step in found:
            _arm(step, strike, struck)
        return found

    GamblingStudy.steps = steps  # type: ignore[method-assign]  # it is put back by who asked


def _arm(step: MapStep, strike: Callable[[str], None], struck: Path) -> None:
    shards, work, merge = step.shards, step.work, step.merge
    known = {"n_shards": 0, "begun": 0}

    def once(name: str) -> None:
        if not (struck / name).exists():
            (struck / name).touch()
            strike(name)

    def counted(run):
        found = shards(run)
        known["n_shards"] = len(found)
        return found

    def worked(run, shard, context):
        known["begun"] += 1
        if known["begun"] == 2:
            once(step.name)
        work(run, shard, context)
        if known["n_shards"] == 1:
            once(step.name)

    def merged(run, folder, sink):
        merge(run, folder, sink)
        once(f"{step.name}-merge")

    step.shards, step.work, step.merge = counted, worked, merged


def main() -> None:
    """`python -P quick_study.py ROOT STRUCK`: the quick study, killed with SIGKILL in every step,
    once each; started again and again, it comes to its end.
    """
    strike_each_step(lambda _: os.kill(os.getpid(), signal.SIGKILL), Path(sys.argv[2]))
    execute(GamblingStudy(), quick_spec(), "quick", How(devices="cpu"), root=Path(sys.argv[1]))


if __name__ == "__main__":
    main()
