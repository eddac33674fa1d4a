"""Settings of each way to clamp, searched on what was learnt from (`tune/`).

tune/tried.parquet   a row a setting and kind: accuracies or perplexities, what is left, what is
                     lost; `is_chosen`
tune/chosen.json     by kind and selection the settings that it is judged with
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from fluoroscope.core.sink import Sink
from fluoroscope.core.storage import read_json, write_json, write_parquet
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import Cost, MapStep, Shard, ShardContext
from fluoroscope.steps.models import load_model
from fluoroscope.steps.subject import sae_inputs
from fluoroscope.studies.unlearning.clamping import clamp_edits
from fluoroscope.studies.unlearning.detecting import Detector, ShareDetector
from fluoroscope.studies.unlearning.plans import KINDS, UnlearningConfig, Where
from fluoroscope.studies.unlearning.steps.detect import DETECT, load_detector
from fluoroscope.studies.unlearning.steps.select import SELECT, chosen_latents, load_choices
from fluoroscope.studies.unlearning.steps.stored import (
    load_ground,
    load_saes_by_point,
    load_sets,
    reading_cost,
)
from fluoroscope.studies.unlearning.trials import Flags, Judged, best

TUNE = "tune"
TRIED, CHOSEN = "tried.parquet", "chosen.json"
_SETTINGS = ("selection", "threshold", "hook_points", "n", "strength")


class TuneStep(MapStep):
    name = TUNE

    def __init__(self, config: UnlearningConfig) -> None:
        self.config = config
        self.inputs = (*sae_inputs(config), SELECT, DETECT)

    def cost(self) -> Cost:
        select, clamp = self.config.select, self.config.clamp
        shards = len(self.shard_settings())
        times = shards * len(select.n) * (0.3 * len(clamp.strengths) + 1)
        return reading_cost(self.config, times, shards)

    def shard_settings(self) -> list[dict[str, Any]]:  # Any: JSON values.
        return [
            {"selection": selection, "threshold": float(threshold), "hook_points": points}
            for selection in self.config.select.by
            for threshold in self.config.thresholds(selection)
            for points in self.config.clamped_at
        ]

    def shards(self, run: Run) -> Sequence[Shard]:
        # At some hook points nothing may have been chosen by a rule.
        choices = load_choices(run)
        able = [
            one
            for one in self.shard_settings()
            if chosen_latents(choices, {**one, "n": max(self.config.select.n)})
        ]
        return [Shard(f"{number:03d}", one) for number, one in enumerate(able)]

    def work(self, run: Run, shard: Shard, context: ShardContext) -> None:
        config, ground = self.config, load_ground(run, self.config, context.device)
        saes = load_saes_by_point(run, config, context.device)
        learned = run.cached(
            (TUNE, "flags", context.device),
            lambda: self._flags(run, load_detector(run, config, context.device)),
        )
        rows, n_tried = [], 0
        n_all = len(config.select.n) * len(config.clamp.strengths)
        for n in config.select.n:
            settings = {**shard.params, "n": n}
            latents = chosen_latents(load_choices(run), settings)
            share = load_share_detector(run, config, latents, context.device)
            flags: dict[Where, Flags] = {
                "learned": learned,
                "share": self._flags(run, share),
                "every text": ground.everything,
            }
            for strength in config.clamp.strengths:
                edits = clamp_edits(ground.model, saes, latents, strength)
                found = ground.outcome(ground.model, edits)
                for kind, where in KINDS.items():
                    judged = ground.judged(found.where(flags[where], ground.untreated))
                    flagged = [float(np.mean(one)) if len(one) else None for one in flags[where]]
                    own = {
                        **settings,
                        "strength": strength,
                        "tau": share.threshold if where == "share" else None,
                        "forget_flagged": flagged[0] if flagged[0] is not None else flagged[2],
                        "retain_flagged": flagged[1] if flagged[1] is not None else flagged[3],
                    }
                    rows.append({"kind": kind, **own, **judged._asdict()})
                n_tried += 1
                context.sink.progress(n_tried, n_all, "settings")
        write_json(context.folder / CHOSEN, rows)

    def merge(self, run: Run, folder: Path, sink: Sink) -> None:
        rows: list[dict[str, Any]] = []  # Any: JSON values.
        for shard in self.shards(run):
            rows += read_json(folder / "shards" / shard.key / CHOSEN)
        margin, chosen = self.config.clamp.margin, {}
        for kind in KINDS:
            for selection in self.config.select.by:
                own = [r for r in rows if (r["kind"], r["selection"]) == (kind, selection)]
                # Of equal ones what changes least.
                own.sort(key=lambda row: (row["strength"], row["n"] * len(row["hook_points"])))
                judged = [Judged(*(row[name] for name in Judged._fields)) for row in own]
                row = own[best(judged, margin)]
                row["is_chosen"] = True
                chosen[f"{kind}-{selection}"] = {
                    **{name: row[name] for name in _SETTINGS},
                    "left": row["left"],
                    "lost": row["lost"],
                    "is_within": row["lost"] <= margin + 1e-9,
                }
        write_json(folder / CHOSEN, chosen)
        plain = [
            {**row, "hook_points": " ".join(row["hook_points"]), "is_chosen": "is_chosen" in row}
            for row in rows
        ]
        write_parquet(folder / TRIED, pl.DataFrame(plain, infer_schema_length=None))

    def _flags(self, run: Run, detector: Detector) -> Flags:
        device = str(next(iter(detector.saes.values())).W_dec.device)
        ground = load_ground(run, self.config, device)
        sides = ground.prompts()
        return Flags(
            *(
                detector.flags(ground.model, one) if one else np.empty(0, dtype=bool)
                for one in sides
            )
        )


def load_share_detector(
    run: Run, config: UnlearningConfig, latents: Mapping[HookPoint, tuple[int, ...]], device: str
) -> ShareDetector:
    """DSG's detector of these latents, fitted on the texts that were learnt from."""

    def load() -> ShareDetector:
        model = load_model(run, config.model, device)
        saes = load_saes_by_point(run, config, device)
        sets = load_sets(run, config, device)
        return ShareDetector.fit(model, saes, sets, latents, config.clamp.percentile)

    key = tuple((str(point), several) for point, several in latents.items())
    return run.cached((TUNE, "share detector", device, key), load)


def load_settings(run: Run) -> dict[str, dict[str, Any]]:  # Any: JSON values.
    """By kind and selection what was chosen."""
    return read_json(run.step_folder(TUNE) / CHOSEN)
