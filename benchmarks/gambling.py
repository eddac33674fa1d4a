"""Games of the full design on the organism: all in flight at once, against one at a time.

Slot-machine games in all 64 conditions with the settings of the preset `gambling/organism`, in
float32 on one pinned thread:

    ours              `ModelPlayer` on a shard of the preset's size; games of one condition begin
                      with one prompt, and prompts that begin alike share that
    one repetition    the same with a game a condition: prompts only begin alike
    transformers      one game after another by `generate` with its cache and `stop_strings`,
                      which ends as ours does; the same grammar, luck and retries
    stops made once   the same with what `stop_strings` makes at every call made once
    the seed's way    one game after another without a cache, 100 tokens for every decision

Measured is the CPU time of a decision with all that is around it (prompts, tokens, reading,
rules). The last three play evenly chosen conditions, another repetition in every round; whether
transformers plays the same games as ours is tested on all of them. Floors: the arithmetic of
the tokens that must be read and written, at the speed of a plain matrix product.

    python -m benchmarks.gambling [--games 32] --markdown benchmarks/results/gambling.md
"""

import argparse
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence

from benchmarks.gambling_ways import (
    SEED_TOKENS,
    Casino,
    Tally,
    Way,
    cached,
    cached_quicker,
    decision_flops,
    one_by_one,
    ours,
    seeds_way,
    tally,
)
from benchmarks.harness import (
    Contender,
    Outcome,
    Timing,
    interleave,
    matmul_flops_per_s,
    output_parser,
    pin_one_thread,
    publish,
    speed_ratio,
)
from fluoroscope.studies.gambling.episodes import Episode

SHARD, ALONE = "ours, a shard", "ours, one repetition"
CACHED, QUICKER = "transformers, batch 1", "transformers, stops made once"
LITERAL = "the seed's way"
PEERS = (CACHED, QUICKER, LITERAL)
GOALS: Mapping[str, float] = {CACHED: 4, LITERAL: 50}
MOST_ERRORS = 3.0
"""Standard errors that games of two ways may differ by."""


def measure(rounds: int, n_games: int) -> Outcome:
    casino = Casino.open()
    repetitions = range(casino.play.repetitions_per_shard)
    n_literal = max(2, n_games // 8)
    ways = [
        ours(casino, SHARD, repetitions),
        ours(casino, ALONE, [0]),
        one_by_one(casino, CACHED, cached(casino), repetitions, n_games),
        one_by_one(casino, QUICKER, cached_quicker(casino), repetitions, n_games),
        one_by_one(casino, LITERAL, seeds_way(casino), repetitions, n_literal),
    ]
    timings = interleave([Contender(way.name, way.run, 1, way.note) for way in ways], rounds)
    a_game = _mean(ways[0].episodes.values(), _n_decisions)
    tallies = {way.name: tally(way) for way in ways}
    rows = [_row(timings[way.name], timings, a_game) for way in ways]
    rows += _floors(casino, [tallies[SHARD], tallies[ALONE]], a_game)
    ratios = {peer: speed_ratio(timings[SHARD], timings[peer]).median for peer in GOALS}
    same, alike = _compared(ways[0], ways[2])
    return Outcome(
        title="Games of the full design on the organism",
        columns=["way", "CPU time", "games a CPU second", "times faster than", "a round"],
        rows=rows,
        timings=timings,
        conditions={**_conditions(casino, tallies, a_game), **same, "rounds": rounds},
        goals={
            f"ours / {peer}: at least {wanted:g}, got {ratios[peer]:.2f}": ratios[peer] >= wanted
            for peer, wanted in GOALS.items()
        }
        | {f"transformers plays the same games (within {MOST_ERRORS:g} standard errors)": alike},
    )


def _row(timing: Timing, timings: Mapping[str, Timing], a_game: float) -> list[str]:
    ratios = [
        f"{speed_ratio(timing, timings[peer])} x {peer}" for peer in PEERS if peer != timing.name
    ]
    ms = [1e3 * seconds for seconds in timing.cpu_seconds]
    spent = f"{statistics.median(ms):,.2f} ms a decision ({min(ms):,.2f} to {max(ms):,.2f})"
    return [timing.name, spent, f"{timing.rate / a_game:.3g}", "; ".join(ratios), timing.note]


def _floors(casino: Casino, tallies: Sequence[Tally], a_game: float) -> list[list[str]]:
    speed = matmul_flops_per_s()
    shard, alone = tallies
    read = {
        "floor: shard, what prompts share once": (shard.apart, shard),
        "floor: one repetition, the same": (alone.apart, alone),
        "floor: every prompt read whole": (shard.prompt, shard),
    }
    rows = []
    for name, (n_read, one) in read.items():
        flops = decision_flops(casino.model, n_read, one.written, one.prompt)
        rate = speed / flops / a_game
        note = f"{n_read:.0f} tokens read, {one.written:.1f} written"
        rows.append([name, f"{1e3 * flops / speed:,.2f} ms a decision", f"{rate:.3g}", "", note])
    return rows


def _conditions(
    casino: Casino, tallies: Mapping[str, Tally], a_game: float
) -> dict[str, str | int | float]:
    shard, peer = tallies[SHARD], tallies[CACHED]
    return {
        "settings": f"temperature {casino.play.sampling.temperature:g}, "
        f"{casino.play.max_tokens} tokens a reply at most, {casino.play.rows} rows, float32",
        "prompts": f"{shard.prompt:.0f} tokens on average, {shard.longest} at most (transformers' "
        f"games: {peer.prompt:.0f} on average); {shard.written:.1f} are written, "
        f"{peer.written:.1f} by transformers, {tallies[LITERAL].written:.0f} the seed's way "
        f"({SEED_TOKENS}, less where the context of {casino.model.context_length} ends)",
        "sharing": f"of {shard.prompt:.0f} tokens of a prompt a shard has {shard.apart:.0f} to "
        f"read, one repetition {tallies[ALONE].apart:.0f}: first decisions of a condition are one "
        "prompt, others begin alike",
        "a game": f"{a_game:.2f} decisions, the mean of the shard, in all rows",
    }


def _compared(mine: Way, theirs: Way) -> tuple[dict[str, str | int | float], bool]:
    """Games of the same conditions and luck: how two ways differ, in standard errors."""
    pairs = [(mine.episodes[key], one) for key, one in theirs.episodes.items()]
    found: dict[str, str | int | float] = {}
    is_alike = True
    for what, number in {"decisions a game": _n_decisions, "bankruptcies": _is_bankrupt}.items():
        differences = [number(own) - number(other) for own, other in pairs]
        error = statistics.stdev(differences) / math.sqrt(len(pairs))
        is_alike &= abs(statistics.fmean(differences)) <= MOST_ERRORS * error
        found[f"{what}, of the same {len(pairs)} games"] = (
            f"ours {_mean([own for own, _ in pairs], number):.3f}, transformers "
            f"{_mean([other for _, other in pairs], number):.3f}, difference "
            f"{statistics.fmean(differences):+.3f} (standard error {error:.3f})"
        )
    return found, is_alike


def _n_decisions(episode: Episode) -> float:
    return float(len(episode.attempts))


def _is_bankrupt(episode: Episode) -> float:
    return float(episode.state.outcome == "bankruptcy")


def _mean(episodes: Iterable[Episode], of: Callable[[Episode], float]) -> float:
    return statistics.fmean(of(one) for one in episodes)


if __name__ == "__main__":
    parser = output_parser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--games", type=int, default=32, help="that transformers plays in a round")
    arguments: argparse.Namespace = parser.parse_args()
    pin_one_thread()
    publish(measure(arguments.rounds, arguments.games), arguments)
