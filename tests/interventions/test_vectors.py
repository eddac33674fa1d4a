"""Steering vectors as files: ours, and those of repeng and llama.cpp."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGUFReader, GGUFWriter

from fluoroscope.activations.capture import capture
from fluoroscope.core.config import canonical_json
from fluoroscope.core.errors import (
    ConfigError,
    DamagedError,
    InterventionError,
    MismatchError,
    UserError,
)
from fluoroscope.core.storage import sha256_file
from fluoroscope.core.tensors import write_tensors
from fluoroscope.interventions.edits import AddDirection
from fluoroscope.interventions.positions import ALL, GENERATED, LAST, after, at
from fluoroscope.interventions.steering import steer
from fluoroscope.interventions.vectors import (
    SteeringVector,
    load_vector,
    mean_difference,
    save_gguf,
    save_vector,
)
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.tiny import tiny_model
from fluoroscope.organism.check import draw_pairs
from fluoroscope.organism.decisions import decision_streams
from fluoroscope.organism.prompts import VARIABLES
from fluoroscope.organism.shipping import load_truth
from fluoroscope.organism.vectors import planted_vector
from fluoroscope.sae.latent_edits import SetLatent
from fluoroscope.sae.latent_vectors import latent_vector

TEXTS = ["a", "bcd", "something longer than that", "ef", "and one more"]


@pytest.fixture(scope="module")
def model():
    return tiny_model("llama")


@pytest.fixture
def vector(model, direction):
    return SteeringVector(
        directions={
            HookPoint("2.resid_post"): direction(1).float(),
            HookPoint("1.resid_post"): direction(0).float(),
        },
        coefficient=1.5,
        positions=LAST | after(" b | c)"),
        source="made for a test",
        model=model.identity.to_json(),
        provenance={"seed": 3, "texts": ["é", "b"]},
    )


def assert_same(one: SteeringVector, other: SteeringVector) -> None:
    assert set(one.directions) == set(other.directions)
    for point, value in one.directions.items():
        assert torch.equal(value, other.directions[point])
        assert value.dtype == other.directions[point].dtype
    for name in ("coefficient", "is_relative", "positions", "source", "model", "provenance"):
        assert getattr(one, name) == getattr(other, name), name


def repengs_file(path: Path, directions: dict[int, np.ndarray], **changes: object) -> Path:
    """As `ControlVector.export_gguf` of repeng writes it."""
    writer = GGUFWriter(path, str(changes.get("architecture", "controlvector")))
    writer.add_string("controlvector.model_hint", "llama")
    writer.add_uint32("controlvector.layer_count", len(directions))
    for layer, values in directions.items():
        writer.add_tensor(f"{changes.get('prefix', 'direction')}.{layer}", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def as_in_repeng(path: Path) -> tuple[str, str, dict[int, np.ndarray]]:
    """As `ControlVector.import_gguf` of repeng reads it."""
    reader = GGUFReader(path)
    architecture = reader.get_field("general.architecture")
    hint = reader.get_field("controlvector.model_hint")
    return (
        str(bytes(architecture.parts[-1]), encoding="utf-8"),
        str(bytes(hint.parts[-1]), encoding="utf-8"),
        {int(tensor.name.split(".")[1]): tensor.data for tensor in reader.tensors},
    )


@pytest.mark.parametrize("name", ["v1.2.json", "v1.2.safetensors", "new/folder/v"])
def test_a_vector_is_the_same_after_it_was_saved_and_loaded(tmp_path, vector, name):
    save_vector(vector, tmp_path / name)
    assert_same(load_vector(tmp_path / name), vector)


def test_precision_and_relative_amounts_are_kept(tmp_path, direction):
    point = HookPoint("0.attn_out")
    for dtype in (torch.float64, torch.bfloat16):
        vector = SteeringVector(
            directions={point: direction(2).to(dtype)}, is_relative=True, source="by hand"
        )
        save_vector(vector, tmp_path / "v")
        assert_same(load_vector(tmp_path / "v"), vector)


def test_the_bytes_depend_on_the_vector_alone(tmp_path, vector):
    save_vector(vector, tmp_path / "one")
    save_vector(load_vector(tmp_path / "one"), tmp_path / "elsewhere" / "two")
    save_gguf(vector, tmp_path / "one.gguf", "llama")
    save_gguf(vector, tmp_path / "elsewhere" / "two.gguf", "llama")
    for suffix in ("json", "safetensors", "gguf"):
        first = (tmp_path / f"one.{suffix}").read_bytes()
        assert first == (tmp_path / "elsewhere" / f"two.{suffix}").read_bytes()
        assert str(tmp_path).encode() not in first


def test_the_sidecar_can_be_changed_by_hand_and_says_what_is_wrong_with_it(tmp_path, vector):
    save_vector(vector, tmp_path / "v")
    sidecar = tmp_path / "v.json"
    about = json.loads(sidecar.read_text())
    assert about["tensors_sha256"] == sha256_file(tmp_path / "v.safetensors")
    sidecar.write_text(json.dumps(about | {"coefficient": -2, "positions": "at(0)"}))
    changed = load_vector(sidecar)
    assert (changed.coefficient, changed.positions) == (-2.0, at([0]))
    for wrong, message in (
        ({"positions": "FIRST"}, "Positions are PROMPT"),
        ({"coefficient": float("nan")}, "finite number"),
        ({"coefficient": "much"}, "coefficient"),
        ({"strength": 2}, "strength"),
        ({"points": ["1.resid_post"]}, "holds directions of"),
    ):
        sidecar.write_text(json.dumps(about | wrong))
        with pytest.raises(UserError, match=message) as found:
            load_vector(sidecar)
        assert "v.json" in str(found.value)


def test_one_tensor_may_stand_at_many_layers(tmp_path, direction):
    one = direction(0)
    points = [HookPoint(i, "resid_post") for i in range(3)]
    save_vector(SteeringVector(directions=dict.fromkeys(points, one), source="x"), tmp_path / "v")
    loaded = load_vector(tmp_path / "v")
    assert all(torch.equal(loaded.directions[point], one) for point in points)


def test_what_is_no_vector_is_named(tmp_path, vector):
    with pytest.raises(UserError, match="There is no steering vector"):
        load_vector(tmp_path / "none.json")
    with pytest.raises(UserError, match="There is no file"):
        load_vector(tmp_path / "none.gguf")
    (tmp_path / "other.json").write_text('{"k": 3}')
    with pytest.raises(UserError, match=r"other\.json describes no steering vector"):
        load_vector(tmp_path / "other.json")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(DamagedError, match="is not JSON"):
        load_vector(tmp_path / "broken.json")
    write_tensors(tmp_path / "alone.safetensors", {"x": torch.zeros(3)})
    with pytest.raises(UserError, match=r"has no alone\.json beside it"):
        load_vector(tmp_path / "alone.safetensors")
    with pytest.raises(UserError, match="which save_gguf writes"):
        save_vector(vector, tmp_path / "v.gguf")


def test_a_damaged_or_missing_file_of_tensors_is_named(tmp_path, vector):
    save_vector(vector, tmp_path / "v")
    tensors = tmp_path / "v.safetensors"
    whole = tensors.read_bytes()
    tensors.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(DamagedError, match=r"v\.safetensors is damaged"):
        load_vector(tmp_path / "v.json")
    tensors.unlink()
    with pytest.raises(DamagedError, match=r"has no v\.safetensors beside it"):
        load_vector(tmp_path / "v.json")


def test_numbers_that_are_none_are_refused_wherever_they_come_from(tmp_path, vector):
    with pytest.raises(InterventionError, match=r"The vector at 1\.resid_post got .* NaN"):
        SteeringVector(directions={HookPoint("1.resid_post"): torch.tensor([np.nan])}, source="x")
    with pytest.raises(InterventionError, match="at one hook point at least"):
        SteeringVector(directions={}, source="x")
    save_vector(vector, tmp_path / "v")
    write_tensors(tmp_path / "v.safetensors", {str(p): d / 0 for p, d in vector.directions.items()})
    about = json.loads((tmp_path / "v.json").read_text())
    about["tensors_sha256"] = sha256_file(tmp_path / "v.safetensors")
    (tmp_path / "v.json").write_text(json.dumps(about))
    with pytest.raises(InterventionError, match=r"v\.json cannot be used: .* NaN"):
        load_vector(tmp_path / "v.json")
    repengs_file(tmp_path / "r.gguf", {1: np.full(16, np.nan, dtype=np.float32)})
    with pytest.raises(InterventionError, match=r"r\.gguf cannot be used: .* NaN"):
        load_vector(tmp_path / "r.gguf")


def test_gguf_keeps_everything_but_the_coefficient_which_it_multiplies_in(tmp_path, vector):
    save_gguf(vector, tmp_path / "v.gguf", "llama")
    loaded = load_vector(tmp_path / "v.gguf")
    scaled = SteeringVector(
        directions={point: 1.5 * value for point, value in vector.directions.items()},
        positions=vector.positions,
        source=vector.source,
        model=vector.model,
        provenance=vector.provenance,
    )
    assert_same(loaded, scaled)


def test_repeng_reads_what_is_written_here(tmp_path, vector):
    save_gguf(vector, tmp_path / "v.gguf", "llama")
    architecture, hint, directions = as_in_repeng(tmp_path / "v.gguf")
    assert (architecture, hint, list(directions)) == ("controlvector", "llama", [1, 2])
    for layer, values in directions.items():
        expected = 1.5 * vector.directions[HookPoint(layer, "resid_post")]
        assert values.dtype == np.float32
        assert np.array_equal(values, expected.numpy())


def test_a_file_of_repeng_is_added_to_what_its_blocks_give(tmp_path, model):
    random = np.random.default_rng(0)
    # repeng goes through the layers from the last to the second.
    given = {layer: random.standard_normal(16).astype(np.float32) for layer in (2, 1)}
    vector = load_vector(repengs_file(tmp_path / "v.gguf", given))
    assert (vector.coefficient, vector.model, vector.positions) == (1.0, None, ALL)
    assert "llama" in vector.source
    assert vector.provenance == {"model_hint": "llama"}
    vector.check_model(model)
    tokens, mask = model.tokenize(["some text"])
    with steer(model, vector.edits(), vector.positions):
        steered = model.forward(tokens, mask)

    def added(layer: int):
        # What repeng's ControlModule does around a block.
        def hook(_module, _inputs, output):
            values = torch.from_numpy(given[layer])
            return (
                (output[0] + values, *output[1:]) if isinstance(output, tuple) else output + values
            )

        return hook

    handles = [model.blocks[i].register_forward_hook(added(i)) for i in given]
    by_hand = model.forward(tokens, mask)
    for handle in handles:
        handle.remove()
    torch.testing.assert_close(steered, by_hand, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(steered, model.forward(tokens, mask), atol=1e-2)


def test_what_gguf_cannot_say_is_not_written(tmp_path, vector, direction):
    streams = SteeringVector(
        directions={HookPoint("1.mlp_out"): direction(0), **vector.directions}, source="x"
    )
    with pytest.raises(InterventionError, match=r"acts at 1\.mlp_out"):
        save_gguf(streams, tmp_path / "v.gguf", "llama")
    relative = SteeringVector(directions=vector.directions, is_relative=True, source="x")
    with pytest.raises(InterventionError, match="units of the activation's norm"):
        save_gguf(relative, tmp_path / "v.gguf", "llama")
    assert not list(tmp_path.iterdir())
    first = SteeringVector(directions={HookPoint("0.resid_post"): direction(0)}, source="x")
    with pytest.warns(UserWarning, match=r"llama\.cpp refuses"):
        save_gguf(first, tmp_path / "v.gguf", "llama")
    assert list(load_vector(tmp_path / "v.gguf").directions) == [HookPoint("0.resid_post")]


def test_files_of_another_kind_or_half_files_are_no_control_vectors(tmp_path):
    values = np.ones(16, dtype=np.float32)
    path = repengs_file(tmp_path / "model.gguf", {1: values}, architecture="llama")
    with pytest.raises(UserError, match="should be 'controlvector', it is 'llama'"):
        load_vector(path)
    path = repengs_file(tmp_path / "names.gguf", {1: values}, prefix="projection")
    with pytest.raises(UserError, match=r"tensor 'projection\.1'"):
        load_vector(path)
    path = repengs_file(tmp_path / "shape.gguf", {1: np.ones((2, 8), dtype=np.float32)})
    with pytest.raises(UserError, match=r"direction\.1 in .* must be floats \[d_model\]"):
        load_vector(path)
    path = repengs_file(tmp_path / "none.gguf", {})
    with pytest.raises(InterventionError, match=r"none\.gguf cannot be used"):
        load_vector(path)
    whole = repengs_file(tmp_path / "whole.gguf", {1: values}).read_bytes()
    for content in (b"", b"NOPE" + whole[4:], whole[:40], whole[:-8]):
        (tmp_path / "half.gguf").write_bytes(content)
        with pytest.raises(DamagedError, match=r"half\.gguf is not a whole GGUF file"):
            load_vector(tmp_path / "half.gguf")


def test_what_was_written_beside_the_directions_is_checked(tmp_path):
    for about, kind in (("{", DamagedError), (canonical_json({"model": 3}), InterventionError)):
        writer = GGUFWriter(tmp_path / "v.gguf", "controlvector")
        writer.add_string("fluoroscope.vector", about)
        writer.add_tensor("direction.1", np.ones(16, dtype=np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        with pytest.raises(kind, match=r"v\.gguf"):
            load_vector(tmp_path / "v.gguf")


def test_without_the_package_it_is_said_how_to_get_it(tmp_path, vector, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    for act in (
        lambda: load_vector(tmp_path / "v.gguf"),
        lambda: save_gguf(vector, tmp_path / "v.gguf", "llama"),
    ):
        with pytest.raises(UserError, match=r"pip install 'fluoroscope\[gguf\]'"):
            act()


def test_a_vector_of_another_model_names_both(vector, model):
    vector.check_model(model)
    other = tiny_model("llama", seed=1)
    with pytest.raises(MismatchError, match=r"model tiny-llama-0 .* with tiny-llama-1"):
        vector.check_model(other)
    foreign = SteeringVector(directions=vector.directions, source="found somewhere")
    foreign.check_model(other)
    with pytest.raises(MismatchError, match=r"acts at 2\.resid_post, .* layers 0 to 1"):
        foreign.check_model(tiny_model("llama", num_hidden_layers=2))
    with pytest.raises(MismatchError, match=r"has width 16 .* has width 32"):
        foreign.check_model(tiny_model("llama", hidden_size=32))
    with pytest.raises(InterventionError, match="named by its weights_sha256"):
        SteeringVector(directions=vector.directions, source="x", model={"id": "gpt2"})


@pytest.mark.parametrize("is_relative", [False, True])
def test_a_vector_is_the_directions_added_by_hand(double_model, direction, is_relative):
    model = double_model("gpt2")
    points = {HookPoint("0.mlp_out"): direction(0), HookPoint("1.resid_post"): direction(1)}
    vector = SteeringVector(
        directions=points, coefficient=0.7, is_relative=is_relative, positions=LAST, source="x"
    )
    assert all(isinstance(edit, AddDirection) for edit in vector.edits().values())
    tokens, mask = model.tokenize(["some text"])
    with steer(model, vector.edits(), vector.positions):
        steered = model.forward(tokens, mask)

    def hook(values):
        def add(x):
            amount = x[:, -1:].norm(dim=-1, keepdim=True) / values.norm() if is_relative else 1.0
            return torch.cat([x[:, :-1], x[:, -1:] + 0.7 * amount * values], dim=1)

        return add

    with model.hooked({point: hook(values) for point, values in points.items()}):
        by_hand = model.forward(tokens, mask)
    torch.testing.assert_close(steered, by_hand, atol=1e-9, rtol=0)


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_mean_difference_is_that_of_each_text_alone(double_model, side):
    model = double_model("llama")
    model.tokenizer.padding_side = side
    points = [HookPoint("2.resid_post"), HookPoint("0.attn_out")]
    positive, negative = TEXTS[:3], TEXTS[3:]

    def mean(texts, point):
        rows = []
        for text in texts:
            tokens = torch.tensor([model.tokenizer(text)["input_ids"]])
            rows.append(capture(model, tokens, [point])[point][0, -1])
        return torch.stack(rows).mean(dim=0)

    for batch_size in (2, 32):
        vector = mean_difference(
            model, positive, negative, ["2.resid_post", points[1]], batch_size=batch_size
        )
        assert set(vector.directions) == set(points)
        for point in points:
            by_hand = (mean(positive, point) - mean(negative, point)).float()
            torch.testing.assert_close(vector.directions[point], by_hand, atol=1e-6, rtol=1e-6)
    assert vector.positions == LAST | GENERATED
    assert vector.model == model.identity.to_json()
    assert (vector.provenance["n_positive"], vector.provenance["n_negative"]) == (3, 2)


def test_a_mean_of_nothing_is_refused(model):
    with pytest.raises(InterventionError, match="got no negative text"):
        mean_difference(model, ["a"], [], "all.resid_post")
    tokenizer = tiny_model("gpt2").tokenizer
    tokenizer.backend_tokenizer.post_processor = None
    bare = tiny_model("gpt2")
    bare.tokenizer = tokenizer
    with pytest.raises(InterventionError, match=r"The positive text 1 \(''\) has no token"):
        mean_difference(bare, ["a", ""], ["b"], "all.resid_post")


def test_adding_a_latents_vector_is_setting_it_to_more(double_model, double_sae):
    model, sae = double_model("llama"), double_sae(point="1.resid_post")
    tokens, mask = model.tokenize(["some text"])
    x = capture(model, tokens, ["1.resid_post"])["1.resid_post"][0, -1]
    latent = int(sae.encode(x).argmax())
    own = float(sae.encode(x)[latent])
    vector = latent_vector(sae, latent, 2.5, model.identity)
    vector.check_model(model)
    with steer(model, vector.edits(), LAST):
        added = model.forward(tokens, mask)
    with steer(model, {"1.resid_post": SetLatent(sae, latent, own + 2.5)}, LAST):
        torch.testing.assert_close(model.forward(tokens, mask), added, atol=1e-9, rtol=0)
    assert vector.provenance["latent"] == latent
    with pytest.raises(InterventionError, match="There is no latent 40"):
        latent_vector(sae, 40, 1.0, model.identity)
    with pytest.raises(InterventionError, match="which hook point"):
        latent_vector(double_sae(), 0, 1.0, model.identity)


@pytest.fixture(scope="module")
def truth():
    return load_truth()


@pytest.mark.parametrize("variable", VARIABLES)
def test_a_planted_vector_is_a_unit_towards_more_of_its_variable(organism_model, truth, variable):
    vector = planted_vector(variable)
    vector.check_model(organism_model)
    ((point, direction),) = vector.directions.items()
    assert float(direction.norm()) == pytest.approx(1, abs=1e-5)
    prompts = [one for pair in draw_pairs(truth.world, variable, 16) for one in pair]
    components = decision_streams(truth.readout, prompts)[point.layer] @ direction
    values = [prompt.value for prompt in prompts]
    assert np.corrcoef(components.numpy(), values)[0, 1] > 0.8


def test_what_was_not_planted_is_named():
    with pytest.raises(ConfigError, match="Did you mean 'sentiment'"):
        planted_vector("sentimental")
