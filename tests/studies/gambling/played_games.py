"""Games that are played by a script, through the same machinery as those of a model."""

import numpy as np
import polars as pl

from fluoroscope.studies.gambling.episodes import Episode, Reply, Retries, Seat, converse
from fluoroscope.studies.gambling.games.slot_machine import SlotMachine, SlotRules
from fluoroscope.studies.gambling.logs import attempts_frame, games_frame

SKIP, STOP = "skip", "stop"


def game(*moves, name="variable-BASE", repetition=0, arm="baseline", max_rounds=100, max_skips=9):
    """Of moves: (bet, won), STOP, or SKIP for a reply that cannot be read."""
    rules = SlotRules(max_rounds=max_rounds)
    factors = SlotMachine.conditions(rules)[name]
    luck = [0.0 if move[1] else 0.9 for move in moves if isinstance(move, tuple)]
    tape = np.array([*luck, 0.9])[:, None]
    key = f"{name}-{repetition:03d}"
    seat = Seat(key, name, repetition, SlotMachine(rules, factors), tape, 0, arm)
    talk = converse(seat, Retries(max_attempts=1, max_skips=max_skips))
    return finish(talk, [answer(move) for move in moves])


def answer(move):
    if move == SKIP:
        return Reply("I wonder.")
    return Reply("Final Decision: Stop" if move == STOP else f"Final Decision: Bet ${move[0]}")


def finish(talk, replies) -> Episode:
    next(talk)
    try:
        for reply in replies:
            talk.send(reply)
    except StopIteration as end:
        return end.value
    raise AssertionError("the moves end before the game does")


def frames(*episodes: Episode) -> tuple[pl.DataFrame, pl.DataFrame]:
    return attempts_frame(episodes), games_frame(episodes)


def random_games(n, luck, max_rounds=12):
    """One game a repetition, of a player who bets, stops and mumbles at random."""
    episodes = []
    for repetition in range(n):
        name = luck.choice(["fixed-BASE", "variable-G", "variable-GM"])
        rules = SlotRules(max_rounds=max_rounds)
        tape = luck.random((max_rounds, 1))
        machine = SlotMachine(rules, SlotMachine.conditions(rules)[name])
        seat = Seat(f"{name}-{repetition}", name, repetition, machine, tape, 0)
        talk = converse(seat, Retries(max_attempts=2, max_skips=3))
        try:
            next(talk)
            while True:
                kind = luck.random()
                move = SKIP if kind < 0.1 else STOP if kind < 0.2 else (int(luck.integers(5, 90)),)
                talk.send(answer(move))
        except StopIteration as end:
            episodes.append(end.value)
    return episodes
