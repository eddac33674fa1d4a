import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_layers import VARIANTS, saved

from fluoroscope.core.errors import DamagedError, ModelError
from fluoroscope.models.single_layer.layer_tensors import LayerIdentity
from fluoroscope.models.single_layer.loading import load_layer

N_BYTES = 4


def header_bytes(path: Path) -> int:
    """Of a safetensors file: the length of the header, which is 8 bytes, and the header."""
    return 8 + struct.unpack("<Q", path.read_bytes()[:8])[0]


def pickled(folder: Path, shards: int = 1) -> None:
    """The weights of a folder as PyTorch files."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    if shards == 1:
        torch.save(tensors, folder / "pytorch_model.bin")
        return
    index = split(tensors, folder, lambda part, name: torch.save(part, folder / name), "bin")
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": index}))


def split(tensors, folder, write, ending: str = "safetensors") -> dict[str, str]:
    """Three files, of which tensors take turns; where each is."""
    names = [f"model-{i}-of-3.{ending}" for i in range(3)]
    for i, name in enumerate(names):
        write({key: tensors[key] for key in sorted(tensors)[i::3]}, name)
    return {key: names[i % 3] for i, key in enumerate(sorted(tensors))}


def sharded(folder: Path) -> dict[str, str]:
    tensors = load_file(folder / "model.safetensors")
    index = split(tensors, folder, lambda part, name: save_file(part, folder / name))
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return index


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_whole_layer_is_the_tensors_of_the_model(variant, tmp_path):
    family, changes = VARIANTS[variant]
    network = saved(tmp_path, family, **changes)
    blocks = next(m for m in network.modules() if isinstance(m, torch.nn.ModuleList))
    for layer in (0, 2):
        expected = dict(blocks[layer].named_parameters())
        found = load_layer(str(tmp_path), layer, form="sequence").tensors
        assert set(found) == set(expected)
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_only_the_header_and_what_matters_to_one_token_is_read(tmp_path):
    saved(tmp_path)
    header = header_bytes(tmp_path / "model.safetensors")
    sequence = load_layer(str(tmp_path), 1, form="sequence").bytes_read - header
    token = load_layer(str(tmp_path), 1).bytes_read - header
    queries, keys, values, out = 16 * 16, 16 * 8, 16 * 8, 16 * 16
    mlp, norms = 3 * 16 * 40, 2 * 16
    assert sequence == N_BYTES * (queries + keys + values + out + mlp + norms)
    assert token == N_BYTES * (values + out + mlp + norms)


@pytest.mark.parametrize(
    ("family", "changes", "n_left_out"),
    [
        ("qwen2", {}, 16 * 16 + 16 + 16 * 8 + 8),
        ("qwen3", {}, 16 * 16 + 16 * 8 + 2 * 4),
        ("phi3", {}, 16 * 16 + 16 * 8),
        ("gpt_neox", {}, 2 * (16 * 16 + 16)),
        ("falcon", {}, 16 * 16 + 16 * 4),
        ("falcon", {"new_decoder_architecture": True}, 16 * 16 + 16 * 8),
        # Columns cannot be left out of a file that is written by rows; those of a bias can.
        ("gpt2", {}, 2 * 16),
    ],
)
def test_parts_of_fused_tensors_are_left_out_too(family, changes, n_left_out, tmp_path):
    saved(tmp_path, family, **changes)
    sequence = load_layer(str(tmp_path), 0, form="sequence").bytes_read
    assert sequence - load_layer(str(tmp_path), 0).bytes_read == N_BYTES * n_left_out


def test_a_layer_is_the_same_from_one_file_from_shards_and_from_pytorch_files(tmp_path):
    layers = {}
    for name, change in (
        ("one", lambda _: None),
        ("shards", sharded),
        ("bin", pickled),
        ("bins", lambda folder: pickled(folder, shards=3)),
    ):
        saved(tmp_path / name, "gpt_neox")
        change(tmp_path / name)
        layers[name] = load_layer(str(tmp_path / name), 2)
    assert len({layer.identity.sha256 for layer in layers.values()}) == 1
    n_weights = sum(tensor.nbytes for tensor in layers["one"].tensors.values())
    assert layers["bins"].bytes_read == n_weights


def test_shards_without_the_layer_are_not_opened(tmp_path):
    saved(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    own = {name: value for name, value in tensors.items() if ".layers.1." in name}
    save_file(own, tmp_path / "own.safetensors")
    (tmp_path / "rest.safetensors").write_bytes(b"not read")
    index = {name: f"{'own' if name in own else 'rest'}.safetensors" for name in tensors}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    assert load_layer(str(tmp_path), 1).tensors
    with pytest.raises(DamagedError, match=r"rest.safetensors is damaged"):
        load_layer(str(tmp_path), 0)


def test_names_of_a_model_without_a_head_and_tensors_of_older_releases_do_not_disturb(tmp_path):
    saved(tmp_path, "gpt2")
    path = tmp_path / "model.safetensors"
    expected = load_layer(str(tmp_path), 1).identity.sha256
    tensors = {name.removeprefix("transformer."): v for name, v in load_file(path).items()}
    tensors["h.1.attn.bias"] = torch.ones(1, 1, 8, 8, dtype=torch.uint8)
    save_file(tensors, path)
    assert load_layer(str(tmp_path), 1).identity.sha256 == expected


def test_the_last_layer_has_one_name_however_it_is_asked_for(tmp_path):
    saved(tmp_path / "it")
    last, same = load_layer(str(tmp_path / "it"), -1), load_layer(str(tmp_path / "it"), 2)
    assert last.identity == same.identity
    expected = ("it", None, 2, 3, "float32", "token", None)
    found = last.identity
    assert expected == (
        found.source,
        found.revision,
        found.layer,
        found.n_layers,
        found.dtype,
        found.form,
        found.made_from,
    )
    assert LayerIdentity.from_json(json.loads(json.dumps(found.to_json()))) == found
    with pytest.raises(DamagedError, match="entries source, revision"):
        LayerIdentity.from_json({"source": "it"})


def test_a_dtype_is_rounded_to(tmp_path):
    saved(tmp_path)
    exact, half = load_layer(str(tmp_path), 0), load_layer(str(tmp_path), 0, dtype="bfloat16")
    for name, tensor in exact.tensors.items():
        assert torch.equal(half.tensors[name], tensor.bfloat16())


@pytest.mark.parametrize("layer", [3, -4, 100])
def test_a_layer_that_is_not_there_is_refused_with_the_range(layer, tmp_path):
    saved(tmp_path)
    with pytest.raises(ModelError, match=rf"3 layers, so a layer is -3 to 2 .*got {layer}\."):
        load_layer(str(tmp_path), layer)


def test_an_unknown_family_is_refused_with_the_ones_there_are(tmp_path):
    saved(tmp_path, "opt")
    with pytest.raises(ModelError, match="falcon, gemma2, gpt2, gpt_neox, llama, mistral, phi3"):
        load_layer(str(tmp_path), 0)


def test_an_unknown_dtype_is_refused(tmp_path):
    with pytest.raises(ModelError, match="float16, bfloat16, got 'int8'"):
        load_layer(str(tmp_path), 0, dtype="int8")


@pytest.mark.parametrize("name", ["hidden_size", "num_hidden_layers", "num_attention_heads"])
def test_a_configuration_without_a_needed_number_is_refused(name, tmp_path):
    saved(tmp_path)
    path = tmp_path / "config.json"
    settings = json.loads(path.read_text())
    del settings[name]
    path.write_text(json.dumps(settings))
    with pytest.raises(ModelError, match=f"does not say {name}"):
        load_layer(str(tmp_path), 0)


def test_a_configuration_of_other_weights_is_refused(tmp_path):
    saved(tmp_path)
    path = tmp_path / "config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps(settings | {"intermediate_size": 41}))
    with pytest.raises(ModelError, match=r"mlp\..*\[(40, 16|16, 40)\].*\[(41, 16|16, 41)\]"):
        load_layer(str(tmp_path), 0)
    path.write_text(json.dumps(settings | {"num_hidden_layers": 4}))
    with pytest.raises(ModelError, match=r"no weights of layer 3.*says that it has 4"):
        load_layer(str(tmp_path), -1)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-256])


def cut_in_the_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def long_header(path: Path) -> None:
    path.write_bytes(struct.pack("<Q", 2**40) + path.read_bytes()[8:])


def no_json(path: Path) -> None:
    path.write_bytes(struct.pack("<Q", 4) + b"what" + path.read_bytes())


def wrong_places(path: Path) -> None:
    header = {"model.norm.weight": {"dtype": "F32", "shape": [16], "data_offsets": [0, 60]}}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(64))


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize(
    "damage", [cut_short, cut_in_the_header, long_header, no_json, wrong_places, empty]
)
def test_a_damaged_file_is_named(damage, tmp_path):
    saved(tmp_path)
    # The last layer lies last in the file.
    damage(tmp_path / "model.safetensors")
    with pytest.raises(DamagedError, match=r"model.safetensors is damaged: .* copy it again"):
        load_layer(str(tmp_path), 2, form="sequence")


def test_a_damaged_pytorch_file_is_named_and_code_in_it_is_not_run(tmp_path):
    saved(tmp_path)
    pickled(tmp_path)
    path = tmp_path / "pytorch_model.bin"
    torch.save({"model.layers.0.mlp.down_proj.weight": Path("anything")}, path)
    with pytest.raises(DamagedError, match=r"pytorch_model.bin is damaged: no tensors"):
        load_layer(str(tmp_path), 0)


def test_an_index_that_names_what_is_not_there_is_damaged(tmp_path):
    saved(tmp_path)
    index = sharded(tmp_path)
    (tmp_path / "model-1-of-3.safetensors").unlink()
    with pytest.raises(DamagedError, match=r"no file model-1-of-3.safetensors, in which its index"):
        load_layer(str(tmp_path), 0)
    moved = dict.fromkeys(index, "model-0-of-3.safetensors")
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": moved}))
    with pytest.raises(DamagedError, match=r"has no tensor model.layers.0.*which the index says"):
        load_layer(str(tmp_path), 0)
    path.write_text("[]")
    with pytest.raises(DamagedError, match="is not an index of weights"):
        load_layer(str(tmp_path), 0)


def test_a_layer_with_other_tensors_is_refused(tmp_path):
    saved(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    del tensors["model.layers.0.mlp.up_proj.weight"]
    save_file(tensors, path)
    with pytest.raises(ModelError, match=r"lacks 1 tensors .* model.layers.0.mlp.up_proj.weight"):
        load_layer(str(tmp_path), 0)
    tensors["model.layers.0.mlp.up_proj.weight"] = torch.zeros(40, 16, dtype=torch.int8)
    save_file(tensors, path)
    with pytest.raises(ModelError, match="of the dtype I8, which is quantised"):
        load_layer(str(tmp_path), 0)


def test_a_folder_without_weights_is_refused(tmp_path):
    saved(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"has no weights: no model.safetensors"):
        load_layer(str(tmp_path), 0)


MEASURED = """
import re, sys
from pathlib import Path
from fluoroscope.models.single_layer.loading import load_layer

folder, warm, form, cache = sys.argv[1:]
load_layer(warm, 0, form="sequence", cache=Path(cache) if cache else None)

def kilobytes(name):
    return int(re.search(name + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

Path("/proc/self/clear_refs").write_text("5")
before = kilobytes("VmRSS")
layer = load_layer(folder, 5, form=form, cache=Path(cache) if cache else None)
grown = (kilobytes("VmHWM") - before) * 1024
print(grown, sum(t.nbytes for t in layer.tensors.values()), layer.bytes_read)
"""


def measured(*arguments: object) -> list[int]:
    command = [sys.executable, "-c", MEASURED, *map(str, arguments)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return [int(number) for number in done.stdout.split()]


def large_model(folder: Path, dtype: torch.dtype) -> None:
    """Twelve layers of some ten million random weights each, tensor by tensor."""
    saved(folder)
    settings = json.loads((folder / "config.json").read_text())
    sizes = {
        "hidden_size": 640,
        "intermediate_size": 2560,
        "num_attention_heads": 10,
        "num_key_value_heads": 10,
        "head_dim": 64,
        "num_hidden_layers": 12,
    }
    (folder / "config.json").write_text(json.dumps(settings | sizes))
    shapes = {f"self_attn.{name}_proj": (640, 640) for name in "qkvo"}
    shapes |= {f"mlp.{name}_proj": (2560, 640) for name in ("gate", "up")}
    shapes |= {"mlp.down_proj": (640, 2560)}
    shapes |= {f"{name}_layernorm": (640,) for name in ("input", "post_attention")}
    save_file(
        {
            f"model.layers.{layer}.{name}.weight": torch.full(shape, 0.5, dtype=dtype)
            for layer in range(12)
            for name, shape in shapes.items()
        },
        folder / "model.safetensors",
    )


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "cached"), [(torch.float32, False), (torch.bfloat16, True)])
def test_no_more_than_twice_a_layer_is_in_memory(dtype, cached, tmp_path):
    large_model(tmp_path / "large", dtype)
    saved(tmp_path / "warm")
    cache = tmp_path / "cache" if cached else ""
    grown, n_bytes, n_read = measured(tmp_path / "large", tmp_path / "warm", "sequence", cache)
    in_file = n_bytes * dtype.itemsize // 4
    assert n_read == in_file + header_bytes(tmp_path / "large" / "model.safetensors")
    assert n_bytes < grown < 2 * n_bytes + 4 * 2**20
