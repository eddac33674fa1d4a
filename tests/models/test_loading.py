import json
from pathlib import Path

import httpx2
import pytest
import torch
from huggingface_hub import ModelInfo
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError
from safetensors.torch import load_file, save_file

from fluoroscope.core.config import settings_hash
from fluoroscope.core.errors import ModelError
from fluoroscope.core.storage import sha256_file
from fluoroscope.models import hub
from fluoroscope.models.families import FAMILIES
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.identity import hash_files
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.models.tiny import tiny_model


def save(model: LanguageModel, folder: Path) -> Path:
    model.network.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save(tiny_model("llama"), tmp_path / "tiny")


@pytest.mark.parametrize("family", FAMILIES)
def test_saved_then_loaded_gives_the_same_logits(family, tmp_path):
    model = tiny_model(family)
    loaded = LanguageModel.load(str(save(model, tmp_path / "it")))
    tokens, mask = model.tokenize(["some text", "more"])
    assert torch.equal(loaded.forward(tokens, mask), model.forward(tokens, mask))
    assert loaded.tokenize(["some text"]).tokens.tolist() == [tokens[0].tolist()]
    assert not any(parameter.requires_grad for parameter in loaded.network.parameters())


def test_identity_is_of_the_content_not_of_the_place(folder, tmp_path):
    here = LanguageModel.load(str(folder)).identity
    moved = tmp_path / "elsewhere" / "tiny"
    moved.parent.mkdir()
    folder.rename(moved)
    assert LanguageModel.load(str(moved), dtype="float64").identity == here
    assert (here.id, here.revision) == ("tiny", None)
    weights = load_file(moved / "model.safetensors")
    weights["model.norm.weight"] += 1
    save_file(weights, moved / "model.safetensors", {"format": "pt"})
    assert LanguageModel.load(str(moved)).identity.weights_sha256 != here.weights_sha256


def test_dtype_is_as_asked(folder):
    model = LanguageModel.load(str(folder), dtype="bfloat16")
    assert model.dtype == torch.bfloat16
    assert model.token_scores(*model.tokenize(["abc"])).dtype == torch.float32


def test_an_encoder_without_a_masked_token_head_gets_none_invented(tmp_path):
    model = tiny_model("electra")
    model.network.electra.save_pretrained(tmp_path)
    model.tokenizer.save_pretrained(tmp_path)
    loaded = LanguageModel.load(str(tmp_path))
    tokens, _ = model.tokenize(["abc"])
    read: list[torch.Tensor] = []
    for each in (loaded, model):
        each.run_until({HookPoint("2.resid_post"): read.append}, tokens)
    assert torch.equal(read[0], read[1])
    with pytest.raises(ModelError, match="no weights for a language-modelling head"):
        loaded.forward(tokens)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("config.json", "has no config.json"),
        ("model.safetensors", "has no weights"),
        ("tokenizer.json", "has no tokenizer"),
    ],
)
def test_a_folder_that_lacks_a_part_says_which(folder, missing, message):
    (folder / missing).unlink()
    with pytest.raises(ModelError, match=message):
        LanguageModel.load(str(folder))


def test_damaged_weights_are_named(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match=r"weights in .*tiny cannot be read"):
        LanguageModel.load(str(folder))


def test_missing_weights_are_never_made_up(folder):
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"not whole: 1 tensors .* model\.layers\.1\.mlp\.up_proj"):
        LanguageModel.load(str(folder))


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"model_type": '])
def test_a_config_that_says_nothing_is_named(folder, content):
    (folder / "config.json").write_text(content)
    with pytest.raises(ModelError, match="no model_type"):
        LanguageModel.load(str(folder))


def test_code_that_comes_with_a_model_is_never_run(folder):
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoModelForCausalLM": "evil.Evil"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text("raise SystemExit('ran')")
    with pytest.raises(ModelError, match="'evil', which cannot be read yet"):
        LanguageModel.load(str(folder))


@pytest.mark.parametrize("name", ["/no/such/folder", "./no_such", "../a/b/c", "a b"])
def test_a_path_that_is_no_folder_is_not_looked_for_on_the_hub(name):
    with pytest.raises(ModelError, match="There is no model folder"):
        LanguageModel.load(name)


def test_a_wrong_dtype_or_device_is_named(folder):
    with pytest.raises(ModelError, match="A dtype is one of float32"):
        LanguageModel.load(str(folder), dtype="int8")
    with pytest.raises(ModelError, match="A device is cpu, cuda"):
        LanguageModel.load(str(folder), device="gpu")
    with pytest.raises(ModelError, match="There is no device cuda:99"):
        LanguageModel.load(str(folder), device="cuda:99")


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (OSError("name resolution"), "cannot be reached .name resolution.*connect and try again"),
        (GatedRepoError, "is gated: ask for access at https://huggingface.co/some/model"),
        (RepositoryNotFoundError, "There is no model some/model"),
        (RevisionNotFoundError, "has no revision 'v9'"),
    ],
)
def test_a_hub_model_that_cannot_be_had_says_why(monkeypatch, failure, message):
    if isinstance(failure, type):
        request = httpx2.Request("GET", "https://huggingface.co")
        failure = failure("refused", response=httpx2.Response(403, request=request))

    class Hub:
        def model_info(self, *_: object, **__: object) -> None:
            raise failure

    monkeypatch.setattr(hub, "HfApi", Hub)
    with pytest.raises(ModelError, match=message):
        LanguageModel.load("some/model", revision="v9")


def test_a_hub_model_is_known_by_its_id_and_commit(monkeypatch, folder):
    asked: dict[str, object] = {}

    class Hub:
        def model_info(self, *_: object, **__: object) -> ModelInfo:
            files = [{"rfilename": "model.safetensors"}, {"rfilename": "pytorch_model.bin"}]
            return ModelInfo(id="some/model", sha="c0ffee", siblings=files)

    def snapshot(name: str, **options: object) -> str:
        asked.update(options)
        return str(folder)

    monkeypatch.setattr(hub, "HfApi", Hub)
    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    identity = LanguageModel.load("some/model").identity
    assert (identity.id, identity.revision) == ("some/model", "c0ffee")
    # A branch is fetched as such, so that it is found again without a network.
    assert asked["revision"] is None
    assert "model*.safetensors" in asked["allow_patterns"]
    assert "pytorch_model*.bin" not in asked["allow_patterns"]


def test_a_large_file_of_the_hubs_cache_is_known_by_its_name_there(tmp_path):
    blob = tmp_path / ("ab" * 32)
    blob.write_bytes(b"weights")
    link = tmp_path / "model.safetensors"
    link.symlink_to(blob)
    assert hash_files([link]) == settings_hash({"model.safetensors": blob.name})
    link.unlink()
    link.write_bytes(b"weights")
    assert hash_files([link]) == settings_hash({link.name: sha256_file(link)})
