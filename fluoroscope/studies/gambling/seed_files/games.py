"""Games of the seed's JSON files <-> the tables `attempts` and `games` of a play.

    {"model": ..., "results": [{"bet_type", "prompt_combo", "repetition", "outcome",
     "final_balance", "total_rounds", "history": [{"round", "bet", "result", "balance", "win"}],
     "round_details": [{"round", "balance_before", "prompt", "response", "decision", ...}]}]}

A checkpoint is the list alone. What `import_games` finds in the forms of such files over the years
is in `game_records.py`; one game at a time is held in memory.
"""

import glob
import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from fluoroscope.core.config import canonical_json
from fluoroscope.core.errors import ConfigError, CorpusError
from fluoroscope.studies.gambling.logs import ATTEMPTS_SCHEMA, GAMES_SCHEMA
from fluoroscope.studies.gambling.seed_files.game_records import ImportedRules, Row
from fluoroscope.studies.gambling.seed_files.game_rows import Played, played_game
from fluoroscope.studies.gambling.seed_files.json_items import JSONItems

RESULTS = "results"
_FACTORS = ("bet_type", "components", "first_result")
_MAX_REPLAYED = 0.05
"""Share of games that are in the files twice, differently, above which the files are two runs."""

_NUMBERS = (
    "games", "duplicates", "replayed", "relabelled", "wrong_prompts", "odd_bets", "without_prompt",
)  # fmt: skip


class ImportedGames(NamedTuple):
    attempts: pl.DataFrame
    games: pl.DataFrame

    files: pl.DataFrame
    """A row a file: `games` that were taken from it; `duplicates`, which were there already and
    are passed over; `replayed`, passed over as well: another game of the same condition and
    repetition is there; `relabelled`: max_rounds that the file calls a voluntary stop;
    `wrong_prompts`, which show another balance than there was; `odd_bets` of fixed games that are
    not the fixed bet; decisions `without_prompt`, which nothing can be recorded of."""


def log_files(log: str) -> list[Path]:
    """The files of a path, a folder (its *.json), a glob, or several of these with commas."""
    found: list[Path] = []
    for part in (part.strip() for part in log.split(",")):
        path = Path(part).expanduser()
        if path.is_dir():
            some = sorted(path.glob("*.json"))
        elif path.is_file():
            some = [path]
        else:
            # A pattern may begin anywhere, which Path.glob does not take.
            some = [Path(name) for name in sorted(glob.glob(str(path)))]  # noqa: PTH207
        if not some:
            raise ConfigError(
                f"There are no games in {part!r}: give a JSON file, a folder with such files, a "
                "glob, or several of these with commas."
            )
        found += [one for one in some if one not in found]
    return found


def import_games(log: str | Path, rules: ImportedRules | None = None) -> ImportedGames:
    """All games of `log_files(log)`, files in that order. Raises `CorpusError` for what is not a
    game, naming the file and the place.
    """
    taken: dict[tuple[str, str], str] = {}
    attempts: list[Row] = []
    games: list[Row] = []
    counts: list[dict[str, str | int]] = []
    models: dict[str, Path] = {}
    for path in log_files(str(log)):
        count: Counter[str] = Counter()
        source = JSONItems(path, RESULTS)
        for where, given in _named(source):
            played = played_game(given, rules or ImportedRules(), where)
            key = (str(played.game["arm"]), str(played.game["game"]))
            digest = _digest(played)
            if key in taken:
                count["duplicates" if taken[key] == digest else "replayed"] += 1
                continue
            taken[key] = digest
            attempts += played.attempts
            games.append(played.game)
            count += _said_of(played)
        counts.append({"file": path.name} | {name: count[name] for name in _NUMBERS})
        _check_model(models, source.header.get("model"), path)
    files = pl.DataFrame(counts, schema={"file": pl.String} | dict.fromkeys(_NUMBERS, pl.Int64))
    _check_whole(files, len(games))
    factors = {name: pl.String for name in _FACTORS if any(name in game for game in games)}
    no_factor = pl.col(*factors).fill_null("")
    return ImportedGames(
        pl.DataFrame(attempts, schema=ATTEMPTS_SCHEMA | factors).with_columns(no_factor),
        pl.DataFrame(games, schema=GAMES_SCHEMA | factors).with_columns(no_factor),
        files,
    )


def games_json(
    attempts: pl.DataFrame, games: pl.DataFrame, header: Mapping[str, object] | None = None
) -> dict[str, Any]:  # Any: JSON values.
    """In the form above, which `import_games` reads again.

    Decisions stand in `round_details` where their prompts are known; one that could not be read
    is a "skip" there, with its last reply: attempts at one decision are not told apart.
    """
    rows = {
        (str(key[0]), str(key[1])): part.to_dicts()
        for key, part in attempts.group_by("arm", "game", maintain_order=True)
    }
    results = [
        _game_json(game, rows.get((game["arm"], game["game"]), []))
        for game in games.iter_rows(named=True)
    ]
    per_condition = games.group_by("arm", "condition").len()["len"]
    return {
        **(header or {}),
        "total_games": len(games),
        "conditions": games["condition"].n_unique(),
        "repetitions_per_condition": per_condition.max() or 0,
        RESULTS: results,
    }


def _named(source: JSONItems) -> Iterator[tuple[str, Any]]:  # Any: JSON values.
    for i, given in enumerate(source):
        yield f"{source.path}, {RESULTS}[{i}]", given


def _said_of(played: Played) -> Counter[str]:
    return Counter(
        games=1,
        relabelled=int(played.is_relabelled),
        wrong_prompts=played.n_wrong_prompts,
        odd_bets=played.n_odd_bets,
        without_prompt=sum(row["prompt"] is None for row in played.attempts),
    )


def _digest(played: Played) -> str:
    return hashlib.sha256(canonical_json([played.game, played.attempts]).encode()).hexdigest()


def _check_model(models: dict[str, Path], model: object, path: Path) -> None:
    if model is None:
        return
    models.setdefault(str(model), path)
    if len(models) > 1:
        (one, first), (other, second) = list(models.items())[:2]
        raise CorpusError(
            f"{first} has games of {one}, and {second} of {other}. Bring the games of one model at "
            "a time."
        )


def _check_whole(files: pl.DataFrame, n_games: int) -> None:
    names = ", ".join(files["file"])
    if n_games == 0:
        raise CorpusError(f"There is not a single game in {names}.")
    replayed = int(files["replayed"].sum())
    if replayed > _MAX_REPLAYED * n_games:
        raise CorpusError(
            f"Of {n_games} games in {names}, {replayed} were played again under the same condition "
            "and repetition, with another course. These are several runs: bring one at a time."
        )


def _game_json(game: Row, rows: list[dict[str, Any]]) -> dict[str, Any]:  # Any: JSON values.
    first = game.get("first_result") or ""
    repetition = int(str(game["repetition"]))
    history = _history(rows, str(first))
    found: dict[str, Any] = {  # Any: JSON values.
        "bet_type": game["bet_type"],
        **({"first_result": first} if first else {}),
        **({"arm": game["arm"]} if game["arm"] != "baseline" else {}),
        "prompt_combo": game["components"],
        "repetition": repetition // 2 if first else repetition,
        "outcome": game["outcome"],
        "final_balance": game["final_balance"],
        "total_rounds": len(history),
        "history": history,
    }
    if any(row["prompt"] is not None for row in rows):
        found["round_details"] = [_detail(row) for row in _last_attempts(rows)]
    return found


def _history(rows: list[dict[str, Any]], first: str) -> list[dict[str, Any]]:  # Any: JSON values.
    bets = [row for row in rows if row["is_played"] and row["action"] == "bet"]
    dealt = []
    if rows and rows[0]["round"] == 2:
        dealt = [_round_json(1, 10, first == "W", rows[0]["balance"])]
    return dealt + [
        _round_json(row["round"], row["amount"], row["won"], row["balance_after"]) for row in bets
    ]


def _round_json(number: int, bet: int, won: bool, balance: int) -> dict[str, object]:
    result = "W" if won else "L"
    return {"round": number, "bet": bet, "result": result, "balance": balance, "win": won}


def _last_attempts(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:  # Any: JSON values.
    last = {row["decision"]: row for row in rows}
    return list(last.values())


def _detail(row: Mapping[str, Any]) -> dict[str, Any]:  # Any: JSON values.
    is_bet = row["is_played"] and row["action"] == "bet"
    problem = str(row["problem"] or "")
    unread = problem.removeprefix("error: ") if problem.startswith("error: ") else "skip"
    return {
        "round": row["round"],
        "balance_before": row["balance"],
        "prompt": row["prompt"],
        "response": row["response"],
        "decision": "bet" if is_bet or problem == "not played" else row["action"] or unread,
        "bet_amount": row["said"],
    }
