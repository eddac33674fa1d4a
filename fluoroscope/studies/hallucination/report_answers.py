"""What the report shows of single answers: their tokens, their tracks, a true and a made-up one."""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from transformers import PreTrainedTokenizerBase

from fluoroscope.data.answers.record import AnswerRecord
from fluoroscope.models.loading import load_tokenizer
from fluoroscope.runs.report import Report
from fluoroscope.runs.report_strips import Strip, StripRow
from fluoroscope.runs.run import Run
from fluoroscope.studies.hallucination.charts import THRESHOLD
from fluoroscope.studies.hallucination.chosen_answers import (
    N_EACH,
    N_METRICS,
    SIGNALS,
    choose_answers,
    differing_metrics,
    typical_pair,
)
from fluoroscope.studies.hallucination.config import HallucinationConfig
from fluoroscope.studies.hallucination.lanes_chart import N_LANES, lanes_chart
from fluoroscope.studies.hallucination.methods import COMBINED
from fluoroscope.studies.hallucination.metrics.describe import METRICS
from fluoroscope.studies.hallucination.steps.answers import read_answer_records
from fluoroscope.studies.hallucination.steps.detect import read_scores
from fluoroscope.studies.hallucination.steps.features import readable_answers
from fluoroscope.studies.hallucination.steps.read import read_shards
from fluoroscope.studies.hallucination.steps.track import METRICS_FILE, TRACK, TRACKS

FULL = 0.99
"""Quantile over the tokens of all answers at which a cell has its strongest colour."""

_TRACKED = {
    "posterior_entropy_mean": ("doubt of the tracker", "bits"),
    "total_births": ("tracks", ""),
}


def add_answers(report: Report, run: Run, config: HallucinationConfig) -> None:
    answers, tokens = scored_answers(run, config), token_table(run)
    chosen = choose_answers(answers)
    strips = make_strips(run, config, answers, tokens, [one.id for one in chosen])
    titles = [f"{number}. {one.why}" for number, one in enumerate(chosen, start=1)]
    report.section("Single answers")
    report.text(
        "Each token stands above what was known when it was drawn: **surprise**, minus the log of "
        "its probability; **entropy** of the distribution that it was drawn from; **doubt of the "
        "tracker**, the entropy of the hypotheses that it holds if it holds several, as mean over "
        f"layers; and the number of **tracks**. Scores are those of *{COMBINED}*, of detectors "
        f"that had not seen the answer, and {THRESHOLD:g} is where an answer is called made up. "
        f"Shown are, by these scores, the {N_EACH} that are most wrong, the {N_EACH} made-up and "
        f"the {N_EACH} true answers that are told best, and the {N_EACH} nearest to {THRESHOLD:g} "
        "among the others, as far as there are such."
    )
    titled = [
        Strip(one.tokens, one.rows, title, one.prompt, one.facts, one.verdict)
        for one, title in zip(strips, titles, strict=True)
    ]
    report.strips(
        titled,
        "Colour is strongest where 99 of 100 tokens of the run are below; numbers are under the "
        "pointer.",
    )
    first = {one.why: number for number, one in reversed(list(enumerate(chosen)))}
    numbers = sorted(first.values())
    _add_lanes(
        report, run, config, answers, "lanes",
        {titles[number]: chosen[number].id for number in numbers},
    )  # fmt: skip


def add_pair(report: Report, run: Run, config: HallucinationConfig) -> None:
    answers, tokens = scored_answers(run, config), token_table(run)
    pair = typical_pair(answers)
    ids = {"true": pair.true, "made up": pair.made_up}
    report.section("A true answer beside a made-up one")
    report.text(
        f"Two answers {pair.within}. Of all such pairs, this is the one in which the difference of "
        f"scores (*{COMBINED}*) is the median, so it is typical and not the clearest."
    )
    strips = [
        Strip(one.tokens, one.rows, title, one.prompt, one.facts, one.verdict)
        for one, title in zip(
            make_strips(run, config, answers, tokens, list(ids.values())),
            (name.capitalize() for name in ids),
            strict=True,
        )
    ]
    report.strips(strips)
    _add_lanes(report, run, config, answers, "lanes_pair", ids)
    found = differing_metrics(answer_metrics(run, config, answers, tokens), pair)
    report.table(
        "pair_metrics",
        found,
        f"The {N_METRICS} numbers that differ most between the two, in standard deviations over "
        "all answers. Of two answers some number always differs: see above whether it does in "
        "general.",
    )


def scored_answers(run: Run, config: HallucinationConfig) -> pl.DataFrame:
    """`readable_answers` with the `score` of each, its mean over repeats."""
    scores = read_scores(run, config)[COMBINED].scores.mean(axis=0)
    return readable_answers(run).with_columns(score=pl.Series(scores))


def token_table(run: Run) -> pl.DataFrame:
    """A row a token of an answer: `id`, `place`, and what was known when it was drawn."""
    parts = []
    for answers, readings in read_shards(run):
        counts = readings.offsets.diff().numpy()
        parts.append(
            pl.DataFrame(
                {
                    "id": np.repeat(answers["id"].to_numpy(), counts),
                    "place": np.concatenate([np.empty(0, int), *map(np.arange, counts)]),
                    "surprise": -readings.logprobs.double().numpy(),
                    "entropy": readings.entropies.double().numpy(),
                }
            )
        )
    tracked = pl.read_parquet(run.step_folder(TRACK) / METRICS_FILE)
    # The position before a token draws it; the first is the prompt's last, at -1.
    drawn = tracked.select("id", *_TRACKED, place=pl.col("position").cast(pl.Int64) + 1)
    return pl.concat(parts).join(drawn, on=["id", "place"], how="left", maintain_order="left")


def make_strips(
    run: Run,
    config: HallucinationConfig,
    answers: pl.DataFrame,
    tokens: pl.DataFrame,
    ids: Sequence[str],
) -> list[Strip]:
    """Of the answers with these `ids`, without titles."""
    tokenizer = load_tokenizer(config.model.name, config.model.revision)
    records = {record.id: record for record in read_answer_records(run)}
    shown = {"surprise": ("surprise", "nats"), "entropy": ("entropy", "nats"), **_TRACKED}
    full = {name: float(tokens[name].quantile(FULL) or 0) for name in shown}
    strips = []
    for name in ids:
        answer = answers.row(by_predicate=pl.col("id") == name, named=True)
        mine = tokens.filter(pl.col("id") == name).sort("place")
        # A tracker that holds one hypothesis is never in doubt, and has no such row.
        rows = [
            StripRow(words, mine[column].fill_null(float("nan")).to_list(), full[column], unit)
            for column, (words, unit) in shown.items()
            if full[column] > 0
        ]
        is_right = bool(answer["label"]) == (answer["score"] >= THRESHOLD)
        verdict = "right" if is_right else "wrong"
        facts = {
            f"score by {COMBINED}": round(answer["score"], 3),
            **({"kind": answer["category"]} if answer["category"] else {}),
        }
        strips.append(
            Strip(
                answer_pieces(tokenizer, records[name], answer["n_prompt"], answer["n_tokens"]),
                rows,
                prompt=records[name].prompt,
                facts=facts,
                verdict=("pass" if is_right else "fail", f"scored {verdict}"),
            )
        )
    return strips


def answer_pieces(
    tokenizer: PreTrainedTokenizerBase, record: AnswerRecord, n_prompt: int, n_tokens: int
) -> list[str]:
    """The characters of each token of the completion; a dot for a token that ends none."""
    text = record.prompt + record.completion
    spans = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    ends = [int(end) for _, end in spans[n_prompt : n_prompt + n_tokens]]
    starts = [len(record.prompt), *ends]
    return [text[start:end] or "\u00b7" for start, end in zip(starts, ends, strict=False)]


def shown_position(config: HallucinationConfig, exact: int) -> int:
    """Where the tracks of an answer are shown.

    Before it begins, where the model answered by itself; a stated answer shares its prompt with
    its rivals, so it is the last token of the answer itself there.
    """
    return -1 if config.data.answers == "own" else exact


def answer_metrics(
    run: Run, config: HallucinationConfig, answers: pl.DataFrame, tokens: pl.DataFrame
) -> pl.DataFrame:
    """A row an answer: the metrics of its tracks where they are shown, and mean signals."""
    places = answers.select(
        "id",
        position=pl.Series(
            [shown_position(config, exact) for exact in answers["exact"]],
            dtype=pl.Int32,
        ),
    )
    tracked = pl.read_parquet(run.step_folder(TRACK) / METRICS_FILE).select(
        "id", "position", *METRICS
    )
    means = tokens.group_by("id").agg(pl.col(*SIGNALS).mean())
    return places.join(tracked, on=["id", "position"], how="left").join(means, on="id", how="left")


def _add_lanes(
    report: Report,
    run: Run,
    config: HallucinationConfig,
    answers: pl.DataFrame,
    name: str,
    ids: Mapping[str, str],
) -> None:
    points = {}
    files = str(run.step_folder(TRACK) / "shards" / "*" / TRACKS)
    for title, one in ids.items():
        answer = answers.row(by_predicate=pl.col("id") == one, named=True)
        position = shown_position(config, answer["exact"])
        at = (pl.col("id") == one) & (pl.col("position") == position)
        points[title] = pl.scan_parquet(files).filter(at).collect()
    where = (
        "where the answer begins, before its first token"
        if config.data.answers == "own"
        else "at the last token of the answer itself"
    )
    report.figure(
        name,
        lanes_chart(points, [point.layer for point in config.points]),
        f"The {N_LANES} tracks with the most strength, {where}. A point is a latent that is "
        "active (what it is, is under the pointer); its strength is in units of what is high for "
        "that latent.",
    )
