"""Each action held at every token, where rewards cannot be enumerated (`statics/`).

statics/actions.parquet   a row an action: the mean worth of generated replies

So that the policy can stand beside the best action that never rests. It is chosen on the validation
side, where no policy is trained, from as many samples as `evaluate.texts`.
"""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from fluoroscope.core.errors import ConfigError
from fluoroscope.core.sink import Sink
from fluoroscope.core.storage import write_parquet
from fluoroscope.models.sampling import Sampling
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import Cost, MapStep, Shard, ShardContext
from fluoroscope.steps.models import load_model
from fluoroscope.steps.subject import sae_inputs
from fluoroscope.steps.task_cost import task_cost
from fluoroscope.steps.task_parts import check_within
from fluoroscope.studies.policy.candidates import NO_OP
from fluoroscope.studies.policy.config import BEST, PolicyConfig
from fluoroscope.studies.policy.steps.candidates import CANDIDATES, load_candidates
from fluoroscope.studies.policy.steps.rewards import load_data, nothing_varies
from fluoroscope.studies.policy.written import by_action, written

STATICS = "statics"
ACTIONS = "actions.parquet"
_REPLIES = 2
_PER_SHARD = 8


class StaticsStep(MapStep):
    name = STATICS

    def __init__(self, config: PolicyConfig) -> None:
        self.config = config
        self.inputs = (*sae_inputs(config), CANDIDATES)

    def cost(self) -> Cost:
        config = self.config
        n = 1 + config.candidates.n * len(config.candidates.multiples)
        return task_cost(config, config.task, _REPLIES * n, samples=config.evaluate.texts)

    def shards(self, run: Run) -> Sequence[Shard]:
        for samples in load_data(run, self.config, self.config.task.name).sides.values():
            check_within(samples, self.config.evaluate.within)
        n = load_candidates(run, self.config, BEST, "cpu").n_actions
        return [
            Shard(f"{start:04d}", {"from": start, "to": min(start + _PER_SHARD, n)})
            for start in range(0, n, _PER_SHARD)
        ]

    def work(self, run: Run, shard: Shard, context: ShardContext) -> None:
        config = self.config
        model = load_model(run, config.model, context.device)
        data = load_data(run, config, config.task.name, context.device)
        candidates = load_candidates(run, config, BEST, context.device)
        samples = data.sides["validation"][: config.evaluate.texts]
        frames = []
        for action in range(shard.params["from"], shard.params["to"]):
            frame = written(
                model,
                by_action(model, candidates, action),
                samples,
                data.asking,
                Sampling(**config.learn.sampling.model_dump()),
                _REPLIES,
                config.seed,
                config.towards,
            )
            frames.append(frame.with_columns(action=pl.lit(action)))
        write_parquet(context.folder / ACTIONS, pl.concat(frames))

    def merge(self, run: Run, folder: Path, sink: Sink) -> None:
        files = [folder / "shards" / shard.key / ACTIONS for shard in self.shards(run)]
        replies = pl.concat([pl.read_parquet(file) for file in files])
        if replies["worth"].min() == replies["worth"].max():
            raise ConfigError(
                nothing_varies(
                    run, self.config, f"in {len(replies)} replies to the validation side"
                )
            )
        means = replies.group_by("action", maintain_order=True).agg(
            pl.len().alias("replies"),
            pl.col("worth").mean(),
            pl.col("score").mean(),
            pl.col("n_acted").mean(),
        )
        write_parquet(folder / ACTIONS, means)


def best_static_of_texts(run: Run, price: float) -> int:
    """The action whose mean worth is largest, once its price is paid."""
    found = pl.read_parquet(run.step_folder(STATICS) / ACTIONS)
    paid = found.with_columns(left=pl.col("worth") - price * pl.col("n_acted"))
    best = paid.sort("left", "action", descending=[True, False])
    return int(best["action"][0]) if len(best) else NO_OP
