import json
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
import torch
from hub_server import COMMIT, REPOSITORY, HubServer
from safetensors.torch import load_file, save_file
from small_layers import saved

from fluoroscope.core.errors import DamagedError, ModelError
from fluoroscope.models.single_layer import reading
from fluoroscope.models.single_layer.facts import layer_facts
from fluoroscope.models.single_layer.loading import load_layer

WEIGHTS = "model.safetensors"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A repository with a tiny Llama, at the address that is the hub's for this test."""
    saved(tmp_path / "repository")
    cache = str(tmp_path / "hub-cache")
    with HubServer(tmp_path / "repository") as server:
        # What the hub's client has read from the environment when it was imported.
        for name, value in {
            "ENDPOINT": server.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": server.url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": cache,
            "HF_HUB_OFFLINE": False,
            "HF_TOKEN_PATH": str(tmp_path / "no token"),
        }.items():
            monkeypatch.setattr(huggingface_hub.constants, name, value)
        for module in (huggingface_hub.file_download, huggingface_hub._snapshot_download):
            monkeypatch.setattr(module.constants, "HF_HUB_CACHE", cache)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield server


@pytest.fixture
def every_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asks anew for each part, as gaps of layers are larger than those of tiny ones."""
    monkeypatch.setattr(reading.HubFile, "max_gap", 0)


def local(hub: HubServer, layer: int, **settings):
    return load_layer(str(hub.folder), layer, **settings)


def test_a_layer_of_the_hub_is_the_layer(hub, every_gap):
    found = load_layer(REPOSITORY, -1)
    expected = local(hub, 2)
    assert found.identity.sha256 == expected.identity.sha256
    assert (found.identity.source, found.identity.revision) == (REPOSITORY, COMMIT)
    assert all(torch.equal(found.tensors[name], expected.tensors[name]) for name in found.tensors)


@pytest.mark.parametrize("form", ["token", "sequence"])
def test_no_byte_more_is_sent_than_by_a_local_file(hub, every_gap, form):
    found = load_layer(REPOSITORY, 1, form=form)
    assert found.bytes_read == hub.sent[WEIGHTS] == local(hub, 1, form=form).bytes_read
    assert hub.sent[WEIGHTS] < (hub.folder / WEIGHTS).stat().st_size / 2


def test_small_gaps_are_read_in_passing(hub):
    found = load_layer(REPOSITORY, 1)
    # The length of the header, the header, and the layer.
    assert len(hub.ranges) == 3
    assert found.bytes_read == hub.sent[WEIGHTS] > local(hub, 1).bytes_read
    assert found.identity.sha256 == local(hub, 1).identity.sha256


def test_only_shards_that_hold_the_layer_are_asked_for(hub):
    tensors = load_file(hub.folder / WEIGHTS)
    index = {}
    for name, tensor in tensors.items():
        index[name] = f"{'own' if '.layers.1.' in name else 'rest'}.safetensors"
        del tensor
    for file in ("own", "rest"):
        part = {name: t for name, t in tensors.items() if index[name] == f"{file}.safetensors"}
        save_file(part, hub.folder / f"{file}.safetensors")
    expected = local(hub, 1).identity.sha256
    (hub.folder / WEIGHTS).unlink()
    (hub.folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": index}))
    assert load_layer(REPOSITORY, 1).identity.sha256 == expected
    assert "rest.safetensors" not in hub.sent


def test_an_answer_that_breaks_off_is_asked_for_again_from_there(hub):
    hub.breaks = 2
    found = load_layer(REPOSITORY, 0)
    assert found.identity.sha256 == local(hub, 0).identity.sha256
    assert hub.breaks == 0


def test_a_file_that_never_comes_whole_is_named(hub):
    hub.breaks = 1000
    with pytest.raises(ModelError, match=rf"model.safetensors of {REPOSITORY} cannot be read"):
        load_layer(REPOSITORY, 0)


def test_a_server_without_ranges_sends_the_file_into_the_hubs_cache(hub, tmp_path):
    hub.has_ranges = False
    found = load_layer(REPOSITORY, 0)
    assert found.identity.sha256 == local(hub, 0).identity.sha256
    cached = tmp_path.glob(f"hub-cache/*/snapshots/{COMMIT}/{WEIGHTS}")
    assert len(list(cached)) == 1
    assert found.bytes_read >= (hub.folder / WEIGHTS).stat().st_size


def test_a_file_of_the_hubs_cache_is_read_there(hub):
    huggingface_hub.hf_hub_download(REPOSITORY, WEIGHTS, revision=COMMIT)
    sent = hub.sent[WEIGHTS]
    found = load_layer(REPOSITORY, 0)
    assert hub.sent[WEIGHTS] == sent
    assert found.bytes_read == local(hub, 0).bytes_read


def test_a_cached_layer_of_a_known_commit_needs_no_network(hub, tmp_path, monkeypatch):
    cache = tmp_path / "layers"
    read = load_layer(REPOSITORY, 0, cache=cache)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    again = load_layer(REPOSITORY, 0, revision=COMMIT, cache=cache)
    assert (again.identity, again.bytes_read) == (read.identity, 0)
    with pytest.raises(ModelError, match=r"connect and try again"):
        load_layer(REPOSITORY, 1, revision=COMMIT, cache=cache)


def test_a_branch_that_was_read_once_is_found_again_without_a_network(hub, tmp_path, monkeypatch):
    cache = tmp_path / "layers"
    read = load_layer(REPOSITORY, 0, cache=cache)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    again = load_layer(REPOSITORY, 0, cache=cache)
    assert (again.identity, again.bytes_read) == (read.identity, 0)
    assert read.identity.revision == COMMIT


def test_without_a_network_weights_of_the_hubs_cache_will_do(hub, monkeypatch):
    for file in ("config.json", WEIGHTS):
        huggingface_hub.hf_hub_download(REPOSITORY, file, revision=COMMIT)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    found = load_layer(REPOSITORY, 0, revision=COMMIT)
    assert found.identity.sha256 == local(hub, 0).identity.sha256


@pytest.mark.parametrize("file", ["config.json", WEIGHTS])
def test_a_gated_repository_is_named_with_what_to_do(hub, file):
    hub.gated_file = file
    with pytest.raises(ModelError, match=r"some-model is gated: ask for access .*`hf auth login`"):
        load_layer(REPOSITORY, 0)


def test_the_token_goes_with_what_is_asked_for(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    load_layer(REPOSITORY, 0)
    assert set(hub.tokens) == {"Bearer hf_mine"}


def test_a_file_that_is_shorter_than_its_header_says_is_named(hub):
    path = hub.folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:-256])
    with pytest.raises(ModelError, match=r"model.safetensors of someone/some-model cannot be read"):
        load_layer(REPOSITORY, 2, form="sequence")


def test_an_index_that_names_a_shard_that_the_hub_has_not_is_damaged(hub):
    names = list(load_file(hub.folder / WEIGHTS))
    (hub.folder / WEIGHTS).unlink()
    index = {"weight_map": dict.fromkeys(names, "gone.safetensors")}
    (hub.folder / f"{WEIGHTS}.index.json").write_text(json.dumps(index))
    with pytest.raises(DamagedError, match=r"some-model has no file gone.safetensors"):
        load_layer(REPOSITORY, 0)


def test_facts_need_the_configuration_alone(hub):
    facts = layer_facts(REPOSITORY)
    assert (facts.d_model, facts.n_layers) == (16, 3)
    assert set(hub.sent) <= {"config.json", ""}
