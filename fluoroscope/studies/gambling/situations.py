"""Game states of a log as prompts that a screen can read: the state is replayed from the log."""

import polars as pl

from fluoroscope.studies.gambling.config import GamblingConfig
from fluoroscope.studies.gambling.decision_screen import Situation
from fluoroscope.studies.gambling.games import GAMES
from fluoroscope.studies.gambling.games.base import Game, Round, State, luck_tape, replay
from fluoroscope.studies.gambling.players.model_player import ModelPlayer
from fluoroscope.studies.gambling.reading import Action


def situations(
    config: GamblingConfig, attempts: pl.DataFrame, chosen: pl.DataFrame, player: ModelPlayer
) -> list[Situation]:
    """Of every decision in `chosen` (columns game, arm, decision), in that order."""
    games = config.table.games()
    wanted = attempts.join(chosen.select("game", "arm").unique(), on=["game", "arm"])
    rows = {
        (str(key[0]), str(key[1])): part
        for key, part in wanted.group_by("game", "arm", maintain_order=True)
    }
    found = []
    for row in chosen.iter_rows(named=True):
        log = rows[row["game"], row["arm"]]
        game = games[row["condition"]]
        state = state_before(config, game, log, row["decision"])
        text = prompt_of(config, game, log, row["decision"], state)
        found.append(situation(game, state, player, text))
    return found


def prompt_of(
    config: GamblingConfig, game: Game, log: pl.DataFrame, decision: int, state: State
) -> str:
    """What was asked: of an imported log its own words, which need not be ours."""
    if config.play.log is None:
        return game.observe(state)
    return str(log.filter(pl.col("decision") == decision).sort("attempt")["prompt"][0])


def situation(game: Game, state: State, player: ModelPlayer, text: str | None = None) -> Situation:
    """A state with its cue, so that the decision itself is what comes next. `text` is what asks
    for it, if that is not what the game would say.
    """
    asked = game.observe(state) if text is None else text
    prompt, cue = player.prompt(asked), game.cue(state)
    if isinstance(prompt, str):
        return Situation(prompt + cue, game.openings(state), game.amounts(state))
    behind = player.model.tokenizer(cue.lstrip(), add_special_tokens=False)["input_ids"]
    tokens = (*prompt, *(int(token) for token in behind))
    return Situation(tokens, game.openings(state), game.amounts(state))


def state_before(config: GamblingConfig, game: Game, log: pl.DataFrame, decision: int) -> State:
    """The state in which a game's decision was due, from the game's rows of `attempts`."""
    if config.play.log is not None:
        return _state_of_log(log, decision)
    rows = log.filter(pl.col("decision") < decision)
    played = {row["decision"]: row for row in rows.filter("is_played").iter_rows(named=True)}
    numbers = sorted(set(rows["decision"].to_list()))
    # What could not be read in any attempt was a skip.
    done = [played.get(number) for number in numbers]
    actions = [Action(row["action"], row["amount"]) if row else None for row in done]
    goals = [row["goal"] if row else None for row in done]
    rules = config.table.checked_rules()
    tape = luck_tape(
        GAMES.load(config.table.game), config.seed, int(log["repetition"][0]), rules.max_rounds
    )
    return replay(game, actions, tape, config.play.retries.max_skips, goals)[-1]


def _state_of_log(log: pl.DataFrame, decision: int) -> State:
    """From what the log says, where the luck is not ours to draw again."""
    rows = log.filter((pl.col("decision") < decision) & pl.col("is_played")).sort("decision")
    rounds = tuple(
        Round(row["action"], row["amount"], row["won"], row["payout"], row["balance_after"])
        for row in rows.iter_rows(named=True)
    )
    balance = int(log.filter(pl.col("decision") == decision)["balance"][0])
    return State(balance, rounds)
