"""Sizes of SAE releases that are well known, so that a plan needs no network.

What is worked with is never taken from here: a run finds the files themselves, and their hashes.
"""

import re
from typing import NamedTuple

from fluoroscope.models.hook_points import parse_hook_points
from fluoroscope.steps.models import ModelConfig
from fluoroscope.steps.sae_places import HUB, SAEFormat
from fluoroscope.steps.sae_sources import SAEChoice, find_saes

_LLAMA_SCOPE = re.compile(r"fnlp/Llama3_1-8B-Base-LX([RAM])-(8|32)x")
_GEMMA_SCOPE = re.compile(r"google/gemma-scope-\w+-\w+-(res|mlp)(?:-canonical)?/width_(\d+)([km])")
_STREAMS = {
    "R": "resid_post", "A": "attn_out", "M": "mlp_out", "res": "resid_post", "mlp": "mlp_out",
}  # fmt: skip
_THOUSANDS = {"k": 1024, "m": 1024**2}


class _Release(NamedTuple):
    hook_points: str
    d_model: int
    d_sae: int


_SAELENS = {
    # The stream before each block of GPT-2 small, and behind the last.
    "jbloom/GPT2-Small-SAEs-Reformatted": _Release("all.resid_pre,11.resid_post", 768, 24576),
}


def find_or_sketch_saes(
    source: str | list[str],
    hook_points: str | list[str] | None,
    model: ModelConfig,
    *,
    is_sketch: bool,
) -> list[SAEChoice]:
    """As `find_saes`; to sketch a plan, SAEs of a well-known release need no files."""
    sketched = sketched_saes(source, hook_points, model) if is_sketch else None
    return find_saes(source, hook_points, model) if sketched is None else sketched


def sketched_saes(
    source: str | list[str], hook_points: str | list[str] | None, model: ModelConfig
) -> list[SAEChoice] | None:
    """SAEs with the sizes of what is named, to reckon with; None where the name is not known."""
    name = source if isinstance(source, str) else source[0] if len(source) == 1 else ""
    name = name.partition("@")[0].removeprefix(HUB)
    format_: SAEFormat
    if release := _SAELENS.get(name):
        format_, default, d_sae = "saelens", release.hook_points, release.d_sae
        if release.d_model != model.d_model:
            # Its files say what does not fit.
            return None
    elif match := _LLAMA_SCOPE.fullmatch(name):
        format_, default = "llama_scope", f"all.{_STREAMS[match[1]]}"
        d_sae = int(match[2]) * model.d_model
    elif match := _GEMMA_SCOPE.match(name):
        format_, default = "gemma_scope", f"all.{_STREAMS[match[1]]}"
        d_sae = int(match[2]) * _THOUSANDS[match[3]]
    else:
        return None
    return [
        SAEChoice(
            hook_point=str(point),
            format=format_,
            repository=name,
            weights_sha256="not looked up for a plan",
            d_model=model.d_model,
            d_sae=d_sae,
        )
        for point in parse_hook_points(hook_points or default, model.n_layers)
    ]
