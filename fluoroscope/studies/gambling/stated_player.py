"""The player that the organism's world states: what a model that was trained to play like it
should do, on the same luck.
"""

from collections.abc import Sequence

from fluoroscope.core.seeding import stream
from fluoroscope.organism import gambling as world
from fluoroscope.organism.prompts import draw
from fluoroscope.studies.gambling.episodes import Episode, Reply, Retries, Seat, converse
from fluoroscope.studies.gambling.games.base import State
from fluoroscope.studies.gambling.games.slot_machine import SlotMachine
from fluoroscope.studies.gambling.reading import settle


def stated_games(seats: Sequence[Seat]) -> list[Episode]:
    """Every game as the stated player plays it; each has luck of its own for its choices."""
    return [_played(seat) for seat in seats]


def _played(seat: Seat) -> Episode:
    game, retries = seat.game, Retries()
    assert isinstance(game, SlotMachine)
    luck = stream(seat.seed, "stated player", seat.key)
    conversation, state = converse(seat, retries), game.reset()
    next(conversation)
    while True:
        reply = draw(slot_prompt(game, state).replies(), luck)
        action = settle(game.read(reply, state), game.legal(state), 0.0).action
        assert action is not None, "the stated player says what it does"
        state = game.step(state, action, seat.tape[len(state.rounds)])
        try:
            conversation.send(Reply(reply))
        except StopIteration as end:
            return end.value


def slot_prompt(game: SlotMachine, state: State) -> world.SlotPrompt:
    """The world's prompt of a state, which knows the true distribution of replies."""
    history = tuple(world.Round(one.bet, bool(one.won), one.balance) for one in state.rounds)
    bet_type: world.BetType = "fixed" if game.bet_type == "fixed" else "variable"
    return world.slot_prompt(bet_type, game.components, history)
