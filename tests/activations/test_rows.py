from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fluoroscope.activations.capture import capture
from fluoroscope.activations.extract_config import ExtractConfig
from fluoroscope.activations.rows import tile_rows
from fluoroscope.core.errors import NumericsError
from fluoroscope.data.token_store import TokenStore, Windows
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.models.tiny import tiny_model


@pytest.fixture
def windows(tokens: TokenStore) -> Windows:
    n_windows = tokens.n_windows("train")
    return tokens.windows("train", n_windows - 4, n_windows)


def spoil(model: LanguageModel, change: Callable[[Tensor], Tensor]):
    return model.hooked({HookPoint("1.resid_pre"): change})


def test_rows_are_the_text_of_the_windows_in_order(
    model: LanguageModel, windows: Windows, points: list[HookPoint]
):
    result = tile_rows(model, windows, points, ExtractConfig())
    is_text = windows.attention_mask.bool() & ~windows.is_start
    cache = capture(model, windows.tokens, points, windows.attention_mask)
    assert not is_text.all()
    for point in points:
        assert torch.equal(result.rows[point], cache[point][is_text])


def test_start_tokens_are_kept_when_asked_and_padding_never(
    model: LanguageModel, windows: Windows, points: list[HookPoint]
):
    result = tile_rows(model, windows, points, ExtractConfig(exclude_bos=False))
    assert torch.equal(result.kept, windows.attention_mask.bool())


def test_a_sink_at_one_point_is_left_out_of_all(
    model: LanguageModel, windows: Windows, points: list[HookPoint]
):
    def grow(residual: Tensor) -> Tensor:
        residual = residual.clone()
        residual[1, 5] *= 1e4
        return residual

    with spoil(model, grow):
        with_sinks = tile_rows(model, windows, points, ExtractConfig())
        without = tile_rows(model, windows, points, ExtractConfig(exclude_sinks=True))
    assert with_sinks.kept[1, 5]
    left_out = with_sinks.kept & ~without.kept
    assert left_out.nonzero().tolist() == [[1, 5]]
    assert {len(rows) for rows in without.rows.values()} == {int(without.kept.sum())}


@pytest.mark.parametrize(("bad", "name"), [(torch.nan, "a NaN"), (torch.inf, "an infinity")])
def test_what_is_not_a_number_is_named_with_its_point_and_document(
    model: LanguageModel, windows: Windows, points: list[HookPoint], bad: float, name: str
):
    def break_one(added: Tensor) -> Tensor:
        added = added.clone()
        added[2, 3, 0] = bad
        return added

    document = int(windows.document[2, 3])
    message = rf"at 1\.mlp_out hold {name} in document {document}\."
    with (
        model.hooked({HookPoint("1.mlp_out"): break_one}),
        pytest.raises(NumericsError, match=message),
    ):
        tile_rows(model, windows, points, ExtractConfig())


def test_a_number_too_large_for_float16_is_not_kept_as_infinity(
    windows: Windows, points: list[HookPoint]
):
    model = tiny_model("llama")
    with spoil(model, lambda residual: residual * 1e6):
        tile_rows(model, windows, points, ExtractConfig(dtype="bfloat16"))
        with pytest.raises(NumericsError, match="float16 holds no number above 65504"):
            tile_rows(model, windows, points, ExtractConfig(dtype="float16"))
