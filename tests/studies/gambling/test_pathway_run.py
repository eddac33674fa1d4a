"""The pathway as a step: on the organism, twice, and on a model that does not play."""

import polars as pl
import pytest

from fluoroscope.core.config import build
from fluoroscope.core.sink import Sink
from fluoroscope.core.storage import sha256_file
from fluoroscope.runs.engine import execute
from fluoroscope.runs.report import Report
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import ShardContext
from fluoroscope.studies.gambling.report_pathway import add_pathway
from fluoroscope.studies.gambling.spec import GamblingSpec
from fluoroscope.studies.gambling.steps.latents import ContrastStep, LatentsStep
from fluoroscope.studies.gambling.steps.pathway import (
    CORRELATIONS_FILE,
    EDGES_FILE,
    LENS_FILE,
    NODES_FILE,
    PATHS_FILE,
    PROBES_FILE,
    SHUFFLED_FILE,
    PathwayStep,
    read_pathway,
)
from fluoroscope.studies.gambling.steps.play import PlayStep
from fluoroscope.studies.gambling.steps.record import RecordStep
from fluoroscope.studies.gambling.study import GamblingStudy


class _Followed(GamblingStudy):
    """The study as far as the pathway needs it."""

    def steps(self, config):
        wanted = (PlayStep, RecordStep, LatentsStep, ContrastStep)
        return [*(kind(config) for kind in wanted), PathwayStep(config)]

    def report(self, run, sink):
        pass


SETTINGS = {
    "model": "organism",
    "saes": {"source": "organism:batch_topk", "hook_points": "3,4.resid_post"},
    "game": {
        "name": "slot_machine",
        "rules": {"wording": "organism", "max_balance": 9999, "components": "GP", "max_rounds": 12},
    },
    "play": {
        "repetitions": 12,
        "repetitions_per_shard": 12,
        "max_tokens": 8,
        "sampling": {"temperature": 1.0},
    },
    "contrast": {"permutations": 0},
    "pathway": {"games": 24, "latents_per_layer": 4, "states": 10, "controls": 5, "shuffles": 2},
}
FILES = (
    PROBES_FILE, LENS_FILE, CORRELATIONS_FILE, SHUFFLED_FILE, EDGES_FILE, NODES_FILE, PATHS_FILE,
)  # fmt: skip


def run(root, name, **changes):
    said = []

    class Heard(Sink):
        def message(self, text):
            said.append(text)

    spec = build(GamblingSpec, {**SETTINGS, **changes})
    return execute(_Followed(), spec, name, sink=Heard(), root=root), said


def page(done):
    report = Report("pathway")
    add_pathway(report, done, done.config)
    return report.page()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return run(tmp_path_factory.mktemp("runs"), "organism")[0]


def test_a_run_of_the_organism_has_a_pathway(finished):
    frames = {name: read_pathway(finished, name) for name in FILES}
    assert frames[LENS_FILE]["layer"].n_unique() == 6
    assert (frames[LENS_FILE].filter(pl.col("layer") == 5)["legible"] > 0.9).all()
    assert frames[PROBES_FILE]["hook_point"].to_list() == [
        "covariates", "3.resid_post", "4.resid_post",
    ]  # fmt: skip
    assert len(frames[EDGES_FILE]) == len(frames[CORRELATIONS_FILE]) == 4 * 4
    assert len(frames[NODES_FILE]) == 8
    assert frames[EDGES_FILE]["states"].unique().to_list() == [10]
    assert "Correlations are no causes" in page(finished)


def test_the_pathway_is_the_same_bytes_again(finished, tmp_path):
    step = PathwayStep(finished.config)
    again = Run(finished.folder, "gambling", finished.config)
    for shard in reversed(step.shards(again)):
        folder = tmp_path / "shards" / shard.key
        folder.mkdir(parents=True)
        step.work(again, shard, ShardContext(folder, Sink(), "cpu"))
    step.merge(again, tmp_path, Sink())
    for name in FILES:
        assert sha256_file(tmp_path / name) == sha256_file(finished.folder / "pathway" / name)


def test_a_model_that_does_not_play_has_an_empty_pathway_and_says_so(tmp_path):
    done, said = run(
        tmp_path,
        "mumbles",
        game={"name": "slot_machine", "rules": {"components": ""}},
        play={"repetitions": 2, "max_tokens": 2, "retries": {"max_attempts": 1, "max_skips": 1}},
    )
    assert all(len(read_pathway(done, name)) == 0 for name in FILES)
    assert any("No decision of a held-out game could be read" in text for text in said)
    assert "there is no pathway" in page(done)
