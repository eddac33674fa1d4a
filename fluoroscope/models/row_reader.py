"""Runs a network over rows whose keys and values are kept: the one place that calls it so."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fluoroscope.core.errors import ModelError
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.models.passes import Pass
from fluoroscope.models.row_attention import following, row_attention
from fluoroscope.models.row_cache import Group, Layout, RowCache, Segment


class RowReader:
    """A decoder that reads new tokens behind those it has read; used inside `with`."""

    def __init__(self, model: LanguageModel) -> None:
        if model.family.kind != "decoder":
            raise ModelError(
                f"{model.name} is an {model.family.kind}: it does not generate text that goes on "
                "with another."
            )
        model.check_has_head()
        if getattr(model.network.config, "alibi", False):
            raise ModelError(
                f"{model.name} tells positions by ALiBi, which generation does not know yet. "
                "forward() reads it all the same."
            )
        self.model = model
        self.is_gathered = model.family.has_own_attention

    @contextmanager
    def open(self) -> Iterator["RowReader"]:
        """Inside the `with` block the network's attention reads rows."""
        replaced = nullcontext() if self.is_gathered else row_attention(self.model.network)
        with replaced:
            yield self

    def read(
        self,
        tokens: Int[Tensor, "rows new"],
        cache: RowCache,
        layout: Layout,
        a_pass: Pass,
    ) -> Float[Tensor, "rows vocab"]:
        """The logits behind the last of the new tokens, which are kept in `cache`."""
        inputs: dict[str, object] = {}
        if self.is_gathered:
            inputs["attention_mask"] = layout.every_seen()
        for intervention in self.model.interventions:
            intervention.begin(a_pass)
        offset = self.model.family.position_offset(self.model.network.config)
        with following(cache, layout, self.is_gathered):
            found = self.model.network(
                input_ids=tokens,
                position_ids=layout.positions + offset,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
                **inputs,
            )
        return found.logits[:, -1]


def group_rows(segments: Sequence[Segment | None], device: torch.device) -> list[Group]:
    """Which rows read which segment."""
    rows: dict[int, list[int]] = {}
    by_id: dict[int, Segment] = {}
    for row, segment in enumerate(segments):
        if segment is not None:
            by_id[id(segment)] = segment
            rows.setdefault(id(segment), []).append(row)
    if len(rows) == 1 and len(next(iter(rows.values()))) == len(segments):
        return [Group(next(iter(by_id.values())), slice(None))]
    return [Group(by_id[name], torch.tensor(found, device=device)) for name, found in rows.items()]
