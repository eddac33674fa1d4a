"""Takes the information on positions away from a network while it runs.

    with ablated_positions(model, "removed"):
        logits = model.forward(tokens)

What is changed is what the network is told of the place of a token:

                 learned positions            rotary positions
    removed      embeddings are zeros         queries and keys are not turned
    shuffled     rows of the table exchanged  angles exchanged

A shuffle is one permutation of the positions 0 to n - 1 of a row of n tokens, which depends on
the seed and on n alone (`shuffled_positions`). A window that is shorter than the table so keeps
its own set of embeddings or angles, and nothing comes from positions that the row does not reach;
the first position moves like any other. As the permutation of a row that grows would be another
one with each token, texts are generated with `n_positions`: then all rows share the permutation
of that many positions, a shorter row uses its beginning, and `n_positions=model.context_length`
exchanges the whole table.

Left as they are: causal masks and sliding windows, which tell something of the order too, and the
positions that edits go by. `model.identity` is that of the network as it was: whoever stores what
was read here says so.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from inspect import signature
from typing import Literal, get_args

import torch
from jaxtyping import Int
from torch import Tensor, nn
from transformers import PretrainedConfig

from fluoroscope.core.errors import ConfigError, ModelError
from fluoroscope.core.registry import nearest
from fluoroscope.core.seeding import torch_stream
from fluoroscope.models.families import Family
from fluoroscope.models.language_model import LanguageModel

PositionAblation = Literal["removed", "shuffled"]
POSITION_ABLATIONS: tuple[PositionAblation, ...] = get_args(PositionAblation)

PositionEncoding = Literal["learned", "rotary"]

_CAPTIONS: dict[tuple[PositionEncoding, PositionAblation], str] = {
    ("learned", "removed"): "position embeddings zeroed",
    ("learned", "shuffled"): "position embeddings shuffled",
    ("rotary", "removed"): "rotation removed",
    ("rotary", "shuffled"): "rotary positions shuffled",
}


@contextmanager
def ablated_positions(
    model: LanguageModel,
    kind: PositionAblation,
    *,
    seed: int = 0,
    n_positions: int | None = None,
) -> Iterator[None]:
    """Inside the `with` block the network does not know where in its row a token stands.

    It holds for every pass, hooked or not, padded or not; rows stay independent. `seed` and
    `n_positions` are those of a shuffle (see the top of this file). A `ModelError` where the
    model knows positions in another way (ALiBi, relative attention), or has slots.
    """
    _check_kind(kind)
    encoding = position_encoding(model)
    if n_positions is not None and not 1 <= n_positions <= model.context_length:
        raise ConfigError(
            f"n_positions must be 1 to {model.context_length}, the positions that {model.name} "
            f"has, or None for those of each row; got {n_positions}."
        )
    module = _position_module(model)
    if kind == "shuffled":
        first = model.family.position_offset(model.network.config)
        handle = _register(module, partial(_shuffled, first, seed, n_positions))
    elif encoding == "rotary":
        # Angles of position 0 turn nothing, and keep the scale that some rotations come with.
        handle = _register(module, _zeroed)
    else:
        handle = module.register_forward_hook(lambda *passed: _zeroed(passed[-1]))
    try:
        yield
    finally:
        handle.remove()


def shuffled_positions(n: int, seed: int) -> Int[Tensor, " n"]:
    """Which position each of the first `n` positions is taken for; every one appears once."""
    return torch.randperm(n, generator=torch_stream(seed, "positions", n))


def describe_ablation(model: LanguageModel | Family, kind: PositionAblation) -> str:
    """What `ablated_positions` does to this model, for captions: "rotation removed"."""
    _check_kind(kind)
    return _CAPTIONS[position_encoding(model), kind]


def position_encoding(model: LanguageModel | Family) -> PositionEncoding:
    """How the model is told of positions; a `ModelError` where that cannot be ablated.

    Of a family alone it is what its checkpoints have that can be ablated at all.
    """
    if isinstance(model, Family):
        family = model
        check_encoding(f"a model of the architecture {family.model_type!r}", family)
    else:
        model.check_positions_are_tokens("An ablation of positions")
        family = model.family
        check_encoding(model.name, family, model.network.config)
    return "rotary" if family.position_table is None else "learned"


def check_encoding(name: str, family: Family, config: PretrainedConfig | None = None) -> None:
    """Raises `ModelError` where positions cannot be taken away; needs no weights."""
    other = None if config is None else family.other_positions(config)
    if other is not None:
        raise ModelError(
            f"{name} tells positions by {other}, which can be neither removed nor shuffled. "
            "Ablate positions of a model whose positions are learned embeddings or rotary."
        )
    if family.position_table is None and family.rotation is None:
        raise ModelError(
            f"It is not known where {name} gets its positions from. Ablate positions of a model "
            "whose family states a position_table or a rotation (models/families.py)."
        )


def _check_kind(kind: str) -> None:
    if kind not in POSITION_ABLATIONS:
        raise ConfigError(
            f"Positions can be {' or '.join(POSITION_ABLATIONS)}, got {kind!r}."
            f"{nearest(kind, list(POSITION_ABLATIONS))}"
        )


def _position_module(model: LanguageModel) -> nn.Module:
    path = model.family.position_table or model.family.rotation
    assert path is not None
    return getattr(model.network, model.family.prefix, model.network).get_submodule(path)


def _zeroed(value: Tensor) -> Tensor:
    return torch.zeros_like(value)


def _register(
    module: nn.Module, move: Callable[[Tensor], Tensor]
) -> torch.utils.hooks.RemovableHandle:
    """Has `module` get the position ids that `move` makes of its own."""

    def on_input(module: nn.Module, arguments: tuple, keywords: dict) -> tuple[tuple, dict]:
        # Ids come by place or by name, and a plain table calls them its input.
        given = signature(module.forward).bind(*arguments, **keywords)
        name = "position_ids" if "position_ids" in given.arguments else "input"
        given.arguments[name] = move(given.arguments[name])
        return given.args, given.kwargs

    return module.register_forward_pre_hook(on_input, with_kwargs=True)


def _shuffled(
    first: int, seed: int, n_positions: int | None, ids: Int[Tensor, "batch pos"]
) -> Int[Tensor, "batch pos"]:
    """`ids` exchanged; those of a row run from `first` to its last token, whatever its padding."""
    own = ids - first
    lengths = own.amax(dim=1) + 1
    if n_positions is None:
        _check_whole(own)
    else:
        _check_room(int(lengths.max()), n_positions)
        lengths = torch.full_like(lengths, n_positions)
    moved = own.clone()
    for length in lengths.unique().tolist():
        rows = lengths == length
        order = shuffled_positions(length, seed).to(ids)
        moved[rows] = order[own[rows].clamp(min=0)]
    # Padding may have an id of its own, before the first position.
    return torch.where(own < 0, ids, moved + first)


def _check_whole(own: Int[Tensor, "batch pos"]) -> None:
    starts = own.clamp(min=0).amin(dim=1)
    if bool(starts.any()):
        raise ModelError(
            f"A pass goes on at position {int(starts.max())} of a row whose beginning was read "
            "before, and the permutation of a row that grows is not known yet. Give "
            "ablated_positions the n_positions that rows may have at most."
        )


def _check_room(n_reached: int, n_positions: int) -> None:
    if n_reached > n_positions:
        raise ModelError(
            f"A row has {n_reached} positions, and the shuffle is one of n_positions={n_positions}."
            " Give as many as the longest row has."
        )
