"""What a report shows of single things, which needs the model once more (`strips/`).

strips/shards/all/tokens.parquet   a row a token of a shown test sample and a part of the main
                                   plan: how strong the part is there, unsteered
strips/shards/all/cards.json       of each latent of the main plan the tokens that it raises and
                                   lowers, and the training samples in which it is most active
strips/shards/all/tasks.json       of each task its kind, samples a side, what was left out, and
                                   how good its judge is

Texts are the prompt with the unsteered reply behind it.
Axes: d_model, tokens of a text.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch
from jaxtyping import Float

from fluoroscope.activations.capture import capture
from fluoroscope.core.storage import write_json, write_parquet
from fluoroscope.data.tasks.emgsd import JudgedScorer
from fluoroscope.features.correlation_pooling import Pooling
from fluoroscope.features.examples import TokenEffects, logit_effects
from fluoroscope.features.reply_latents import load_rows
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import Cost, MapStep, Shard, ShardContext
from fluoroscope.sae.base import SparseAutoencoder
from fluoroscope.steps.collect import COLLECT, LATENTS, REPLIES
from fluoroscope.steps.models import load_model
from fluoroscope.steps.subject import load_layers, sae_inputs
from fluoroscope.steps.task_cost import task_cost
from fluoroscope.steps.task_data import TaskData
from fluoroscope.studies.steering.config import SteeringConfig
from fluoroscope.studies.steering.plans import Part
from fluoroscope.studies.steering.shown_samples import choose_samples
from fluoroscope.studies.steering.steps.evaluate import EVALUATE, UNSTEERED, EvaluateStep
from fluoroscope.studies.steering.steps.evaluate import REPLIES as JUDGED
from fluoroscope.studies.steering.steps.select import SELECT, load_plans
from fluoroscope.studies.steering.steps.tune import TUNE

STRIPS = "strips"
TOKENS, CARDS, TASK_FACTS = "tokens.parquet", "cards.json", "tasks.json"
N_PARTS = 3
"""Parts of the plan that are read along a text, those whose r is largest."""

N_CARDS, N_CONTEXTS, WIDTH = 32, 4, 24
"""Latents with a card; training samples on each; tokens shown before the strongest."""


class StripsStep(MapStep):
    name = STRIPS

    def __init__(self, config: SteeringConfig) -> None:
        self.config = config
        self.inputs = (*sae_inputs(config), COLLECT, SELECT, TUNE, EVALUATE)

    def cost(self) -> Cost:
        return task_cost(self.config, self.config.task, 1, samples=12 + N_CARDS * N_CONTEXTS)

    def shards(self, run: Run) -> Sequence[Shard]:
        return [Shard("all")]

    def work(self, run: Run, shard: Shard, context: ShardContext) -> None:
        config = self.config
        model = load_model(run, config.model, context.device)
        saes = load_layers(run, config, context.device, model.identity)
        parts = load_plans(run, config)[config.main.name].parts
        evaluate = EvaluateStep(config)
        before, after = read_pair(run, config)
        ids = [
            one for chosen in choose_samples(before, after, config.seed).values() for one in chosen
        ]
        shown = before.filter(pl.col("id").is_in(ids))
        write_parquet(context.folder / TOKENS, _strips(model, saes, strongest(parts), shown))
        cards = [_card(run, config, model, saes, part) for part in parts[:N_CARDS] if is_read(part)]
        write_json(context.folder / CARDS, cards)
        facts = {
            name: task_facts(evaluate.data(run, name, context.device)) for name in evaluate.tasks
        }
        write_json(context.folder / TASK_FACTS, facts)


def read_pair(run: Run, config: SteeringConfig) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The replies to the task's test side: unsteered, and of the main recipe."""
    replies = pl.read_parquet(run.step_folder(EVALUATE) / JUDGED)
    own = replies.filter((pl.col("task") == config.task.name) & ~pl.col("is_swept"))
    return own.filter(pl.col("recipe") == UNSTEERED), own.filter(
        pl.col("recipe") == config.main.name
    )


def part_name(part: Part) -> str:
    what = "direction" if part.latent is None else f"latent {part.latent}"
    return f"{what} at {part.point}"


def strongest(parts: Sequence[Part], n: int = N_PARTS) -> list[Part]:
    """Those with the largest |r|; of parts without one, those that add most."""

    def size(part: Part) -> tuple[float, float]:
        added = abs(part.coefficient) * float(part.direction.norm())
        return abs(part.facts.get("r") or 0.0), added

    return sorted(parts, key=size, reverse=True)[:n]


def is_read(part: Part) -> bool:
    """Whether it is one of an SAE's latents, of which there is a card."""
    return part.latent is not None


def task_facts(data: TaskData) -> dict[str, Any]:  # Any: JSON values.
    scorer = data.asking.scorer
    return {
        "kind": data.task.kind,
        "way": data.asking.way,
        "samples": {side: len(samples) for side, samples in data.sides.items()},
        "groups": {
            side: len({one.group_id for one in samples}) for side, samples in data.sides.items()
        },
        "left_out": dict(sorted(Counter(one.reason for one in data.left_out).items())),
        "judge": scorer.judge.record.describe() if isinstance(scorer, JudgedScorer) else "",
    }


class _Read(NamedTuple):
    """A text as tokens, and how strong each part is at each of them."""

    pieces: list[str]
    n_prompt: int
    """Tokens that the reply is no part of."""

    values: dict[str, Float[np.ndarray, " tokens"]]
    """By the names of parts."""


def _read(
    model: LanguageModel,
    saes: Mapping[str, SparseAutoencoder],
    parts: Sequence[Part],
    prompt: str,
    reply: str,
) -> _Read:
    text = prompt + reply
    found = model.tokenizer(text, return_offsets_mapping=True)
    tokens = [int(token) for token in found["input_ids"]][: model.context_length]
    ends = [int(end) for _, end in found["offset_mapping"]][: len(tokens)]
    # A special token stands for no characters.
    starts = [0, *ends]
    pieces = [text[a:b] or "\u00b7" for a, b in zip(starts, ends, strict=False)]
    n_prompt = sum(end <= len(prompt) for end in ends)
    points = sorted({part.point for part in parts})
    cache = capture(model, torch.tensor([tokens]), points) if points else {}
    values = {part_name(part): _values(cache[part.point][0], part, saes) for part in parts}
    return _Read(pieces, n_prompt, values)


@torch.no_grad()
def _values(
    x: Float[torch.Tensor, "tokens d_model"], part: Part, saes: Mapping[str, SparseAutoencoder]
) -> Float[np.ndarray, " tokens"]:
    """The latent's activation, or the component along the direction, up to where it is steered."""
    if part.latent is None:
        along = x.float() @ part.direction.to(x.device).float()
        signed = along if part.coefficient > 0 else -along
        return signed.double().cpu().numpy() + 0.0
    sae = saes[str(part.point)]
    column = torch.tensor([part.latent], device=sae.W_dec.device)
    found = sae.encode_latents(x.to(sae.W_dec.device, sae.W_dec.dtype)[None], column)
    # A latent that is off is 0, and not minus 0.
    return found[0, :, 0].double().cpu().numpy() + 0.0


def _strips(
    model: LanguageModel,
    saes: Mapping[str, SparseAutoencoder],
    parts: Sequence[Part],
    shown: pl.DataFrame,
) -> pl.DataFrame:
    rows = []
    for sample in shown.iter_rows(named=True):
        read = _read(model, saes, parts, sample["prompt"], sample["text"])
        rows += [
            (sample["id"], place, piece, place >= read.n_prompt, name, float(values[place]))
            for name, values in read.values.items()
            for place, piece in enumerate(read.pieces)
        ]
    schema = {
        "id": pl.String,
        "place": pl.Int64,
        "piece": pl.String,
        "is_reply": pl.Boolean,
        "part": pl.String,
        "activation": pl.Float64,
    }
    return pl.DataFrame(rows, schema=schema, orient="row")


def _card(
    run: Run,
    config: SteeringConfig,
    model: LanguageModel,
    saes: Mapping[str, SparseAutoencoder],
    part: Part,
) -> dict[str, Any]:  # Any: JSON values.
    assert part.latent is not None
    contexts = []
    for sample, pooled in most_active(run, config, part):
        read = _read(model, saes, [part], sample["prompt"], sample["text"])
        values = read.values[part_name(part)]
        marked = _pooled_place(values, max(0, read.n_prompt - 1), pooled, config.main.pool)
        window = slice(max(0, marked - WIDTH), marked + WIDTH // 2 + 1)
        contexts.append(
            {
                "pieces": read.pieces[window],
                "activations": values[window].tolist(),
                "marked": marked - window.start,
                "pooled": pooled,
                "score": sample["score"],
            }
        )
    effects = TokenEffects([], [])
    if model.family.kind == "decoder":
        effects = logit_effects(model, part.direction[None])[0]
    spelt = {
        name: [(str(model.tokenizer.decode([token])), value) for token, value in found]
        for name, found in effects._asdict().items()
    }
    return {"hook_point": str(part.point), "latent": part.latent, "contexts": contexts, **spelt}


def _pooled_place(
    values: Float[np.ndarray, " tokens"], first: int, pooled: float, pool: Pooling
) -> int:
    """Where what was pooled is from: of the states that draw a token, from the prompt's last on."""
    drawing = values[first:-1] if first + 1 < len(values) else values[first:]
    place = drawing.argmax() if pool == "mean" else np.abs(drawing - pooled).argmin()
    return first + int(place)


def most_active(
    run: Run, config: SteeringConfig, part: Part, n: int = N_CONTEXTS
) -> list[tuple[dict[str, Any], float]]:  # Any: values of a table.
    """The training samples in which the pooled latent is largest, one of a group."""
    folder, point = run.step_folder(COLLECT), str(part.point)
    width = dict(zip(map(str, config.points), config.widths, strict=True))[point]
    columns = [
        load_rows(shard / LATENTS, point, config.main.pool, width)[:, [part.latent]]
        for shard in sorted((folder / "shards").iterdir())
    ]
    pooled = np.concatenate([column.toarray().ravel() for column in columns])
    replies = pl.read_parquet(folder / REPLIES).with_columns(pooled=pl.Series(pooled))
    active = replies.with_row_index("row").filter(pl.col("pooled") > 0)
    best = (
        active.sort("pooled", "row", descending=[True, False])
        .unique("group", keep="first", maintain_order=True)
        .head(n)
    )
    return [(row, row["pooled"]) for row in best.iter_rows(named=True)]
