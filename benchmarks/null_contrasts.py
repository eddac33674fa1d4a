"""How often contrasts find something where nothing is: labels of games shuffled.

Games have several decisions each; latents are sparse, skewed, and correlated within a game, with
each other and with the covariates (balance, round). Labels are exchanged between games of one
condition, so that no latent differs, and every discovery at a false discovery rate of 0.05 is
false. The share of shuffles with any discovery is the rate to hold; it stands beside the nominal
one with Wilson's 95 % interval. Only the score test is
meant to hold it; `is_different` of `contrasts` is by that one. The shuffles are spread over
several data sets, as a shuffle keeps what is peculiar to its own.

    python -m benchmarks.null_contrasts [--n 200] [--markdown FILE]
"""

import argparse
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import polars as pl
from scipy.sparse import csc_array

from benchmarks.harness import machine
from fluoroscope.core.intervals import Interval, share_interval
from fluoroscope.core.seeding import stream
from fluoroscope.features.contrasts import TESTS, Rows, contrasts
from fluoroscope.features.multiple_tests import benjamini_hochberg
from fluoroscope.features.permutation import shuffled_group

NOMINAL = 0.05
MIN_CLUSTERS = (1, 10)
DATA_SETS = 5


@dataclass(frozen=True)
class Setting:
    """Data of one kind."""

    title: str
    n_games: int
    share_in: float
    labels_vary: bool = False
    d_sae: int = 600
    n_layers: int = 2
    n_conditions: int = 16


SETTINGS = (
    Setting("3,000 games, 7 % in the group", 3000, 0.07),
    Setting("1,000 games, 25 % in the group", 1000, 0.25),
    Setting("300 games, 7 % in the group", 300, 0.07),
    Setting("1,000 games, labels of decisions", 1000, 0.3, labels_vary=True),
    Setting("1,000 games, labels of decisions, few in", 1000, 0.03, labels_vary=True),
)


def make(setting: Setting, seed: int) -> tuple[dict[str, csc_array], Rows]:
    random = stream(seed, "null contrasts", setting.title)
    n_games = setting.n_games
    length = random.geometric(0.3, n_games).clip(1, 15)
    game = np.repeat(np.arange(n_games), length)
    n = len(game)
    rounds = np.arange(n) - np.repeat(np.cumsum(length) - length, length)
    steps = random.choice([-10.0, 20.0], n, p=[0.7, 0.3]) * (rounds > 0)
    walk = np.cumsum(steps)
    balance = 100 + walk - walk[np.flatnonzero(rounds == 0)][game]
    condition = np.arange(n_games) % setting.n_conditions
    # The same share in every condition, so that an exchange within conditions leaves nothing for
    # any test to find; long games are more often in the group.
    luck = random.random(n_games) / length
    rank = np.argsort(np.lexsort((luck, condition)))
    first = np.searchsorted(np.sort(condition), condition)
    label = rank - first < setting.share_in * n_games / setting.n_conditions
    group = label[game]
    if setting.labels_vary:
        # Some games are all along more often in the group than others.
        group = random.random(n) < setting.share_in * random.gamma(1, 1, n_games)[game]
    one_hot = np.eye(setting.n_conditions)[condition[game]]
    covariates = np.column_stack([balance / 100, rounds, balance < 50, one_hot])
    rows = Rows(group, game, covariates, condition[game])
    layers = {
        f"{layer}.resid_post": latents(setting, rows, condition, random)
        for layer in range(setting.n_layers)
    }
    return layers, rows


def latents(
    setting: Setting, rows: Rows, condition: np.ndarray, random: np.random.Generator
) -> csc_array:
    n, d_sae, n_games = len(rows), setting.d_sae, setting.n_games
    factors = random.normal(size=(n_games, 8)) @ random.normal(size=(8, d_sae)) / 8**0.5
    of_condition = random.normal(size=(setting.n_conditions, d_sae))[condition]
    of_game = 0.8 * factors + 0.8 * of_condition + random.normal(size=(n_games, d_sae))
    state = rows.covariates[:, :3]
    state = (state - state.mean(axis=0)) / state.std(axis=0)
    drive = of_game[rows.cluster] + state @ random.normal(size=(3, d_sae)) * 0.5
    drive += random.normal(size=(n, d_sae))
    # From active in half of the rows to active in one of ten thousand; values with a long tail.
    threshold = random.uniform(0, 7, d_sae)
    active = np.maximum(drive - threshold, 0)
    return csc_array((active * np.exp(0.7 * random.normal(size=active.shape))).astype(np.float32))


def rates(setting: Setting, n: int) -> dict[tuple[str, int], Interval]:
    """Share of shuffles with any discovery, by test and least number of active clusters."""
    found: dict[tuple[str, int], list[bool]] = {}
    for data_set in range(DATA_SETS):
        layers, rows = make(setting, data_set)
        for i in range(data_set, n, DATA_SETS):
            table = contrasts(layers, rows.with_group(shuffled_group(rows, 0, i)))
            for least, test in product(MIN_CLUSTERS, TESTS):
                tested = table.filter(pl.col("clusters_active") >= least)
                q = benjamini_hochberg(tested[f"p_{test}"].to_numpy())
                found.setdefault((test, least), []).append(bool((q < NOMINAL).any()))
    return {key: share_interval(np.array(any_found)) for key, any_found in found.items()}


def tables(n: int) -> str:
    parts = []
    for setting in SETTINGS:
        _, rows = make(setting, 0)
        found = rates(setting, n)
        n_latents = setting.d_sae * setting.n_layers
        lines = [
            f"## {setting.title}",
            "",
            f"{n} shuffles over {DATA_SETS} data sets (the first: {len(rows)} decisions, "
            f"{int(rows.group.sum())} in the group), "
            f"{n_latents} latents.",
            "",
            "| test | nominal | " + " | ".join(f"at least {m} games" for m in MIN_CLUSTERS) + " |",
            "| --- " * (2 + len(MIN_CLUSTERS)) + "|",
        ]
        for test in TESTS:
            cells = [_cell(found[test, least]) for least in MIN_CLUSTERS]
            lines.append(f"| {test} | {NOMINAL} | " + " | ".join(cells) + " |")
        parts.append("\n".join(lines))
        print(parts[-1], flush=True)
    return "\n\n".join(parts)


def _cell(rate: Interval) -> str:
    return f"{rate.value:.3f} ({rate.low:.3f}-{rate.high:.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    text = f"{tables(arguments.n)}\n\nMachine: {machine()}\n"
    if arguments.markdown:
        title = "# Discoveries where nothing is: contrasts of shuffled labels\n\n"
        arguments.markdown.write_text(title + text)


if __name__ == "__main__":
    main()
