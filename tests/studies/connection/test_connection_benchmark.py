"""The benchmark's parts at tiny sizes; what they compare is the same, and says so of itself."""

import polars as pl
import pytest
import torch
from small_connection_study import NETWORK, small_settings
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.connection import PARTS, measure
from benchmarks.connection_accuracy import Accuracies, accuracy
from benchmarks.connection_forms import CHEAP, FORMS
from benchmarks.connection_length import QUICK_LENGTHS, Reader, slot_config
from benchmarks.connection_memory import peak_mib
from benchmarks.connection_parts import (
    COLUMNS,
    EINSUM,
    FAST,
    NAIVE,
    Size,
    one_pass,
    pair_connection,
    way_of,
)
from benchmarks.connection_scales import base_scale, pointer_settings, walks_scale
from benchmarks.harness import markdown
from fluoroscope.core.config import build
from fluoroscope.core.errors import ConfigError, RunError
from fluoroscope.runs.how import How
from fluoroscope.runs.record import RunRecord, write_record
from fluoroscope.studies.connection.baselines.matching import like
from fluoroscope.studies.connection.reasoners import count_parameters

TINY = Size(5, 8, 3, batch=2)


@pytest.mark.parametrize("name", [NAIVE, EINSUM])
def test_ways_hear_and_learn_the_same(name):
    connection, slots = pair_connection(TINY), TINY.slots()
    fast, other = way_of(FAST, connection), way_of(name, connection)
    heard = one_pass(fast, slots, learns=True)
    learned = [slots.grad, *(weight.grad for weight in connection.parameters())]
    torch.testing.assert_close(one_pass(other, slots, learns=True), heard)
    theirs = [weight.grad for weight in other.weights]
    if name == EINSUM:
        theirs = [theirs[0].transpose(1, 2), theirs[1].transpose(0, 1)]
    for mine, same in zip(learned, [slots.grad, *theirs], strict=True):
        torch.testing.assert_close(mine, same)


@pytest.mark.parametrize("name", [EINSUM, FAST])
def test_the_floor_is_what_both_ways_compute(name):
    way, slots = way_of(name, pair_connection(TINY)), TINY.slots()
    with FlopCounterMode(display=False) as counted:
        one_pass(way, slots, learns=False)
    assert counted.get_total_flops() == TINY.flops
    assert sum(weight.numel() for weight in way.weights) * 4 == TINY.weight_bytes


def test_a_peak_holds_the_gradients_of_the_weights():
    large = Size(64, 160, 16, batch=1)
    peak = peak_mib(FAST, large)
    assert large.weight_bytes / 2**20 <= peak < 3 * large.weight_bytes / 2**20


@pytest.mark.parametrize(
    ("part", "n_rows"),
    [
        ("operator", 3 * 4 + 4 + 3),
        ("forms", 4 * len(FORMS)),
        ("length", 3 * len(QUICK_LENGTHS) + 3),
    ],
)
def test_parts_run_at_tiny_sizes(part, n_rows):
    outcome = measure(1, [part], is_quick=True)
    assert len(outcome.rows) == n_rows
    assert all(len(row) == len(COLUMNS) for row in outcome.rows)
    assert outcome.goals
    assert all(seconds > 0 for one in outcome.timings.values() for seconds in one.cpu_seconds)
    assert "small sizes" in markdown(outcome)


def test_a_part_that_does_not_exist_is_refused():
    with pytest.raises(ConfigError, match=f"'speed'.*{PARTS[0]}"):
        measure(1, ["speed"], is_quick=True)


def test_every_cheap_form_has_at_least_20_times_fewer_weights_at_the_base_size():
    counts = {f: count_parameters(base_scale(False).with_form(f)).connections for f in FORMS}
    assert all(20 * counts[form] <= counts["bilinear"] for form in CHEAP)


def test_a_slot_has_fewer_sources_than_there_are_slots():
    walks = walks_scale(pointer_settings(), is_quick=False)
    assert walks.form("top_k").k < walks.network.n_slots
    assert base_scale(False).form("top_k") == base_scale(False).network.connection.model_copy(
        update={"name": "top_k"}
    )


def test_operations_of_reading_are_linear_for_slots_and_square_for_a_transformer():
    slots = slot_config(True, 64)
    transformer = like(slots, "transformer")
    second_differences = []
    for reader in (Reader("", slots, 0), Reader("", slots), Reader("", transformer)):
        first, second, third = (reader.flops(n) for n in (16, 32, 48))
        second_differences.append(third - 2 * second + first)
    # Scores and what they mix: 2 products of 2 S^2 d each, in every layer.
    squares = 48**2 - 2 * 32**2 + 16**2
    assert second_differences == [0, 0, 4 * 16 * transformer.n_encoder_layers * squares]


def test_accuracies_are_those_of_a_run(tmp_path):
    write_run(tmp_path)
    found = Accuracies.of_run(tmp_path)
    assert found.sets == ("pointer_fixed",)
    assert found.of("pointer_fixed", "scalar") == "0.500 (0.400 to 0.600), deeper 0.375"
    assert found.of("pointer_fixed", "bilinear") == "0.900 (0.800 to 1.000)"
    assert found.of("pointer_fixed", "gated") is None
    assert "2 seeds" in found.describe()


def test_runs_that_differ_in_their_arms_alone_stand_in_one_table(tmp_path):
    folders = [tmp_path / name for name in ("one", "two", "other")]
    for folder, n_slots in zip(folders, (6, 6, 7), strict=True):
        folder.mkdir()
        write_run(folder, network={**NETWORK, "n_slots": n_slots})
    part = accuracy(folders[:2])
    assert [line[1] for line in part.rows] == ["bilinear", "scalar"]
    assert all(line[-1] == "run one" and int(line[2].replace(",", "")) > 0 for line in part.rows)
    with pytest.raises(ConfigError, match="one and other asked pointer_fixed with other settings"):
        accuracy(folders)


def test_a_folder_without_tables_has_no_accuracies(tmp_path):
    with pytest.raises(RunError):
        Accuracies.of_run(tmp_path)
    write_run(tmp_path)
    (tmp_path / "tables" / "accuracy.csv").unlink()
    with pytest.raises(ConfigError, match="fluoro run connection"):
        Accuracies.of_run(tmp_path)


def write_run(folder, **changes):
    """Of `bilinear` under its name as the main arm, `scalar` with depths, and a set of texts."""
    here = "fluoroscope.studies.connection"
    record = {
        "study": "connection",
        "study_class": f"{here}.study:ConnectionStudy",
        "spec_class": f"{here}.spec:ConnectionSpec",
        "config_class": f"{here}.config:ConnectionConfig",
        "spec": small_settings(**changes),
        "config": {**small_settings(**changes), "precision": "float32"},
        "how": How(),
        "arguments": (),
        "steps": (),
        "provenance": {},
    }
    write_record(folder, build(RunRecord, record))
    rows = [
        ("pointer_fixed", "slots", 0.9, 0.8, 1.0, 2),
        ("pointer_fixed", "scalar", 0.5, 0.4, 0.6, 2),
        ("sst2", "scalar", 0.7, 0.6, 0.8, 2),
        ("pointer_fixed", "majority", 0.1, 0.0, 0.2, None),
    ]
    names = ["data_set", "arm", "accuracy", "accuracy_low", "accuracy_high", "n_seeds"]
    depths = [("scalar", 2, 0.75, 9), ("scalar", 3, 0.5, 10), ("scalar", 4, 0.25, 10)]
    frame = pl.DataFrame(depths, schema=["arm", "depth", "accuracy", "n"], orient="row")
    (folder / "tables").mkdir(exist_ok=True)
    pl.DataFrame(rows, schema=names, orient="row").write_csv(folder / "tables" / "accuracy.csv")
    frame.insert_column(0, pl.lit("pointer_fixed").alias("data_set")).write_csv(
        folder / "tables" / "depths.csv"
    )
