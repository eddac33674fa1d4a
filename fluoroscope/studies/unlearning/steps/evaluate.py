"""Every plan on what nothing was learnt from (`evaluate/`): forgetting, keeping, side effects.

evaluate/replies.parquet    a row a plan, set and sample, with `is_flagged`: see `replies_table.py`
evaluate/accuracy.parquet   by plan, side and category: see `judging.accuracy_table`
evaluate/people.parquet     by plan, side and group: its accuracy
evaluate/results.parquet    by plan and set: compared with the untreated model, sample by sample
evaluate/contrasts.parquet  the main plan against others: `after` is its, `before` the other's
evaluate/drift.parquet      by plan and texts: KL, perplexity over that of the untreated model
evaluate/statement.json     whether clamping where it is called for keeps more, in a sentence

Sets are `forget`, `retain`, and further tasks by name. Texts are held-out `forget`, held-out
`retain`, and, on the organism, `other`: what its world says of other things than people.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from fluoroscope.core.intervals import clustered_share_interval
from fluoroscope.core.seeding import stream
from fluoroscope.core.sink import Sink
from fluoroscope.core.storage import write_json, write_parquet
from fluoroscope.data.tasks.samples import Sample
from fluoroscope.interventions.replies.answering import Asking
from fluoroscope.interventions.replies.comparing import compare, group_numbers
from fluoroscope.interventions.replies.drift import drift_of, text_sums
from fluoroscope.interventions.row_edits import row_edits
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import Cost, MapStep, Shard, ShardContext
from fluoroscope.steps.models import load_model
from fluoroscope.steps.replies_table import SCHEMA, replies_frame, replies_of
from fluoroscope.steps.subject import sae_inputs
from fluoroscope.steps.task_data import load_task
from fluoroscope.studies.unlearning.clamping import Treatment
from fluoroscope.studies.unlearning.judging import (
    accuracy_table,
    ask_flagged,
    conditional_against_static,
    conditional_statement,
)
from fluoroscope.studies.unlearning.plans import (
    EVERYWHERE,
    UNTREATED_NAME,
    UnlearningConfig,
    plan_of,
)
from fluoroscope.studies.unlearning.sets import ForgetSets, Passage, Side
from fluoroscope.studies.unlearning.steps.detect import DETECT
from fluoroscope.studies.unlearning.steps.finetune import FINETUNE
from fluoroscope.studies.unlearning.steps.select import SELECT
from fluoroscope.studies.unlearning.steps.stored import load_asking, load_sets, reading_cost
from fluoroscope.studies.unlearning.steps.treated import load_treated
from fluoroscope.studies.unlearning.steps.tune import TUNE

EVALUATE = "evaluate"
REPLIES, ACCURACY, PEOPLE = "replies.parquet", "accuracy.parquet", "people.parquet"
RESULTS, CONTRASTS, DRIFT = "results.parquet", "contrasts.parquet", "drift.parquet"
STATEMENT, _SUMS = "statement.json", "sums.parquet"
SIDES: tuple[Side, ...] = ("forget", "retain")
OTHER = "other"
_UNMOVED = dict.fromkeys(("difference", "difference_low", "difference_high"), 0.0)
_SUM_NAMES = ("kl", "before", "after", "positions")


class EvaluateStep(MapStep):
    name = EVALUATE

    def __init__(self, config: UnlearningConfig) -> None:
        self.config = config
        tuned = (FINETUNE,) if config.finetune else ()
        self.inputs = (*sae_inputs(config), SELECT, DETECT, TUNE, *tuned)

    def cost(self) -> Cost:
        n = len(self.config.plans)
        return reading_cost(self.config, n * (2 + 0.5 * len(self.config.evaluate.others)), n)

    def shards(self, run: Run) -> Sequence[Shard]:
        plans = self.config.plans
        return [Shard(f"{k:02d}", {"plan": plan.name}) for k, plan in enumerate(plans)]

    def work(self, run: Run, shard: Shard, context: ShardContext) -> None:
        config, device = self.config, context.device
        plan = plan_of(config, shard.params["plan"])
        model, treatment = load_treated(run, config, plan, device)
        frames = [pl.DataFrame(schema={"set": pl.String, **SCHEMA, "is_flagged": pl.Boolean})]
        sets = self.sample_sets(run, device)
        for place, (name, (samples, asking)) in enumerate(sets.items()):
            flags = treatment.flags(model, [asking.prompt(one) for one in samples])
            replies = ask_flagged(model, samples, asking, treatment.edits, flags)
            frame = replies_frame(samples, replies)
            frames.append(
                frame.select(pl.lit(name).alias("set"), pl.all(), pl.Series("is_flagged", flags))
            )
            context.sink.progress(place + 1, len(sets), "sets")
        write_parquet(context.folder / REPLIES, pl.concat(frames))
        untreated, n_texts = load_model(run, config.model, device), config.evaluate.n_texts
        texts = held_out_texts(load_sets(run, config, device), n_texts, config.seed)
        rows = [
            {"texts": name, "group": one.group, **dict(zip(_SUM_NAMES, sums, strict=True))}
            for name, passages in texts.items()
            for one, sums in zip(
                passages, moved_sums(untreated, model, treatment, passages).tolist(), strict=True
            )
        ]
        write_parquet(context.folder / _SUMS, pl.DataFrame(rows))

    def merge(self, run: Run, folder: Path, sink: Sink) -> None:
        names = [plan.name for plan in self.config.plans]
        shards = [folder / "shards" / shard.key for shard in self.shards(run)]
        replies = pl.concat(
            pl.read_parquet(shard / REPLIES).select(pl.lit(name).alias("plan"), pl.all())
            for name, shard in zip(names, shards, strict=True)
        )
        write_parquet(folder / REPLIES, replies)
        sums = {n: pl.read_parquet(s / _SUMS) for n, s in zip(names, shards, strict=True)}
        write_parquet(folder / DRIFT, _drifts(sums))
        write_parquet(folder / ACCURACY, self._accuracies(run, replies))
        write_parquet(folder / PEOPLE, _people(replies))
        write_parquet(folder / RESULTS, self._results(replies))
        write_parquet(folder / CONTRASTS, self._contrasts(replies))
        write_json(folder / STATEMENT, self._statement(run, replies))

    def sample_sets(self, run: Run, device: str) -> dict[str, tuple[Sequence[Sample], Asking]]:
        """By name, those that there are."""
        config, found = self.config, dict[str, tuple[Sequence[Sample], Asking]]()
        sets, asking = load_sets(run, config, device), load_asking(run, config, device)
        for side in SIDES:
            samples = side_samples(sets, side)
            if samples and asking is not None:
                found[side] = samples, asking
        for task in config.evaluate.others:
            data = load_task(run, config.model, task, config.data_dir, config.seed, device)
            found[task.name] = data.sides["test"], data.asking
        return found

    def _accuracies(self, run: Run, replies: pl.DataFrame) -> pl.DataFrame:
        sets, parts = load_sets(run, self.config), []
        for (name, side), rows in _by_plan(replies, "set"):
            if side in SIDES:
                samples = side_samples(sets, side)
                table = accuracy_table(side, samples, replies_of(rows))
                parts.append(table.select(pl.lit(name).alias("plan"), pl.all()))
        return pl.concat(parts, how="vertical_relaxed") if parts else pl.DataFrame()

    def _results(self, replies: pl.DataFrame) -> pl.DataFrame:
        before = {name: rows for (plan, name), rows in _by_plan(replies, "set")
                  if plan == UNTREATED_NAME}  # fmt: skip
        found = []
        for (plan, name), rows in _by_plan(replies, "set"):
            share = clustered_share_interval(
                rows["is_flagged"].to_numpy(), group_numbers(rows["group"].to_list())
            )
            flagged = dict(zip(("flagged", "flagged_low", "flagged_high"), share, strict=True))
            compared = self._compared(before[name], rows)
            if plan == UNTREATED_NAME:
                # Not measured: it is compared with itself.
                compared |= _UNMOVED
            found.append({"plan": plan, "set": name, **compared, **flagged})
        return _plain(pl.DataFrame(found, infer_schema_length=None))

    def _contrasts(self, replies: pl.DataFrame) -> pl.DataFrame:
        by = dict(_by_plan(replies, "set"))
        names = {name: None for _, name in by}
        found = [
            {"against": plan.name, "set": name,
             **self._compared(by[plan.name, name], by[self.config.main, name])}
            for plan in self.config.plans
            if plan.name != self.config.main
            for name in names
        ]  # fmt: skip
        return _plain(pl.DataFrame(found, infer_schema_length=None))

    def _compared(self, before: pl.DataFrame, after: pl.DataFrame) -> dict[str, Any]:
        groups = before["group"].to_list()
        return compare(replies_of(before), replies_of(after), groups, self.config.seed).row()

    def _statement(self, run: Run, replies: pl.DataFrame) -> dict[str, str]:
        """Against the same clamp in every text, and against static clamping at its own best."""
        by = dict(_by_plan(replies, "set"))
        if (self.config.main, "retain") not in by:
            return {}
        samples = side_samples(load_sets(run, self.config), "retain")
        main = replies_of(by[self.config.main, "retain"])
        static = f"static-{self.config.select.by[0]}"
        found = {}
        for name in (EVERYWHERE, static):
            other = replies_of(by[name, "retain"])
            found[name] = conditional_statement(conditional_against_static(samples, other, main))
        return found


def side_samples(sets: ForgetSets, side: str) -> Sequence[Sample]:
    return sets.forget_samples if side == "forget" else sets.retain_samples


def held_out_texts(sets: ForgetSets, n: int, seed: int) -> dict[str, list[Passage]]:
    """A text once, at most `n` of each kind by seed; of people's sets what is of no person is
    apart.
    """
    found: dict[str, list[Passage]] = {"forget": list(sets.forget_held_out)}
    kept = sets.retain_held_out
    if sets.forgotten:
        found["retain"] = [one for one in kept if one.form]
        found[OTHER] = [one for one in kept if not one.form]
    else:
        found["retain"] = list(kept)
    once = {name: list({one.text: one for one in some}.values()) for name, some in found.items()}
    return {name: _drawn(some, n, seed, name) for name, some in once.items() if some}


def _drawn(passages: list[Passage], n: int, seed: int, name: str) -> list[Passage]:
    order = stream(seed, "unlearning", "held-out texts", name).permutation(len(passages))[:n]
    return [passages[place] for place in sorted(order.tolist())]


def moved_sums(
    untreated: LanguageModel,
    model: LanguageModel,
    treatment: Treatment,
    passages: Sequence[Passage],
) -> np.ndarray:
    """See `drift.text_sums`; each text is treated as its prompt asks for."""
    flags = treatment.flags(model, [one.prompt for one in passages])

    def after(places, tokens, mask):
        edits = [treatment.edits if flags[place] else {} for place in places]
        if not any(edits):
            return model.forward(tokens, mask)
        with row_edits(model, edits):
            return model.forward(tokens, mask)

    return text_sums(untreated, [one.text for one in passages], after)


def _drifts(sums: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    rows = []
    for name, frame in sums.items():
        for texts, own in frame.group_by("texts", maintain_order=True):
            found = drift_of(own.select(_SUM_NAMES).to_numpy(), own["group"].to_list())
            row: dict[str, Any] = {"plan": name, "texts": texts[0]}  # Any: values of a table.
            for key in ("kl", "perplexity_ratio", "perplexity_steered"):
                ends = getattr(found, key)
                keys = (key, f"{key}_low", f"{key}_high")
                row |= dict(zip(keys, map(float, ends), strict=True))
            rows.append({**row, "n_texts": found.n_texts, "n_positions": found.n_positions})
    return _plain(pl.DataFrame(rows, infer_schema_length=None))


def _people(replies: pl.DataFrame) -> pl.DataFrame:
    return (
        replies.filter(pl.col("set").is_in(SIDES))
        .group_by("plan", "set", "group", maintain_order=True)
        .agg(n=pl.len(), accuracy=pl.col("score").mean(), flagged=pl.col("is_flagged").mean())
    )


def _by_plan(replies: pl.DataFrame, column: str) -> list[tuple[tuple[str, str], pl.DataFrame]]:
    groups = replies.group_by("plan", column, maintain_order=True)
    return [((str(key[0]), str(key[1])), rows) for key, rows in groups]


def _plain(frame: pl.DataFrame) -> pl.DataFrame:
    """Without NaN, and without columns that have no type."""
    floats = [name for name, kind in frame.schema.items() if kind.is_float()]
    return frame.with_columns(pl.col(floats).fill_nan(None), pl.col(pl.Null).cast(pl.Float64))
