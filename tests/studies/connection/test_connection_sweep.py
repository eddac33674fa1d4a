"""The phases of the plan: who is trained, who goes on, and that sizes are told apart."""

import subprocess
import sys
from dataclasses import replace

import polars as pl
import pytest
from small_connection_study import (
    NETWORK,
    TRAINING,
    run_few_phases,
    run_small,
    step_bytes,
)
from strikes import end_after_strikes

from fluoroscope.core.config import build
from fluoroscope.core.errors import ConfigError
from fluoroscope.core.storage import read_json
from fluoroscope.runs.run import Run
from fluoroscope.studies.connection.dry_run import Workload
from fluoroscope.studies.connection.network.network_config import (
    ConnectionConfig,
    NetworkConfig,
    OutputConfig,
)
from fluoroscope.studies.connection.phases import arms_of_phase, large_of
from fluoroscope.studies.connection.planner import plan_training
from fluoroscope.studies.connection.reasoners import count_parameters
from fluoroscope.studies.connection.report_sweep import who_goes_on
from fluoroscope.studies.connection.steps.phase import best_arm
from fluoroscope.studies.connection.study import ConnectionStudy
from fluoroscope.studies.connection.sweep_config import PHASES, SweepConfig

pytestmark = pytest.mark.usefixtures("no_pictures")

SWEEP = {"is_on": True, "ratios": [0.5], "ranks": [1], "thresholds": [1], "changes": [0.3]}
CHANGES = {"sweep": SWEEP, "seeds": 1, "training": {**TRAINING, "max_epochs": 1}}
BASE = NetworkConfig()


def _between(share: float) -> float:
    """GiB between what the smallest and the largest arm of phase 1 need."""
    network = build(NetworkConfig, {**NETWORK, "vocab_size": 16})
    needs = [
        plan_training(one.network, Workload(16, 16, 4)).needs.total
        for one in arms_of_phase("phase1", network, build(SweepConfig, SWEEP))
        if one.kind == "slots"
    ]
    return (min(needs) + share * (max(needs) - min(needs))) / 2**30


@pytest.fixture(scope="module")
def swept(tmp_path_factory) -> Run:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fluoroscope.runs.report.save_chart", lambda *_: None)
        return run_small(tmp_path_factory.mktemp("runs"), **CHANGES)


@pytest.mark.slow
def test_each_phase_goes_on_with_the_winner_of_the_one_before(swept):
    handed = build(NetworkConfig, NETWORK)
    for phase in PHASES:
        winner = read_json(swept.step_folder(phase) / "winner.json")
        arms = {one.name: one for one in arms_of_phase(phase, handed, build(SweepConfig, SWEEP))}
        assert arms[winner["arm"]].may_win
        handed = arms[winner["arm"]].network
        assert winner["network"] == handed.model_dump(mode="json")
        best = max(winner["validation_accuracy"].values())
        assert winner["validation_accuracy"][winner["arm"]] == best
    assert (swept.folder / "tables" / "final.csv").exists()


@pytest.mark.slow
def test_tables_say_size_and_role_of_every_arm(swept):
    table = pl.read_csv(swept.folder / "tables" / "phase1.csv")
    assert set(table["role"]) == {"plan", "beside"}
    sizes = dict(table.select("arm", "connections").iter_rows())
    assert sizes["bilinear_base"] == 2 * 4**2 * 16 * 2
    assert sizes["bilinear_large"] == 16 * sizes["bilinear_base"]
    assert sizes["none"] == 0


def test_the_plans_arms_are_of_the_plans_sizes_and_matched_ones_of_one():
    sizes = {
        one.name: (one.role, count_parameters(one.network).connections)
        for one in arms_of_phase("phase2", BASE, SweepConfig())
    }
    base = 2 * 128**2 * 256 * 32
    assert sizes["as_before"] == ("beside", base)
    assert sizes["slots_512"] == ("plan", 16 * base)
    matched = [size for role, size in sizes.values() if role == "matched"]
    assert len(matched) == 3
    assert all(abs(size / base - 1) < 0.02 for size in matched)
    ranks = [one for one in arms_of_phase("phase3", BASE, SweepConfig()) if one.role == "matched"]
    assert {one.network.connection.rank for one in ranks} == {8, 16, 64}
    assert all(abs(count_parameters(one.network).connections / base - 1) < 0.05 for one in ranks)


def test_who_is_to_stop_by_itself_is_not_told_when_and_who_wins_goes_on_so():
    arms = arms_of_phase("phase4", BASE, SweepConfig())
    assert {one.name for one in arms if one.steps != "halting"} == {"as_before"}
    assert all(
        one.steps == "halting" for one in arms_of_phase("final", BASE, SweepConfig(), "halting")
    )
    assert all(one.steps is None for one in arms_of_phase("final", BASE, SweepConfig()))


@pytest.mark.slow
def test_rules_of_stopping_are_asked_also_where_others_are_told_their_steps(tmp_path):
    sweep = {**SWEEP, "changes": [1000]}
    training = {
        **TRAINING,
        "max_epochs": 1,
        "thinking": {"steps": "by_depth", "supervised": "hops"},
    }
    arms = ("bilinear_base", "as_before", "change_1000", "steps_4", "best")
    run = run_few_phases(tmp_path, arms=arms, sweep=sweep, training=training)
    answers = pl.read_parquet(run.step_folder("phase4") / "answers.parquet").filter(side="test")
    steps = {arm: answers.filter(arm=arm)["n_steps"].to_list() for arm in arms[1:4]}
    assert set(steps["change_1000"]) == {1}
    assert set(steps["steps_4"]) == {4}
    assert steps["as_before"] == [2 * n for n in answers.filter(arm="as_before")["depth"]]
    winner = read_json(run.step_folder("phase4") / "winner.json")
    assert winner["steps"] == (None if winner["arm"] == "as_before" else "halting")
    final = pl.read_parquet(run.step_folder("final") / "answers.parquet").filter(side="test")
    assert final["n_steps"].to_list() == steps[winner["arm"]]
    assert "stop by their own rule" in (run.folder / "report.html").read_text(encoding="utf-8")


def test_the_large_network_is_the_plans():
    large = large_of(BASE)
    assert (large.d_model, large.n_slots, large.max_steps) == (512, 256, 8)
    assert (large.connection.rank, large.halting.threshold) == (64, 0.005)


@pytest.mark.slow
def test_what_does_not_fit_is_left_out_and_said(tmp_path):
    sweep = {**SWEEP, "largest_gib": _between(0.5)}
    run = run_small(tmp_path, **{**CHANGES, "sweep": sweep})
    arms = read_json(run.step_folder("phase1") / "arms.json")
    left = {one["arm"]: one["left_out"] for one in arms if one["left_out"]}
    trained = pl.read_parquet(run.step_folder("phase1") / "trainings.parquet")["arm"].to_list()
    assert left
    assert not left.keys() & set(trained)
    assert all("does not fit" in reason for reason in left.values())


@pytest.mark.slow
def test_where_nothing_fits_it_is_said_what_to_do(tmp_path):
    with pytest.raises(ConfigError, match="give more, or a smaller network"):
        run_small(tmp_path, **{**CHANGES, "sweep": {**SWEEP, "largest_gib": 0.001}})


def test_the_winner_is_of_the_validation_side_and_never_one_that_may_not_win():
    arms = arms_of_phase("phase1", BASE, SweepConfig())
    gains = {"none": 0.4, "transformer": 0.3, "gated": 0.1}
    trained = [{"dataset": "d", "arm": one.name, "seed": 0, "best_step": 8} for one in arms]
    looks = [
        {**row, "step": step, "validation_accuracy": 0.5 + gains.get(row["arm"], 0.0)}
        for row in trained
        for step in (4, 8)
    ]
    # A look that was not kept, and a set that others were left out of.
    looks[1] |= {"step": 12, "validation_accuracy": 1.0}
    looks.append({**looks[1], "step": 8, "validation_accuracy": 0.5})
    scalar = {"dataset": "other", "arm": "scalar", "seed": 0, "best_step": 8}
    frames = [pl.DataFrame(rows) for rows in (looks, trained)]
    assert best_arm(*frames, arms)["arm"] == "gated"
    more = [
        pl.DataFrame([*looks, {**scalar, "step": 8, "validation_accuracy": 0.0}]),
        pl.DataFrame([*trained, scalar]),
    ]
    assert best_arm(*more, arms)["arm"] == "scalar"
    cannot = [replace(one, may_win=one.name == "gated") for one in arms]
    with pytest.raises(ConfigError, match="No arm that may go on was trained on all"):
        best_arm(*more, cannot)


@pytest.mark.slow
def test_struck_in_every_phase_it_ends_with_the_same_bytes(swept, tmp_path, monkeypatch):
    monkeypatch.setattr(ConnectionStudy, "steps", ConnectionStudy.steps)
    run, strikes = end_after_strikes(
        ConnectionStudy,
        lambda: run_small(tmp_path / "runs", **CHANGES),
        ["phase1-merge", "final-merge"],
        tmp_path / "struck",
    )
    assert {*PHASES} <= strikes
    assert step_bytes(run) == step_bytes(swept)


def test_help_says_its_own_option_and_those_of_the_study():
    words = [sys.executable, "-m", "fluoroscope", "sweep", "connection", "--help"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "fluoro sweep connection" in done.stdout
    for option in ("--phase", "--preset", "sweep.ranks", "connection/tiny"):
        assert option in done.stdout


def test_a_phase_that_is_not_there_is_refused():
    words = [sys.executable, "-m", "fluoroscope", "sweep", "connection", "--phase", "5"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--phase is one of" in done.stderr


def test_arms_that_are_one_are_trained_once():
    network = NetworkConfig(
        d_model=16, n_slots=8, connection=ConnectionConfig(rank=4), output=OutputConfig(n_heads=4)
    )
    sweep = SweepConfig(ratios=[0.03, 0.05, 1], ranks=[8, 8], thresholds=[0.1, 0.1000000001])
    for phase in PHASES:
        names = [one.name for one in arms_of_phase(phase, network, sweep)]
        assert len(names) == len(set(names)), phase
    names = [one.name for one in arms_of_phase("phase2", network, sweep)]
    assert names.count("slots_2") == 1
    assert "slots_16" in names


def test_a_winner_among_equals_is_said_to_be_none():
    assert who_goes_on("a", {"a": 0.5, "b": 0.25}) == (
        "**a** goes on, with a validation accuracy of 0.500."
    )
    said = who_goes_on("a", {"a": 0.0, "b": 0.0, "c": 0.0})
    assert "0.000. It was not chosen for being right: so often were b, c, too" in said
