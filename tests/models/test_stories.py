"""The real 260K-parameter model: figures that its README states."""

from pathlib import Path

import pytest
import torch

from fluoroscope.models.hook_points import STREAMS, HookPoint
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.models.shape import ModelShape

# The greedy sample printed in the doc/stories260K.md of llama2.c.
GREEDY = (
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park."
)


@pytest.fixture(scope="module")
def lines(data_folder: Path) -> list[str]:
    file = data_folder / "tinystories_valid_sample" / "TinyStories-valid.txt"
    if not file.is_file():
        pytest.skip(f"the sample of TinyStories is not here ({file})")
    return file.read_text(encoding="utf-8").splitlines(keepends=True)


def test_greedy_text_is_the_published_sample(stories_model: LanguageModel):
    start = torch.tensor([[stories_model.bos_token_id]])
    text = stories_model.network.generate(start, max_new_tokens=40, do_sample=False)
    words = stories_model.tokenizer.decode(text[0], skip_special_tokens=True)
    assert words.startswith(GREEDY)


@pytest.mark.parametrize(("has_bos", "nats"), [(False, 1.658), (True, 1.644)])
def test_loss_on_real_stories_is_the_stated_one(stories_model, lines, has_bos, nats):
    total, n_predicted = 0.0, 0
    for line in lines:
        ids = stories_model.tokenizer(line, add_special_tokens=has_bos)["input_ids"][:512]
        scores = stories_model.token_scores(torch.tensor([ids]))
        total, n_predicted = total - scores.sum().item(), n_predicted + scores.numel()
    assert total / n_predicted == pytest.approx(nats, abs=1e-3)


def test_stories_pad_on_the_left_without_changing_a_score(stories_model, lines):
    batch = stories_model.tokenize([lines[0][:200], lines[1][:60]])
    assert batch.attention_mask[1, 0] == 0
    assert (batch.tokens[:, -1] != stories_model.pad_token_id).all()
    alone = stories_model.token_scores(*stories_model.tokenize([lines[1][:60]]))
    padded = stories_model.token_scores(*batch)[1:, -alone.shape[1] :]
    torch.testing.assert_close(padded, alone, rtol=0, atol=1e-4)


def test_streams_of_the_real_model_add_up(stories_model, lines):
    tokens, _ = stories_model.tokenize([lines[0][:200]])
    streams: dict[str, torch.Tensor] = {}
    points = [HookPoint(3, stream) for stream in STREAMS if stream != "embed"]
    hooks = {p: lambda x, name=p.stream: streams.update({name: x}) for p in points}
    stories_model.run_until(hooks, tokens)
    total = streams["resid_pre"] + streams["attn_out"] + streams["mlp_out"]
    torch.testing.assert_close(total, streams["resid_post"], rtol=0, atol=1e-5)


def test_shape_of_the_real_model(stories_folder):
    shape = ModelShape.of(str(stories_folder))
    assert shape.n_params == 260_032
    assert (shape.n_layers, shape.d_model, shape.n_kv_heads, shape.is_tied) == (5, 64, 4, True)
