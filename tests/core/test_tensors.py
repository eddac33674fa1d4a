import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fluoroscope.core.errors import DamagedError
from fluoroscope.core.tensors import (
    read_metadata,
    read_state,
    read_tensors,
    write_state,
    write_tensors,
)

LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3)
)
TENSORS = st.integers(0, 4).map(lambda n: torch.arange(n, dtype=torch.float32))
STATES = st.recursive(
    LEAVES | TENSORS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
    ),
    max_leaves=8,
)


def plain(value):
    """As lists, so that two states can be compared with ==."""
    if isinstance(value, torch.Tensor):
        return ("tensor", str(value.dtype), value.tolist())
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return (type(value).__name__, [plain(item) for item in value])
    return value


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.bool]
)
def test_tensors_come_back_with_their_type_and_shape(tmp_path, dtype):
    tensors = {"matrix": torch.eye(3).to(dtype), "scalar": torch.tensor(1).to(dtype)}
    write_tensors(tmp_path / "file.safetensors", tensors, {"layer": 3})
    found = read_tensors(tmp_path / "file.safetensors")
    for name, tensor in tensors.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=0)
    assert read_metadata(tmp_path / "file.safetensors") == {"layer": 3}


def test_bytes_depend_on_content_alone(tmp_path):
    one, two = {"a": torch.zeros(2), "b": torch.ones(2)}, {"b": torch.ones(2), "a": torch.zeros(2)}
    write_tensors(tmp_path / "one", one, {"x": 1, "y": 2})
    write_tensors(tmp_path / "two", two, {"y": 2, "x": 1})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_transposed_tensor_is_written_as_it_reads(tmp_path):
    tensor = torch.arange(6.0).reshape(2, 3).T
    write_tensors(tmp_path / "file", {"a": tensor})
    torch.testing.assert_close(read_tensors(tmp_path / "file")["a"], tensor)


@given(state=st.dictionaries(st.text(max_size=3), STATES, max_size=3))
def test_a_state_comes_back_as_it_was(tmp_path_factory, state):
    path = tmp_path_factory.mktemp("state") / "state.safetensors"
    write_state(path, state)
    assert plain(read_state(path)) == plain(state)


def test_an_optimisers_state_goes_on_where_it_stopped(tmp_path):
    def train(optimizer, weight, steps):
        for _ in range(steps):
            optimizer.zero_grad()
            (weight**2).sum().backward()
            optimizer.step()

    weight = torch.ones(3, requires_grad=True)
    optimizer = torch.optim.Adam([weight])
    train(optimizer, weight, 3)
    write_state(tmp_path / "state", {"weight": weight, "optimizer": optimizer.state_dict()})
    train(optimizer, weight, 2)

    state = read_state(tmp_path / "state")
    again = state["weight"].clone().requires_grad_()
    resumed = torch.optim.Adam([again])
    resumed.load_state_dict(state["optimizer"])
    train(resumed, again, 2)
    assert torch.equal(again, weight)


def test_keys_with_dots_do_not_hide_one_another(tmp_path):
    state = {"a.b": torch.zeros(1), "a": {"b": torch.ones(1)}}
    write_state(tmp_path / "state", state)
    assert plain(read_state(tmp_path / "state")) == plain(state)


def test_tensors_that_share_memory_may_stand_in_one_state(tmp_path):
    tensor = torch.ones(2)
    write_state(tmp_path / "state", {"a": tensor, "b": tensor[:1], "c": tensor})
    assert read_state(tmp_path / "state")["b"].tolist() == [1.0]


def test_a_state_does_not_change_with_the_tensor_it_was_taken_of(tmp_path):
    tensor = torch.ones(2)
    write_state(tmp_path / "state", {"a": tensor})
    found = read_state(tmp_path / "state")
    tensor.zero_()
    assert found["a"].tolist() == [1.0, 1.0]


def test_a_cut_off_file_is_called_damaged(tmp_path):
    path = tmp_path / "file.safetensors"
    write_tensors(path, {"a": torch.zeros(100)})
    whole = path.read_bytes()
    for content in (whole[:-1], whole[:5], b""):
        path.write_bytes(content)
        with pytest.raises(DamagedError, match=r"file\.safetensors is not a whole"):
            read_tensors(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DamagedError, match=r"absent\.safetensors is missing"):
        read_tensors(tmp_path / "absent.safetensors")


def test_a_file_of_others_has_no_metadata_of_ours(tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "theirs", {"format": "pt"})
    assert read_metadata(tmp_path / "theirs") is None
    assert json.dumps(read_tensors(tmp_path / "theirs")["a"].tolist()) == "[0.0]"
