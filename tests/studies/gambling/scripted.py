"""Players that need no model, for the tests of the gambling study."""

from collections.abc import Callable, Iterator, Sequence

from fluoroscope.studies.gambling.episodes import Ask, Conversation, Episode, Reply
from fluoroscope.studies.gambling.games import GAMES
from fluoroscope.studies.gambling.games.base import Game, Rules, State, luck_tape
from fluoroscope.studies.gambling.players.base import Player
from fluoroscope.studies.gambling.reading import Action

Answer = Callable[[Ask], Reply]


class Scripted(Player):
    """Answers every question by a function, one game after the other."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asks: list[Ask] = []

    def play(self, conversations: Sequence[Conversation], on_finish=None) -> list[Episode]:
        return [self._one(conversation) for conversation in conversations]

    def _one(self, conversation: Conversation) -> Episode:
        ask = next(conversation)
        while True:
            self.asks.append(ask)
            try:
                ask = conversation.send(self.answer(ask))
            except StopIteration as end:
                return end.value


def every_game(**changes) -> Iterator[tuple[str, str, Game]]:
    """Every condition of every game, with `changes` to the rules."""
    for name in GAMES:
        kind = GAMES.load(name)
        rules = kind.rules_type(**changes)
        for condition, factors in kind.conditions(rules).items():
            yield name, condition, kind(rules, factors)


def one_game(name: str, condition: str | None = None, **changes) -> Game:
    """One condition of a game; the last one if none is named, which has every part."""
    kind = GAMES.load(name)
    rules: Rules = kind.rules_type(**changes)
    conditions = kind.conditions(rules)
    return kind(rules, conditions[condition or list(conditions)[-1]])


def legal_action(game: Game, state: State, random, *, may_stop: bool = True) -> Action:
    """Any legal action, at random."""
    offer = game.legal(state)
    kinds = [kind for kind in offer.kinds if may_stop or kind != "stop"]
    kind = kinds[random.integers(len(kinds))]
    if kind in offer.free:
        return Action(kind)
    return Action(kind, int(random.integers(offer.low, offer.high + 1)))


def play_at_random(game: Game, random, repetition: int = 0, max_skips: int = 3):
    """The actions of a game (None for a skip), the goals that were said, and every state."""
    tape = luck_tape(type(game), 0, repetition, game.rules.max_rounds)
    states, actions, goals = [game.reset()], [], []
    while (state := states[-1]).outcome is None:
        if random.random() < 0.1:
            actions.append(None)
            goals.append(None)
            states.append(game.skip(state, max_skips))
            continue
        action = legal_action(game, state, random, may_stop=random.random() < 0.3)
        goal = int(random.integers(50, 300)) if random.random() < 0.5 else None
        after = game.step(state, action, tape[len(state.rounds)])
        reading = game.read("" if goal is None else f"Target: ${goal}", state)
        actions.append(action)
        goals.append(goal)
        states.append(game.noted(after, reading))
    return actions, goals, states


def say(action: Action) -> str:
    """A reply in the form that was asked for."""
    if action.kind.startswith("option"):
        return f"Why not.\nFinal Decision: ${action.amount}, {action.kind.capitalize()}"
    amount = f" ${action.amount}" if action.amount else ""
    return f"Why not.\nFinal Decision: {action.kind.capitalize()}{amount}"
