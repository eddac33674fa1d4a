"""Which question sets a run reads, what they are called in it, and what is refused before work."""

import pytest
from small_connection_study import run_bare, small

from fluoroscope.core.errors import ConfigError, ModelError
from fluoroscope.runs.run import Run
from fluoroscope.studies.connection.steps.phase import PhaseStep
from fluoroscope.studies.connection.steps.questions import set_key
from fluoroscope.studies.connection.study import ConnectionStudy
from fluoroscope.studies.connection.training import ReasonerTrainer


def test_whatever_a_phase_trains_on_was_read_before(tmp_path):
    sweep = {"is_on": True, "final_sets": ["pointer_text", "bAbI-1", "pointer_fixed"]}
    study = ConnectionStudy()
    config = study.resolve(small(sweep=sweep))
    questions, *phases = study.steps(config)
    run = Run(tmp_path, study.name, config)
    read = [one.params["dataset"] for one in questions.shards(run)]
    assert read == ["pointer_fixed", "pointer_text", "babi1"]
    assert all(isinstance(phase, PhaseStep) and set(phase.sets) <= set(read) for phase in phases)


def test_without_a_sweep_its_sets_are_not_read():
    config = ConnectionStudy().resolve(small(sweep={"final_sets": ["pointer_text"]}))
    assert config.all_sets == ["pointer_fixed"]


def test_a_set_that_does_not_exist_is_refused_before_the_first_phase():
    with pytest.raises(ConfigError, match="pointer_texts"):
        small(sweep={"final_sets": ["pointer_texts"]})


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("sst2", "sst2"),
        ("file:a/one.csv", "one.csv"),
        ("file:a/tables/", "tables"),
        ("file:..", "table"),
        ("file:a/.hidden one.csv", "hidden-one.csv"),
    ],
)
def test_a_table_is_called_by_its_file_or_folder(name, key):
    assert set_key(name) == key


def test_two_tables_of_one_name_are_refused():
    sets = {"sets": ["file:a/one.csv", "file:b/one.csv"]}
    with pytest.raises(ConfigError, match="both be called"):
        ConnectionStudy().resolve(small(data=sets))


def test_a_network_that_cannot_think_as_long_as_it_is_asked_is_not_trained(tmp_path, monkeypatch):
    def never(*_):
        raise AssertionError("a step was done")

    monkeypatch.setattr(ReasonerTrainer, "advance", never)
    # Walks of four hops, of two steps each, in the test; a norm for each of four steps.
    with pytest.raises(ModelError, match="4 steps, so 8 cannot be done"):
        run_bare(tmp_path, arms=["plan"], seeds=1)
