"""Identity of the main plan's latents (`cards/`): in which texts and tokens they are active.

cards/shards/all/cards.json   of each of the first latents: the tokens with the largest sum of
                              activations on texts to forget, in how many people's texts it is
                              active on either side, contexts, and tokens that it raises and lowers
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from fluoroscope.activations.capture import capture
from fluoroscope.activations.tiles import length_tiles
from fluoroscope.core.storage import write_json
from fluoroscope.features.examples import (
    LatentBatch,
    TokenEffects,
    TopContext,
    logit_effects,
    top_contexts,
)
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import Cost, MapStep, Shard, ShardContext
from fluoroscope.sae.base import SparseAutoencoder
from fluoroscope.steps.models import load_model
from fluoroscope.steps.subject import sae_inputs
from fluoroscope.studies.unlearning.plans import UnlearningConfig
from fluoroscope.studies.unlearning.sets import ForgetSets, Passage
from fluoroscope.studies.unlearning.statistics import counted, padded
from fluoroscope.studies.unlearning.steps.select import SELECT, chosen_rows, load_choices
from fluoroscope.studies.unlearning.steps.stored import (
    load_saes_by_point,
    load_sets,
    reading_cost,
)
from fluoroscope.studies.unlearning.steps.tune import TUNE, load_settings

CARDS = "cards"
CARDS_FILE = "cards.json"
N_CARDS, N_CONTEXTS, N_TOKENS, WIDTH = 12, 4, 6, 24
"""Latents with a card; contexts and tokens of each; tokens shown before the strongest."""

MOST_TEXTS = 512
"""Of each side, the first."""


class CardsStep(MapStep):
    name = CARDS

    def __init__(self, config: UnlearningConfig) -> None:
        self.config = config
        self.inputs = (*sae_inputs(config), SELECT, TUNE)

    def cost(self) -> Cost:
        return reading_cost(self.config, 1, 1)

    def shards(self, run: Run) -> Sequence[Shard]:
        return [Shard("all")]

    def work(self, run: Run, shard: Shard, context: ShardContext) -> None:
        model = load_model(run, self.config.model, context.device)
        saes = load_saes_by_point(run, self.config, context.device)
        sets = load_sets(run, self.config, context.device)
        rows = chosen_rows(load_choices(run), load_settings(run)[self.config.main])
        rows = rows.sort("rank", "hook_point").head(N_CARDS)
        by_point: dict[HookPoint, list[dict[str, Any]]] = {}  # Any: values of a table.
        for row in rows.iter_rows(named=True):
            by_point.setdefault(HookPoint(row["hook_point"]), []).append(row)
        cards = []
        for point, own in by_point.items():
            cards += _cards(model, saes[point], point, own, sets)
        write_json(context.folder / CARDS_FILE, cards)


def _cards(
    model: LanguageModel,
    sae: SparseAutoencoder,
    point: HookPoint,
    rows: Sequence[dict[str, Any]],  # Any: values of a table.
    sets: ForgetSets,
) -> list[dict[str, Any]]:  # Any: JSON values.
    latents = [row["latent"] for row in rows]
    forget, retain = _once(sets.forget), _once(sets.retain)
    contexts = top_contexts(
        sae, latents, _batches(model, point, [*forget, *retain]), N_CONTEXTS, WIDTH
    )
    fired, groups = _fired(model, sae, point, latents, forget)
    _, kept_groups = _fired(model, sae, point, latents, retain)
    directions = sae.W_dec[latents].detach()
    effects = [TokenEffects([], []) for _ in latents]
    if model.family.kind == "decoder":
        effects = logit_effects(model, directions)
    decode = model.tokenizer.decode
    return [
        {
            "hook_point": str(point),
            "latent": latent,
            "rank": row["rank"],
            "forget_frequency": row["forget_frequency"],
            "retain_frequency": row["retain_frequency"],
            "fires_on": [(str(decode([token])), total) for token, total in _largest(fired[place])],
            "forget_groups": len(groups[place]),
            "retain_groups": len(kept_groups[place]),
            "contexts": [_context(model, one) for one in contexts[latent]],
            **{
                name: [(str(decode([token])), value) for token, value in found]
                for name, found in effects[place]._asdict().items()
            },
        }
        for place, (latent, row) in enumerate(zip(latents, rows, strict=True))
    ]


def _largest(totals: dict[int, float]) -> list[tuple[int, float]]:
    return sorted(totals.items(), key=lambda one: (-one[1], one[0]))[:N_TOKENS]


def _context(model: LanguageModel, one: TopContext) -> dict[str, Any]:  # Any: JSON values.
    """Without the padding behind a text that was shorter than its neighbours."""
    n = len(one.tokens)
    while n > one.marked + 1 and one.tokens[n - 1] == model.pad_token_id:
        n -= 1
    return {
        "pieces": [str(model.tokenizer.decode([token])) for token in one.tokens[:n]],
        "activations": one.activations[:n],
        "marked": one.marked,
    }


def _once(passages: Sequence[Passage]) -> list[Passage]:
    return list({one.text: one for one in passages}.values())[:MOST_TEXTS]


def _batches(
    model: LanguageModel, point: HookPoint, passages: Sequence[Passage]
) -> Iterator[LatentBatch]:
    rows = [
        list(model.tokenizer(one.text)["input_ids"])[: model.context_length] for one in passages
    ]
    for tile in length_tiles([len(row) for row in rows], 4096):
        tokens, mask = padded(model, [rows[place] for place in tile])
        found = capture(model, tokens, [point], mask)[point]
        document = torch.tensor(list(tile))[:, None].expand_as(tokens)
        yield LatentBatch(tokens, document, found, counted(model, tokens, mask))


@torch.no_grad()
def _fired(
    model: LanguageModel,
    sae: SparseAutoencoder,
    point: HookPoint,
    latents: Sequence[int],
    passages: Sequence[Passage],
) -> tuple[list[dict[int, float]], list[set[str]]]:
    """Of each latent its activations summed by token, and the groups in whose texts it is."""
    columns = torch.tensor(list(latents), device=sae.W_dec.device)
    totals: list[dict[int, float]] = [{} for _ in latents]
    groups: list[set[str]] = [set() for _ in latents]
    for batch in _batches(model, point, passages):
        x = batch.activation.to(sae.W_dec.device, sae.W_dec.dtype)
        active = (sae.encode_latents(x, columns) * batch.encoded.to(x.device)[..., None]).cpu()
        for row, place, column in active.nonzero().tolist():
            token, own = int(batch.tokens[row, place]), totals[column]
            own[token] = own.get(token, 0.0) + float(active[row, place, column])
            groups[column].add(passages[int(batch.document[row, place])].group)
    return totals, groups
