"""SAEs of the organism -> how much of the planted truth their latents hold (`truth/`).

truth/shards/ceiling/rows.json          scores of planted, probed and random directions
truth/shards/<hook point>/rows.json     SAE -> the scores of its best latents and sets
"""

from collections.abc import Mapping, Sequence

import polars as pl

from fluoroscope.core.plain_values import without_nan
from fluoroscope.core.storage import read_json, write_json
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.hub import find_model
from fluoroscope.organism.recovery import FOUND_COLUMNS, ceiling, recovered
from fluoroscope.organism.shipping import load_truth
from fluoroscope.organism.trials import Score, Trials
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import Cost, MapStep, Shard, ShardContext
from fluoroscope.sae.formats.native import load_sae
from fluoroscope.steps.models import ModelConfig
from fluoroscope.steps.train_saes import SAES_STEP, SAEPlan, sae_folder

TRUTH = "truth"
CEILING = "ceiling"
_ROWS = "rows.json"


def can_be_scored(model: ModelConfig, groups: Mapping[str, Sequence[SAEPlan]]) -> bool:
    """Whether the model is an organism, and an SAE of its residual stream is among the plans."""
    points = (HookPoint(plan.hook_point) for plans in groups.values() for plan in plans)
    return model.is_organism and any(point.stream == "resid_post" for point in points)


class ScoreSAEsStep(MapStep):
    """One shard a hook point with SAEs, and one for what they are compared with."""

    name = TRUTH
    inputs = (SAES_STEP,)

    def __init__(self, model: ModelConfig, groups: Mapping[str, Sequence[SAEPlan]], n: int) -> None:
        """`n` pairs of prompts of each variable, and twice as many prompts."""
        self.model, self.n = model, n
        self._plans: dict[str, list[tuple[str, SAEPlan]]] = {}
        for group, plans in groups.items():
            for plan in plans:
                if HookPoint(plan.hook_point).stream == "resid_post":
                    self._plans.setdefault(plan.hook_point, []).append((group, plan))

    def cost(self) -> Cost:
        n_saes = sum(map(len, self._plans.values()))
        return Cost(
            # Every prompt is read once; then each candidate costs one token a prompt.
            overhead_s=0.12 * self.n * (2 + n_saes),
            memory_bytes=0.8e9 + 5e6 * self.n,
            disk_bytes=5e3 * n_saes,
            parallel=1 + len(self._plans),
            note="small products: more overhead than arithmetic",
        )

    def shards(self, run: Run) -> Sequence[Shard]:
        return [Shard(CEILING), *(Shard(point) for point in self._plans)]

    def work(self, run: Run, shard: Shard, context: ShardContext) -> None:
        truth = run.cached(
            TRUTH, lambda: load_truth(find_model(self.model.name, self.model.revision).folder)
        )
        trials = run.cached((TRUTH, "trials"), lambda: Trials(truth, self.n))
        if shard.key == CEILING:
            rows = {CEILING: ceiling(trials).to_dicts()}
            write_json(context.folder / _ROWS, without_nan(rows))
            return
        plans = self._plans[shard.key]
        rows = {}
        for i, (group, plan) in enumerate(plans):
            sae = load_sae(sae_folder(run, group, plan.key))
            rows[plan.key] = list(recovered(sae, HookPoint(shard.key).layer, trials))
            context.sink.progress(i + 1, len(plans), "SAEs")
        write_json(context.folder / _ROWS, without_nan(rows))


def ceiling_table(run: Run) -> pl.DataFrame:
    """variable, direction, layer and the columns of `Score`."""
    frame = pl.DataFrame(_rows(run, CEILING)[CEILING], infer_schema_length=None)
    return frame.select("variable", "direction", "layer", *Score._fields)


def truth_table(run: Run, plans: Sequence[SAEPlan]) -> pl.DataFrame:
    """layer, key, architecture, variable, how the latents were chosen, and their scores."""
    rows = [
        {
            "layer": HookPoint(plan.hook_point).layer,
            "key": plan.key,
            "architecture": plan.architecture,
            **row,
        }
        for plan in plans
        if HookPoint(plan.hook_point).stream == "resid_post"
        for row in _rows(run, plan.hook_point)[plan.key]
    ]
    frame = pl.DataFrame(rows, infer_schema_length=None)
    return frame.select("layer", "key", "architecture", *FOUND_COLUMNS)


def _rows(run: Run, key: str) -> dict[str, list[dict[str, object]]]:
    return read_json(run.shard_folder(TRUTH, key) / _ROWS)
