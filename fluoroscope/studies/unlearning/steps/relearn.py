"""Whether what was forgotten comes back when a part of it is taught again (`relearn/`).

relearn/curves.parquet   a row a plan, number of steps, and part (taught again or not): accuracy
                         with its interval; of texts the perplexity of held-out ones
"""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from fluoroscope.core.sink import Sink
from fluoroscope.core.storage import write_parquet
from fluoroscope.interventions.replies.drift import drift_of
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import Cost, MapStep, Shard, ShardContext
from fluoroscope.steps.models import load_model
from fluoroscope.steps.subject import sae_inputs
from fluoroscope.studies.unlearning.clamping import Treatment
from fluoroscope.studies.unlearning.finetuning import FineTuner
from fluoroscope.studies.unlearning.plans import UnlearningConfig, plan_of, taught_again
from fluoroscope.studies.unlearning.relearning import NOT_TAUGHT, part_to_teach, relearn
from fluoroscope.studies.unlearning.steps.detect import DETECT
from fluoroscope.studies.unlearning.steps.evaluate import held_out_texts, moved_sums
from fluoroscope.studies.unlearning.steps.finetune import FINETUNE
from fluoroscope.studies.unlearning.steps.select import SELECT
from fluoroscope.studies.unlearning.steps.stored import load_asking, load_sets, reading_cost
from fluoroscope.studies.unlearning.steps.treated import load_treated
from fluoroscope.studies.unlearning.steps.tune import TUNE

RELEARN = "relearn"
CURVES = "curves.parquet"


class RelearnStep(MapStep):
    name = RELEARN

    def __init__(self, config: UnlearningConfig) -> None:
        self.config = config
        tuned = (FINETUNE,) if config.finetune else ()
        self.inputs = (*sae_inputs(config), SELECT, DETECT, TUNE, *tuned)

    def cost(self) -> Cost:
        training, n = self.config.relearn.training, len(taught_again(self.config))
        times = 5 * training.n_iterations * training.batch_size / 1200
        return reading_cost(self.config, n * (1 + times), n)

    def shards(self, run: Run) -> Sequence[Shard]:
        plans = taught_again(self.config)
        return [Shard(f"{k:02d}", {"plan": plan.name}) for k, plan in enumerate(plans)]

    def work(self, run: Run, shard: Shard, context: ShardContext) -> None:
        config, device, name = self.config, context.device, shard.params["plan"]
        model, treatment = load_treated(run, config, plan_of(config, name), device)
        sets, asking = load_sets(run, config, device), load_asking(run, config, device)
        training = config.relearn.training
        if sets.forget_samples and asking is not None:
            part = part_to_teach(
                sets.forget, sets.forget_samples, config.relearn.share, config.seed
            )
            found = relearn(model, part, asking, training, treatment, context.sink)
        else:
            untreated = load_model(run, config.model, device)
            found = self._texts(run, untreated, model, treatment, context)
        write_parquet(context.folder / CURVES, found.select(pl.lit(name).alias("plan"), pl.all()))

    def merge(self, run: Run, folder: Path, sink: Sink) -> None:
        parts = [pl.read_parquet(folder / "shards" / s.key / CURVES) for s in self.shards(run)]
        write_parquet(folder / CURVES, pl.concat(parts, how="vertical_relaxed"))

    def _texts(
        self,
        run: Run,
        untreated: LanguageModel,
        model: LanguageModel,
        treatment: Treatment,
        context: ShardContext,
    ) -> pl.DataFrame:
        """The perplexity of held-out texts to forget, while others of them are taught."""
        sets, config = load_sets(run, self.config, context.device), self.config.relearn
        part = part_to_teach(sets.forget, (), config.share, self.config.seed)
        plain = config.training.model_copy(update={"retain_weight": 0.0})
        tuner = FineTuner(model, part.passages, (), plain, treatment=treatment)
        texts = held_out_texts(sets, self.config.evaluate.n_texts, self.config.seed)["forget"]
        rows = []

        def look(done: int) -> None:
            found = drift_of(moved_sums(untreated, tuner.model, treatment, texts))
            value, low, high = found.perplexity_steered
            ends = {"perplexity_low": low, "perplexity_high": high}
            rows.append({"iteration": done, "of": NOT_TAUGHT, "perplexity": value, **ends})

        look(0)
        for iteration in range(tuner.n_iterations):
            tuner.advance(iteration, context.sink)
            done = iteration + 1
            if done % plain.validate_every == 0 or done == tuner.n_iterations:
                look(done)
            context.sink.progress(done, tuner.n_iterations, "steps")
        return pl.DataFrame(rows).with_columns(pl.col(pl.Float64).fill_nan(None))
