from pathlib import Path

import pytest
import torch

from fluoroscope.core.errors import CorpusError
from fluoroscope.data.corpora import write_token_store
from fluoroscope.data.corpus_config import CorpusConfig, SampledTextConfig
from fluoroscope.data.sampled_text import sampled_documents
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.models.tiny import tiny_model

SAMPLED = SampledTextConfig(max_tokens=12, tile=8)


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return tiny_model("llama")


def drawn(model: LanguageModel, start: int, stop: int, **changes: object) -> list[list[int]]:
    config = SAMPLED.model_copy(update=changes)
    documents = sampled_documents(model.network, model.tokenizer, config, start, stop)
    return [tokens for _, tokens in documents]


def test_a_document_does_not_depend_on_the_range_that_it_is_drawn_in(model: LanguageModel):
    assert drawn(model, 5, 21) == drawn(model, 0, 32)[5:21]


def test_the_seed_and_the_number_of_a_document_make_it(model: LanguageModel):
    assert drawn(model, 0, 8) == drawn(model, 0, 8)
    assert drawn(model, 0, 8) != drawn(model, 0, 8, seed=1)
    assert len({tuple(tokens) for tokens in drawn(model, 0, 16)}) == 16


def test_tokens_follow_the_distribution_of_the_model(model: LanguageModel):
    firsts = torch.tensor([tokens[0] for tokens in drawn(model, 0, 4000, max_tokens=1) if tokens])
    bos = torch.tensor([[model.tokenizer.bos_token_id]])
    expected = model.forward(bos)[0, -1].softmax(-1).detach()
    observed = torch.bincount(firsts, minlength=model.vocab_size) / 4000
    assert float((expected - observed).abs().sum()) / 2 < 0.1


def test_cold_text_is_the_likeliest(model: LanguageModel):
    tokens = drawn(model, 0, 8, temperature=1e-6)
    assert all(document == tokens[0] for document in tokens)


def test_text_of_the_model_fills_a_store(model: LanguageModel, tmp_path: Path):
    config = CorpusConfig(source="model:", context=16, held_out=0.2, sampled=SAMPLED)
    store = write_token_store(
        config, model.tokenizer, tmp_path, n_tokens=1500, network=model.network
    )
    assert store.n_tokens("train") > 1200
    assert store.documents().height == store.manifest["n_documents"]


def test_a_model_that_predicts_no_next_token_is_refused(tmp_path: Path):
    encoder = tiny_model("bert")
    config = CorpusConfig(source="model:", take="first:8", sampled=SAMPLED)
    with pytest.raises(CorpusError, match="predicts next tokens"):
        write_token_store(config, encoder.tokenizer, tmp_path, network=encoder.network)


def test_sampling_needs_the_network(model: LanguageModel, tmp_path: Path):
    config = CorpusConfig(source="model:", take="first:8")
    with pytest.raises(CorpusError, match="needs the model's network"):
        write_token_store(config, model.tokenizer, tmp_path)
