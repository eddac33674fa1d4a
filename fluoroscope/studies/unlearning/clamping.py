"""Negative clamping: a latent that is active is set to -strength, and the error term is kept.

Setting latents to 0 leaves what they say in place to be read by what is left of it; setting them
to a negative value does not (Farrell et al., arXiv:2410.19278). Where a latent is not active
nothing is changed, and neither is the token before the text. As an edit of x, with a latent's
pre-activation p and threshold t,

    x - (f(x) + strength) 1[p > t] W_dec  =  x - act(p + strength) W_dec

where act passes what exceeds t + strength: one term of the fast table.

A `Treatment` is what is done to a model to make it forget: the same edits for every text, or for
those alone that a detector flags (Khoriaty et al., arXiv:2503.11127; DSG, arXiv:2504.08192). The
prompt decides, before anything is edited, so all of a row is edited or nothing of it is.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fluoroscope.core.errors import InterventionError
from fluoroscope.interventions.edits import Term, check_number
from fluoroscope.interventions.positions import ALL, Positions, after
from fluoroscope.interventions.row_edits import EditSet, row_edits
from fluoroscope.interventions.term_table import Placed
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.sae.base import SparseAutoencoder
from fluoroscope.sae.latent_edits import LatentEdit, latents_of
from fluoroscope.studies.unlearning.detecting import Detector
from fluoroscope.studies.unlearning.statistics import SAEs


class ClampActive(LatentEdit):
    """Sets latents to -strength wherever they are active."""

    def __init__(
        self, sae: SparseAutoencoder, latent: int | Sequence[int], strength: float
    ) -> None:
        check_number(strength, "The strength of ClampActive")
        if strength < 0:
            raise InterventionError(
                f"The strength of ClampActive is what is below 0, got {strength}; 20 sets latents "
                "to -20."
            )
        self.sae, self.latents, self.strength = sae, latents_of(sae, latent), float(strength)

    def amounts(self) -> tuple[Sequence[float], Sequence[float]]:
        return [0.0] * len(self.latents), [-1.0] * len(self.latents)

    @property
    def key(self) -> Hashable:
        return ("clamp", id(self.sae), self.latents, self.strength)

    def terms(self) -> Sequence[Term]:
        # Bias and threshold shifted alike: active where it was, and larger by the strength.
        return [
            replace(term, bias=term.bias + self.strength, threshold=term.threshold + self.strength)
            for term in super().terms()
        ]

    def change(self, x: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n d_model"]:
        own = x.to(self.sae.W_dec.dtype)
        latents = self.sae.encode_latents(own, torch.tensor(self.latents, device=x.device))
        write = torch.stack([direction for direction, _ in self.written()]).to(own)
        return (-torch.where(latents > 0, latents + self.strength, 0) @ write).to(x.dtype)


def behind_start(model: LanguageModel) -> Positions:
    """Everywhere but at the token that the tokenizer puts before a text."""
    first = list(model.tokenizer("a")["input_ids"])[:1]
    if model.bos_token_id is None or first != [model.bos_token_id]:
        return ALL
    name = model.tokenizer.convert_ids_to_tokens(first)[0]
    assert isinstance(name, str)
    return after(name)


@dataclass(frozen=True, eq=False)
class Treatment:
    """What is done to a model: nothing, the same for every text, or for flagged texts."""

    edits: EditSet
    detector: Detector | None = None

    def flags(self, model: LanguageModel, prompts: Sequence[str]) -> Bool[np.ndarray, " texts"]:
        """Which prompts are treated; read from the model as it is without the edits."""
        if self.detector is None:
            return np.full(len(prompts), bool(self.edits))
        return self.detector.flags(model, prompts)

    @contextmanager
    def rows(self, model: LanguageModel, prompts: Sequence[str]) -> Iterator[None]:
        """Inside the `with` block row i of a pass is treated as its prompt asks for."""
        flags = self.flags(model, prompts)
        if not flags.any():
            yield
            return
        with row_edits(model, [self.edits if is_so else {} for is_so in flags]):
            yield


UNTREATED = Treatment({})


def clamp_edits(
    model: LanguageModel,
    saes: SAEs,
    latents: Mapping[HookPoint, Sequence[int]],
    strength: float,
) -> dict[HookPoint | str, Placed]:
    """Clamps these latents of each hook point, at all positions of the text and of the reply."""
    if not latents:
        raise InterventionError("No latent is given to be clamped; name at least one.")
    if missing := sorted(str(point) for point in latents if point not in saes):
        raise InterventionError(
            f"There is no SAE of {', '.join(missing)}, whose latents are to be clamped; there are "
            f"those of {', '.join(map(str, saes))}."
        )
    where = behind_start(model)
    return {
        point: Placed(ClampActive(saes[point], some, strength), where)
        for point, some in latents.items()
    }
