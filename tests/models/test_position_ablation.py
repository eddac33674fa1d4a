"""What must hold for every family whose positions can be ablated, and what is said of the rest."""

import copy
from collections.abc import Iterable, Sequence

import pytest
import torch
from torch import Tensor, nn

from fluoroscope.core.errors import ConfigError, ModelError
from fluoroscope.models import position_ablation
from fluoroscope.models.families import FAMILIES, Family
from fluoroscope.models.generation import Request, generate
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.models.position_ablation import (
    POSITION_ABLATIONS,
    ablated_positions,
    describe_ablation,
    position_encoding,
    shuffled_positions,
)
from fluoroscope.models.sampling import Sampling
from fluoroscope.models.tiny import tiny_model

ABSOLUTE: dict[str, object] = {"relative_attention": False, "pos_att_type": []}
CHANGES: dict[str, dict[str, object]] = {"deberta": ABSOLUTE, "deberta-v2": ABSOLUTE}
# Rotations that scale what they turn: by more than 1, so that leaving the scale out would show.
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0, 1.5],
    "long_factor": [2.0, 3.0],
}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0}
VARIANTS: dict[str, tuple[str, dict[str, object]]] = {
    **{family: (family, CHANGES.get(family, {})) for family in FAMILIES},
    "roberta pad 1": ("roberta", {"pad_token_id": 1, "bos_token_id": 0}),
    "opt 350m": ("opt", {"do_layer_norm_before": False, "word_embed_proj_dim": 8}),
    "phi3 longrope": (
        "phi3",
        {"rope_parameters": LONGROPE, "original_max_position_embeddings": 16},
    ),
    "llama yarn": ("llama", {"rope_parameters": YARN}),
}
LEARNED = {"gpt2", "opt", "bert", "roberta", "electra", "albert", "deberta", "deberta-v2"}
CLOSE = {"rtol": 0, "atol": 1e-9}


# One of each kind in every run, all of them in the slow ones.
OFTEN = ("gpt2", "opt", "bert", "llama", "gemma3_text", "gpt_neox", "falcon", "phi3 longrope")


def _slow_but(often: Sequence[str], names: Iterable[str]) -> list[object]:
    return [name if name in often else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.fixture(params=_slow_but(OFTEN, VARIANTS), scope="module")
def model(request: pytest.FixtureRequest) -> LanguageModel:
    return made(*VARIANTS[request.param])


def made(family: str, changes: dict[str, object]) -> LanguageModel:
    model = tiny_model(family, **changes)
    model.network.double()
    return model


@pytest.fixture(scope="module")
def tokens() -> Tensor:
    return torch.randint(4, 260, (3, 11), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def logits(model: LanguageModel, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
    return model.forward(tokens, mask)


def ablated(model: LanguageModel, kind, tokens: Tensor, mask: Tensor | None = None, **how):
    with ablated_positions(model, kind, **how):
        return logits(model, tokens, mask)


def padded(tokens: Tensor, lengths: list[int], side: str) -> tuple[Tensor, Tensor]:
    width = tokens.shape[1]
    mask = torch.zeros_like(tokens)
    rectangle = torch.zeros_like(tokens)
    for row, n in enumerate(lengths):
        place = slice(width - n, width) if side == "left" else slice(0, n)
        rectangle[row, place], mask[row, place] = tokens[row, :n], 1
    return rectangle, mask


def a_copy(model: LanguageModel) -> tuple[LanguageModel, nn.Module]:
    """The model again, and the part of it that knows positions, found without the family."""
    network = copy.deepcopy(model.network)
    names = ("wpe", "embed_positions", "position_embeddings", "rotary_emb")
    (part,) = (m for name, m in network.named_modules() if name.split(".")[-1] in names)
    return LanguageModel.from_network(network, model.tokenizer, name="copy"), part


def reordered(part: nn.Module, first: int, order: Tensor) -> None:
    """Exchanges, by hand, what the first positions of a table or a rotation get."""
    if isinstance(part, nn.Embedding):
        first = getattr(part, "offset", first)
        rows = part.weight.data[first : first + len(order)]
        rows.copy_(rows[order].clone())
    else:
        swap = lambda _, __, angles: tuple(part[:, order] for part in angles)  # noqa: E731
        part.register_forward_hook(swap)


# --- what the two ablations are ---


def test_removed_positions_are_a_table_of_zeros_or_frequencies_of_zero(model, tokens):
    zeroed, part = a_copy(model)
    for name, value in [*part.named_parameters(), *part.named_buffers()]:
        assert name == "weight" or "inv_freq" in name
        value.data.zero_()
    expected = logits(zeroed, tokens)
    torch.testing.assert_close(ablated(model, "removed", tokens), expected, **CLOSE)
    assert (expected - logits(model, tokens)).abs().max() > 1e-4


def test_shuffled_positions_are_rows_or_angles_that_were_exchanged(model, tokens):
    shuffled, part = a_copy(model)
    first = model.family.position_offset(model.network.config)
    reordered(part, first, shuffled_positions(tokens.shape[1], seed=5))
    expected = logits(shuffled, tokens)
    torch.testing.assert_close(ablated(model, "shuffled", tokens, seed=5), expected, **CLOSE)
    assert (expected - logits(model, tokens)).abs().max() > 1e-4


def test_the_shuffle_that_moves_nothing_changes_no_bit(model, tokens, monkeypatch):
    monkeypatch.setattr(position_ablation, "shuffled_positions", lambda n, _: torch.arange(n))
    assert torch.equal(ablated(model, "shuffled", tokens), logits(model, tokens))


def test_a_shuffle_depends_on_its_seed_alone(model, tokens):
    first, again, other = (ablated(model, "shuffled", tokens, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert (first - other).abs().max() > 1e-4


def test_the_permutations_are_whole_and_differ_between_seeds_and_lengths():
    drawn = {(n, seed): shuffled_positions(n, seed) for n in (1, 7, 40) for seed in range(3)}
    for (n, _), order in drawn.items():
        assert sorted(order.tolist()) == list(range(n))
    assert len({tuple(order.tolist()) for (n, _), order in drawn.items() if n > 1}) == 6


# Without windows and masks nothing else tells positions apart.
WIDE: dict[str, dict[str, object]] = {
    "mistral": {"sliding_window": 64},
    "gemma2": {"sliding_window": 64},
    "gemma3_text": {"sliding_window": 64},
    "modernbert": {"local_attention": 128},
}


@pytest.mark.parametrize("family", _slow_but(OFTEN, FAMILIES))
def test_without_positions_the_order_of_what_is_seen_makes_no_difference(family, tokens):
    changes = {**CHANGES.get(family, {}), **WIDE.get(family, {})}
    is_encoder = FAMILIES[family].kind == "encoder"
    # Deeper decoders know the order still: each token is a sum of those before it.
    model = made(family, changes if is_encoder else {**changes, "num_hidden_layers": 1})
    order = torch.tensor([3, 0, 9, 1, 7, 2, 8, 4, 6, 5, 10])
    kept = slice(None) if is_encoder else slice(-1, None)
    clean, mixed = logits(model, tokens)[:, order], logits(model, tokens[:, order])
    assert (clean - mixed)[:, kept].abs().max() > 1e-4
    clean = ablated(model, "removed", tokens)[:, order]
    mixed = ablated(model, "removed", tokens[:, order])
    torch.testing.assert_close(clean[:, kept], mixed[:, kept], **CLOSE)


# --- rows, padding, hooks ---


@pytest.mark.parametrize("kind", POSITION_ABLATIONS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_and_batch_mates_change_no_row(model, tokens, kind, side):
    lengths = [11, 7, 4]
    batch, mask = padded(tokens, lengths, side)
    together = ablated(model, kind, batch, mask)
    for row, n in enumerate(lengths):
        alone = ablated(model, kind, tokens[row : row + 1, :n])
        torch.testing.assert_close(together[row, mask[row].bool()], alone[0], **CLOSE)


def test_with_a_number_of_positions_rows_of_every_length_share_one_permutation(model, tokens):
    how = {"seed": 2, "n_positions": 11}
    whole = ablated(model, "shuffled", tokens, **how)
    assert torch.equal(whole, ablated(model, "shuffled", tokens, seed=2))
    alone = [ablated(model, "shuffled", tokens[row : row + 1, :7], **how) for row in range(3)]
    # A decoder that reads less of a text says the same of it.
    if model.family.kind == "decoder":
        torch.testing.assert_close(torch.cat(alone), whole[:, :7], **CLOSE)
    for side in ("left", "right"):
        batch, mask = padded(tokens, [7, 11, 4], side)
        together = ablated(model, "shuffled", batch, mask, **how)
        torch.testing.assert_close(together[0, mask[0].bool()], alone[0][0], **CLOSE)
        torch.testing.assert_close(together[1], whole[1], **CLOSE)


@pytest.mark.parametrize("family", sorted(LEARNED))
def test_with_all_positions_the_whole_table_is_exchanged(family, tokens):
    model = made(family, CHANGES.get(family, {}))
    shuffled, part = a_copy(model)
    first, n = model.family.position_offset(model.network.config), model.context_length
    reordered(part, first, shuffled_positions(n, seed=3))
    found = ablated(model, "shuffled", tokens, seed=3, n_positions=n)
    torch.testing.assert_close(found, logits(shuffled, tokens), **CLOSE)


@pytest.mark.parametrize("kind", POSITION_ABLATIONS)
def test_an_ablation_holds_inside_and_outside_of_hooks_and_for_passes_that_end_early(
    model, tokens, kind
):
    seen: list[Tensor] = []
    hooks = {HookPoint(1, "resid_post"): lambda value: seen.append(value.detach().clone())}
    with ablated_positions(model, kind), model.hooked(hooks):
        logits(model, tokens)
    with model.hooked(hooks), ablated_positions(model, kind):
        logits(model, tokens)
    with ablated_positions(model, kind):
        model.run_until(hooks, tokens)
    model.run_until(hooks, tokens)
    inside, outside, early, clean = seen
    assert torch.equal(inside, outside)
    assert torch.equal(inside, early)
    assert (inside - clean).abs().max() > 1e-4


@pytest.mark.parametrize("kind", POSITION_ABLATIONS)
def test_nothing_is_left_of_an_ablation_also_after_an_exception(model, tokens, kind):
    before = logits(model, tokens)
    ablated(model, kind, tokens)
    assert torch.equal(logits(model, tokens), before)
    with (
        pytest.raises(ZeroDivisionError),
        ablated_positions(model, kind),
        model.hooked({HookPoint(1, "attn_out"): lambda _: 1 / 0}),
    ):
        logits(model, tokens)
    modules = list(model.network.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in modules)
    assert torch.equal(logits(model, tokens), before)


def test_gradients_flow_through_a_shuffled_table(tokens):
    model = made("gpt2", {})
    table = model.network.transformer.wpe.weight.requires_grad_(True)
    for kind, is_there in {"shuffled": True, "removed": False}.items():
        table.grad = None
        with ablated_positions(model, kind):
            model.loss(tokens).backward()
        assert (table.grad is not None and bool(table.grad.any())) == is_there


# --- texts that are written ---


@pytest.mark.parametrize("family", ["gpt2", "opt", "llama", "gemma3_text", "falcon"])
@pytest.mark.parametrize(
    ("kind", "how"), [("removed", {}), ("shuffled", {"seed": 1, "n_positions": 40})]
)
def test_a_text_is_written_as_reading_it_again_for_every_token_would(family, kind, how):
    model = made(family, {})
    prompts = [(1, 40, 41, 42, 43, 50), (1, 40, 41, 42), (1, 99)]
    requests = [Request(prompt=prompt, max_tokens=6, stop_tokens=()) for prompt in prompts]
    with ablated_positions(model, kind, **how):
        written = generate(model, requests, sampling=Sampling(temperature=0), max_rows=2)
    for prompt, text in zip(prompts, written, strict=True):
        row = list(prompt)
        for _ in range(6):
            row.append(int(ablated(model, kind, torch.tensor([row]), **how)[0, -1].argmax()))
        assert text.tokens == tuple(row[len(prompt) :])


def test_a_text_that_grows_has_no_permutation_of_its_own():
    model = made("llama", {})
    request = Request(prompt=(1, 40, 41), max_tokens=3, stop_tokens=())
    with (
        ablated_positions(model, "shuffled"),
        pytest.raises(ModelError, match=r"goes on at position 3 .* Give .* n_positions"),
    ):
        generate(model, [request])


# --- what is said ---


def test_captions_tell_embeddings_from_rotations(model):
    is_learned = model.family.model_type in LEARNED
    assert position_encoding(model) == ("learned" if is_learned else "rotary")
    said = [describe_ablation(model, kind) for kind in POSITION_ABLATIONS]
    if is_learned:
        assert said == ["position embeddings zeroed", "position embeddings shuffled"]
    else:
        assert said == ["rotation removed", "rotary positions shuffled"]
    assert said == [describe_ablation(model.family, kind) for kind in POSITION_ABLATIONS]


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("deberta", {}, "tells positions by attention by relative position"),
        ("deberta-v2", {}, "tells positions by attention by relative position"),
        ("deberta-v2", {**ABSOLUTE, "conv_kernel_size": 3}, "by a convolution over its tokens"),
        ("deberta", {**ABSOLUTE, "position_biased_input": False}, "tells positions by nothing"),
        ("falcon", {"alibi": True, "multi_query": False, "num_kv_heads": 4}, "by ALiBi"),
    ],
)
def test_positions_that_cannot_be_taken_away_are_named(family, changes, message):
    model = made(family, changes)
    for kind in POSITION_ABLATIONS:
        with pytest.raises(ModelError, match=message), ablated_positions(model, kind):
            pass
        with pytest.raises(ModelError, match=message):
            describe_ablation(model, kind)


def test_slots_and_families_without_facts_are_refused():
    class Slots(LanguageModel):
        n_slots = 5  # pyright: ignore[reportAssignmentType]

    made_of = tiny_model("llama")
    slots = Slots.from_network(made_of.network, made_of.tokenizer, name="slots")
    with pytest.raises(ModelError, match=r"ablation of positions .* its 5 slots"):
        position_encoding(slots)
    bare = Family(model_type="own", blocks="layers", embed="e", attn_out="a", mlp_out="m")
    with pytest.raises(ModelError, match=r"not known where .*'own' gets its positions"):
        describe_ablation(bare, "removed")
    made_of.family = bare
    with (
        pytest.raises(ModelError, match="not known where tiny-llama-0"),
        ablated_positions(made_of, "removed"),
    ):
        pass


def test_settings_that_mean_nothing_are_named(tokens):
    model = tiny_model("gpt2")
    for n in (0, 65):
        with (
            pytest.raises(ConfigError, match=f"n_positions must be 1 to 64, .* got {n}"),
            ablated_positions(model, "shuffled", n_positions=n),
        ):
            pass
    with pytest.raises(ModelError, match=r"A row has 11 positions, .* n_positions=10"):
        ablated(model, "shuffled", tokens, n_positions=10)
    with pytest.raises(
        ConfigError, match=r"removed or shuffled, got 'shuffle'\. Did you mean 'shuffled'"
    ):
        position_ablation._check_kind("shuffle")
