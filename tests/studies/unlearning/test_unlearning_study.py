"""The whole study: people of the organism, any two files, and what its steps left."""

import numpy as np
import polars as pl
import pytest
from small_unlearning import texts_spec

from fluoroscope.core.errors import FluoroscopeError
from fluoroscope.core.sink import SILENT
from fluoroscope.core.storage import read_json
from fluoroscope.runs.engine import execute
from fluoroscope.runs.how import How
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import ShardContext
from fluoroscope.studies.settings import study_spec
from fluoroscope.studies.unlearning.report_findings import load_findings
from fluoroscope.studies.unlearning.report_methods import methods_table
from fluoroscope.studies.unlearning.report_verdict import caveats, gates, headline
from fluoroscope.studies.unlearning.steps.select import SelectStep, chosen_latents, load_choices
from fluoroscope.studies.unlearning.steps.tune import load_settings
from fluoroscope.studies.unlearning.study import UnlearningStudy

pytestmark = pytest.mark.long


@pytest.fixture(autouse=True)
def _no_pictures(no_pictures):
    """What is drawn is tested where figures are."""


def executed(root, spec, **how):
    return execute(UnlearningStudy(), spec, "run", How(devices="cpu"), root=root, **how)


@pytest.fixture(scope="module")
def texts_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fluoroscope.runs.report.save_chart", lambda *_: None)
        return executed(folder, texts_spec(folder / "data"))


def test_every_number_of_latents_is_the_first_ranks_of_the_largest(texts_run):
    choices = load_choices(texts_run)
    settings = {"selection": "frequency", "threshold": 0.05, "hook_points": ["4.resid_post"]}
    few = chosen_latents(choices, {**settings, "n": 3})
    many = chosen_latents(choices, {**settings, "n": 8})
    [(point, own)] = many.items()
    assert few[point] == own[:3]
    controls = chosen_latents(choices, {**settings, "n": 8}, draw=1)[point]
    assert len(controls) == len(own)
    assert not set(controls) & set(own)


def test_what_is_chosen_keeps_within_the_margin_or_is_said_not_to(texts_run):
    tried = pl.read_parquet(texts_run.step_folder("tune") / "tried.parquet")
    for name, row in load_settings(texts_run).items():
        kind, _, selection = name.partition("-")
        own = tried.filter((pl.col("kind") == kind) & (pl.col("selection") == selection))
        assert own["is_chosen"].sum() == 1
        assert row["is_within"] == (row["lost"] <= 0.02 + 1e-9)


def test_the_untreated_model_does_not_move_and_static_clamping_moves_all(texts_run):
    drift = pl.read_parquet(texts_run.step_folder("evaluate") / "drift.parquet")
    moved = {(row["plan"], row["texts"]): row for row in drift.iter_rows(named=True)}
    assert moved["untreated", "forget"]["kl"] == pytest.approx(0, abs=1e-9)
    assert moved["untreated", "retain"]["perplexity_ratio"] == 1
    assert moved["everywhere", "forget"]["perplexity_ratio"] > 1.05
    assert moved["everywhere", "forget"]["perplexity_ratio_low"] is not None


def test_of_texts_the_report_speaks_of_perplexities(texts_run):
    found = load_findings(texts_run, texts_run.config)
    assert not found.has_samples
    assert "perplexity" in headline(found)[0]
    assert caveats(found)
    table = methods_table(found)
    assert {"forget_ratio", "retain_ratio"} <= set(table.columns)
    assert (texts_run.folder / "report.html").exists()
    curves = pl.read_parquet(texts_run.step_folder("relearn") / "curves.parquet")
    assert curves["perplexity"].is_finite().all()


def test_fine_tuning_keeps_the_look_with_the_least_shortfall(texts_run):
    looks = read_json(texts_run.step_folder("finetune") / "shards" / "00" / "looks.json")
    least = min(looks, key=lambda look: look["shortfall"])
    assert [look["is_kept"] for look in looks] == [look is least for look in looks]
    assert [look["iteration"] for look in looks] == [2, 4]


def test_no_latent_that_passes_is_said_with_the_setting_to_change(texts_run, tmp_path):
    """Every latent is active in every token to keep."""
    step = SelectStep(texts_run.config)
    table = pl.read_parquet(texts_run.step_folder("statistics") / "latents.parquet")
    table.with_columns(retain_frequency=pl.lit(1.0)).write_parquet(tmp_path / "latents.parquet")

    class Elsewhere(Run):
        def step_folder(self, name):
            return tmp_path

    elsewhere = Elsewhere(tmp_path, "unlearning", step.config)
    context = ShardContext(tmp_path, SILENT, "cpu")
    with pytest.raises(FluoroscopeError, match=r"(?s)max_retain=0\.05.*select\.max_retain"):
        step.work(elsewhere, step.shards(texts_run)[0], context)


@pytest.mark.slow
def test_the_tiny_preset_forgets_where_the_detector_says_so_and_keeps_the_others(tmp_path):
    run = executed(tmp_path, study_spec("unlearning", "tiny", None, []))
    found = load_findings(run, run.config)
    assert all(gate.passed for gate in gates(found))
    assert found.forgetting("conditional-frequency").value < 0.3
    assert found.keeping("conditional-frequency").value > 0.97
    assert found.keeping("everywhere").value < 0.6
    assert found.forgetting("zero-everywhere").value > 0.9
    assert "not by the choice of latents" in " ".join(caveats(found))
    # Whoever is on one side is not on the other.
    people = pl.read_parquet(run.step_folder("evaluate") / "people.parquet")
    sides = [set(people.filter(pl.col("set") == side)["group"]) for side in ("forget", "retain")]
    assert not sides[0] & sides[1]
    shares = people.filter(pl.col("plan") == "untreated")["accuracy"].to_numpy()
    assert np.all(shares == 1)
