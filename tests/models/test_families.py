"""What must hold for every family of networks, and for the variants that differ inside."""

import pytest
import torch
from torch import Tensor

from fluoroscope.models.families import FAMILIES
from fluoroscope.models.hook_points import STREAMS, HookPoint
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.models.tiny import tiny_model

VARIANTS: dict[str, tuple[str, dict[str, object]]] = {
    **{family: (family, {}) for family in FAMILIES},
    "gpt_neox sequential": ("gpt_neox", {"use_parallel_residual": False}),
    "llama untied, multi-head": (
        "llama",
        {"num_key_value_heads": 4, "attention_bias": True, "tie_word_embeddings": False},
    ),
    "falcon 40B": ("falcon", {"new_decoder_architecture": True, "num_ln_in_parallel_attn": 2}),
    "falcon 11B": ("falcon", {"new_decoder_architecture": True, "num_ln_in_parallel_attn": 1}),
    "falcon rw": (
        "falcon",
        {"parallel_attn": False, "alibi": True, "multi_query": False, "num_kv_heads": 4},
    ),
    "opt 350m": ("opt", {"do_layer_norm_before": False, "word_embed_proj_dim": 8}),
    "roberta pad 1": ("roberta", {"pad_token_id": 1, "bos_token_id": 0}),
    "albert groups": ("albert", {"num_hidden_groups": 3, "inner_group_num": 2}),
    "deberta absolute": ("deberta", {"relative_attention": False, "pos_att_type": []}),
    "deberta-v2 xlarge": ("deberta-v2", {"conv_kernel_size": 3, "position_buckets": 8}),
}


@pytest.fixture(params=VARIANTS, scope="module")
def model(request: pytest.FixtureRequest) -> LanguageModel:
    family, changes = VARIANTS[request.param]
    model = tiny_model(family, **changes)
    model.network.double()
    return model


@pytest.fixture(scope="module")
def tokens() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(4, 260, (3, 11), generator=generator)


def every_point(model: LanguageModel) -> list[HookPoint]:
    inside = [
        HookPoint(layer, stream)
        for layer in range(model.n_layers)
        for stream in STREAMS
        if stream != "embed"
    ]
    return [HookPoint("0.embed"), *inside]


def read_all(
    model: LanguageModel, tokens: Tensor, mask: Tensor | None = None
) -> tuple[dict[HookPoint, Tensor], Tensor]:
    """Every stream as it was at the moment of the hook, not as the network may leave it."""
    seen: dict[HookPoint, Tensor] = {}
    kept: dict[HookPoint, Tensor] = {}

    def reader(point: HookPoint):
        def read(value: Tensor) -> None:
            assert point not in seen
            seen[point], kept[point] = value, value.clone()

        return read

    with model.hooked({point: reader(point) for point in every_point(model)}), torch.no_grad():
        logits = model.forward(tokens, mask)
    for point, value in seen.items():
        assert torch.equal(value, kept[point]), f"{point} was overwritten after it was read"
    return kept, logits


def block_formula(model: LanguageModel, streams: dict[HookPoint, Tensor], layer: int) -> Tensor:
    x, a, m = (streams[HookPoint(layer, s)] for s in ("resid_pre", "attn_out", "mlp_out"))
    family, block = model.family, model.blocks[layer]
    if family.residual(model.network.config) != "post_norm":
        return x + a + m
    attn_norm, mlp_norm = (block.get_submodule(str(p)) for p in (family.attn_norm, family.mlp_norm))
    result = mlp_norm(attn_norm(x + a) + m)
    if family.after_block_0 is None or layer > 0 or model.network.deberta.encoder.conv is None:
        return result
    return model.network.deberta.encoder.conv(x, result, torch.ones(x.shape[:2], dtype=torch.int64))


def test_the_streams_of_a_block_add_up_as_its_family_states(model, tokens):
    streams, _ = read_all(model, tokens)
    for layer in range(model.n_layers):
        torch.testing.assert_close(
            block_formula(model, streams, layer),
            streams[HookPoint(layer, "resid_post")],
            rtol=0,
            atol=1e-9,
        )


def test_what_leaves_a_block_enters_the_next(model, tokens):
    streams, _ = read_all(model, tokens)
    for layer in range(model.n_layers - 1):
        left, entered = HookPoint(layer, "resid_post"), HookPoint(layer + 1, "resid_pre")
        assert torch.equal(streams[left], streams[entered])


def test_every_stream_is_there_in_batch_and_position(model, tokens):
    streams, _ = read_all(model, tokens)
    assert len(streams) == len(every_point(model)) == 4 * model.n_layers + 1
    for point, value in streams.items():
        assert value.shape == (*tokens.shape, model.width(point))
        assert value.std() > 1e-3


def test_embed_is_the_token_alone(model, tokens):
    streams, _ = read_all(model, tokens)
    swapped, _ = read_all(model, tokens.flip(-1))
    point = HookPoint("0.embed")
    assert torch.equal(streams[point].flip(1), swapped[point])
    assert not torch.equal(streams[point][:, 0], streams[point][:, 1])


def test_reading_changes_no_logit(model, tokens):
    with torch.no_grad():
        bare = model.forward(tokens)
    assert torch.equal(read_all(model, tokens)[1], bare)


def test_writing_back_what_was_read_changes_no_logit(model, tokens):
    streams, bare = read_all(model, tokens)
    writers = {point: lambda _, kept=kept: kept.clone() for point, kept in streams.items()}
    with model.hooked(writers), torch.no_grad():
        assert torch.equal(model.forward(tokens), bare)
    for point, kept in streams.items():
        assert torch.equal(writers[point](None), kept), (
            f"{point}: the hook's tensor was overwritten"
        )


def test_writing_something_else_changes_the_logits(model, tokens):
    _, bare = read_all(model, tokens)
    for point in every_point(model):
        with model.hooked({point: lambda value: value * 1.5 + 0.1}), torch.no_grad():
            assert (model.forward(tokens) - bare).abs().max() > 1e-6, point


def test_a_written_stream_is_what_a_later_hook_reads(model, tokens):
    written = torch.randn(*tokens.shape, model.d_model, dtype=model.dtype)
    read: dict[str, Tensor] = {}
    writer = HookPoint(0, "resid_post")
    reader = HookPoint(1, "resid_pre")
    hooks = {writer: lambda _: written, reader: lambda value: read.update(x=value)}
    with torch.no_grad(), model.hooked(hooks):
        model.forward(tokens)
    assert torch.equal(read["x"], written)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_no_row(model, tokens, side):
    lengths = [11, 7, 4]
    mask = torch.zeros_like(tokens)
    padded = torch.full_like(tokens, model.pad_token_id)
    places = [slice(11 - n, 11) if side == "left" else slice(0, n) for n in lengths]
    for row, (length, place) in enumerate(zip(lengths, places, strict=True)):
        padded[row, place] = tokens[row, :length]
        mask[row, place] = 1
    batch, batch_logits = read_all(model, padded, mask)
    for row, (length, place) in enumerate(zip(lengths, places, strict=True)):
        alone, logits = read_all(model, tokens[row : row + 1, :length])
        close = {"rtol": 0, "atol": 1e-9}
        torch.testing.assert_close(batch_logits[row, place], logits[0], **close)
        for point, value in alone.items():
            torch.testing.assert_close(batch[point][row, place], value[0], **close)


def test_run_until_reads_the_same_and_computes_nothing_behind(model, tokens):
    streams, _ = read_all(model, tokens)
    for deepest in every_point(model):
        seen: dict[HookPoint, Tensor] = {}
        wanted = [point for point in streams if not deepest < point]
        too_late = [point for point in streams if deepest < point]

        def keep(point: HookPoint, seen: dict = seen):
            return lambda value: seen.__setitem__(point, value.clone())

        with model.hooked(dict.fromkeys(too_late, pytest.fail)):
            model.run_until({point: keep(point) for point in wanted}, tokens)
        assert all(torch.equal(seen[point], streams[point]) for point in wanted)


def test_an_exception_leaves_no_hook_behind(model, tokens):
    def fail(_: Tensor) -> None:
        raise RuntimeError("inside a hook")

    _, bare = read_all(model, tokens)
    points = every_point(model)
    with (
        pytest.raises(RuntimeError, match="inside a hook"),
        model.hooked(dict.fromkeys(points, fail)),
    ):
        model.forward(tokens)
    modules = list(model.network.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in modules)
    assert torch.equal(read_all(model, tokens)[1], bare)


def test_a_hook_survives_an_exception_in_another_forward_pass(model, tokens):
    streams, _ = read_all(model, tokens)
    last = HookPoint(model.n_layers - 1, "resid_post")
    seen: list[Tensor] = []
    with model.hooked({last: seen.append}):
        with (
            pytest.raises(ZeroDivisionError),
            model.hooked({HookPoint(1, "attn_out"): lambda _: 1 / 0}),
        ):
            model.forward(tokens)
        model.forward(tokens)
    assert len(seen) == 1
    assert torch.equal(seen[0], streams[last])
