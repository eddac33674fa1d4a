"""Words of latents, and the pathway of games, in the seed's forms.

Words: `high_freq` is the share of replies with the latent active that say the word, `low_freq` of
those it is compared with; the seed counted occurrences among all words, so that one talkative
reply was many. `q` is of all words and latents together, which the seed did not test.

Pathway: `features` of a layer are its largest latents, with their numbers; the seed wrote all
32,768 floats of every layer and round, of which nearly all are zero and 14 GB were made.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from scipy.sparse import csr_array

from fluoroscope.steps.sae_sources import SAEChoice
from fluoroscope.studies.gambling.seed_files.features import layer_of, provenance_json
from fluoroscope.studies.gambling.seed_files.patching import feature_name

N_WORDS = 20
TOP_LATENTS = 32


def word_json(
    observed: pl.DataFrame,
    causal: pl.DataFrame,
    saes: Sequence[SAEChoice],
    max_q: float = 0.05,
) -> dict[str, Any]:  # Any: JSON values.
    """Of every latent in `causal`: the words of `observed` (`words/observed.parquet`) with a q of
    at most `max_q`, the largest differences first, 20 of each side.

    `type` is risky where the latent is larger in bankrupt games, else safe: what it goes with, not
    what it causes, which `is_causal` says.
    """
    has_words = {"hook_point", "latent", "q"} <= set(observed.columns)
    results = []
    for row in causal.iter_rows(named=True):
        point, latent = row["hook_point"], row["latent"]
        is_mine = (pl.col("hook_point") == point) & (pl.col("latent") == latent)
        mine = observed.filter(is_mine) if has_words else pl.DataFrame()
        found = mine.filter(pl.col("q") <= max_q) if len(mine) else mine
        results.append(
            {
                "feature": feature_name(point, latent),
                "layer": layer_of(point),
                "feature_id": latent,
                "type": "risky" if row["cohen_d"] > 0 else "safe",
                "is_causal": row.get("is_causal"),
                "n_responses": _n_texts(mine),
                "high_activation_words": _words(found, sign=1),
                "low_activation_words": _words(found, sign=-1),
            }
        )
    used = set(causal["hook_point"])
    return {
        "provenance": provenance_json([sae for sae in saes if sae.hook_point in used]),
        "n_features": len(results),
        "results": results,
    }


def pathway_json(
    states: pl.DataFrame,
    games: pl.DataFrame,
    latents: Mapping[str, csr_array],
    saes: Sequence[SAEChoice],
    n_games: int = 50,
    top: int = TOP_LATENTS,
) -> dict[str, Any]:  # Any: JSON values.
    """The first `n_games` of `games` that were recorded, a round for each of their decisions.

    `states` are those of `record/states.parquet`, whose `row` counts in `latents` of each hook
    point.
    """
    recorded = games.join(states.select("arm", "game").unique(), on=["arm", "game"], how="semi")
    found = []
    for game in recorded.sort("repetition", "condition", "arm").head(n_games).iter_rows(named=True):
        is_mine = (pl.col("arm") == game["arm"]) & (pl.col("game") == game["game"])
        rows = states.filter(is_mine).sort("decision")
        found.append(
            {
                "game_id": game["game"],
                "bet_type": game.get("bet_type"),
                "prompt_combo": game.get("components"),
                "outcome": game["outcome"],
                "final_balance": game["final_balance"],
                "total_rounds": game["n_bets"],
                "rounds": [_round_json(row, latents, top) for row in rows.iter_rows(named=True)],
            }
        )
    return {
        "provenance": provenance_json([sae for sae in saes if sae.hook_point in latents]),
        "features": f"the {top} largest latents of a layer: their numbers and values; others may "
        "be active",
        "n_games": len(found),
        "games": found,
    }


def _n_texts(mine: pl.DataFrame) -> int | None:
    # Of a latent none of whose words was worth keeping it is not known any more.
    return int(mine["texts_high"][0] + mine["texts_low"][0]) if len(mine) else None


def _words(found: pl.DataFrame, sign: int) -> list[dict[str, Any]]:  # Any: JSON values.
    if not len(found):
        return []
    side = found.filter(pl.col("difference") * sign > 0)
    ordered = side.sort(pl.col("difference").abs(), "word", descending=[True, False]).head(N_WORDS)
    return ordered.select(
        "word",
        pl.col("rate_high").alias("high_freq"),
        pl.col("rate_low").alias("low_freq"),
        pl.col("difference").abs().alias("diff"),
        "q",
    ).to_dicts()


def _round_json(
    row: Mapping[str, Any], latents: Mapping[str, csr_array], top: int
) -> dict[str, Any]:  # Any: JSON values.
    return {
        "round": row["round"],
        "balance": row["balance"],
        "decision": {
            "action": row["action"],
            "bet": row["amount"],
            "valid": row["action"] is not None,
        },
        "features": {
            f"L{layer_of(point)}": _largest(matrix, row["row"], top)
            for point, matrix in latents.items()
        },
    }


def _largest(latents: csr_array, row: int, top: int) -> dict[str, list[float] | list[int]]:
    own = slice(latents.indptr[row], latents.indptr[row + 1])
    values, indices = np.asarray(latents.data[own]), latents.indices[own]
    # By value, ties by number, so that the file does not depend on how they are stored.
    order = np.lexsort((indices, np.negative(values)))[:top]
    return {
        "indices": [int(index) for index in indices[order]],
        "values": [round(float(value), 6) for value in values[order]],
    }
