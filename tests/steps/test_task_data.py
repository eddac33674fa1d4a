"""Samples as a run works on them: whole groups, on one side each, of a size that fits."""

import functools

import pytest

from fluoroscope.core.errors import ConfigError, CorpusError, FluoroscopeError
from fluoroscope.data.tasks.samples import Sample
from fluoroscope.organism.task_sets import OrganismTask
from fluoroscope.steps.task_data import (
    check_task,
    limited,
    place_of,
    read_task,
    task_sources,
)
from fluoroscope.steps.task_spec import TaskSpec

SIZES = [3, 1, 4, 1, 5, 2, 2]


@pytest.fixture(scope="module", autouse=True)
def _made_once():
    """The world is made once, as its prompts take a second."""
    with pytest.MonkeyPatch.context() as patch:
        made = functools.cache(OrganismTask.read)
        patch.setattr(
            OrganismTask, "read", lambda self, place=None, **how: made(self, place, **how)
        )
        yield


def of_groups(sizes=SIZES, split="train"):
    return [
        Sample(id=f"{g}-{i}", group_id=f"g{g}", prompt="?", split=split)
        for g, n in enumerate(sizes)
        for i in range(n)
    ]


@pytest.mark.parametrize("limit", [1, 4, 7, 10, 17, 18, 100])
@pytest.mark.parametrize("seed", range(5))
def test_a_limit_takes_whole_groups(limit, seed):
    samples = of_groups()
    kept = limited(samples, "train", limit, seed)
    groups = [one.group_id for one in kept]
    for name in set(groups):
        assert groups.count(name) == SIZES[int(name[1:])]
    # The first group is taken however large it is, so that there is something.
    assert kept
    assert len(kept) <= limit or len(set(groups)) == 1


def test_a_smaller_limit_is_the_beginning_of_a_larger_one_and_the_order_is_the_seeds():
    samples = of_groups()
    whole = limited(samples, "train", None, 0)
    assert len(whole) == sum(SIZES)
    for limit in (4, 9, 12):
        part = limited(samples, "train", limit, 0)
        assert part == whole[: len(part)]
    assert limited(samples[::-1], "train", None, 0) == whole
    assert limited(samples, "train", None, 1) != whole
    assert limited(samples, "validation", None, 0) == []


@pytest.mark.parametrize("splitting", ["own", "drawn"])
@pytest.mark.parametrize("name", ["organism-bias", "organism-facts"])
def test_no_group_is_on_two_sides(organism_model, name, splitting):
    data = read_task(organism_model, TaskSpec(name=name, splitting=splitting, limit=80), None, 3)
    sides = {side: {one.group_id for one in several} for side, several in data.sides.items()}
    names = [group for groups in sides.values() for group in groups]
    assert len(names) == len(set(names))
    for side, several in data.sides.items():
        assert {one.split for one in several} == {side}


def test_real_groups_are_on_one_side_and_what_is_left_out_is_said(organism_model, data_folder):
    spec = TaskSpec(name="stereoset", limit=100)
    data = read_task(organism_model, spec, str(data_folder), 0)
    groups = [{one.group_id for one in several} for several in data.sides.values()]
    assert not groups[0] & groups[1]
    assert not (groups[0] | groups[1]) & groups[2]
    assert data.asking.way == "sums"
    assert all(one.reason for one in data.left_out)


def test_what_is_too_long_is_left_out_of_every_side_and_said(organism_model, monkeypatch):
    spec = TaskSpec(name="organism-bias")
    whole = read_task(organism_model, spec, None, 0)
    n = max(
        len(organism_model.tokenizer(one.prompt + option)["input_ids"])
        for several in whole.sides.values()
        for one in several
        for option in one.options
    )
    monkeypatch.setattr(type(organism_model), "context_length", property(lambda _: n))
    some = read_task(organism_model, spec, None, 0)
    n_kept, n_all = (sum(map(len, data.sides.values())) for data in (some, whole))
    assert 0 < n_all - n_kept == len(some.left_out) - len(whole.left_out)
    assert f"does not fit into the model's {n} positions" in some.left_out[-1].reason
    monkeypatch.setattr(type(organism_model), "context_length", property(lambda _: 4))
    with pytest.raises(ConfigError, match=r"no sample on the train and the validation.*too long"):
        read_task(organism_model, spec, None, 0)


def test_an_instruction_leaves_out_what_it_leaves_no_room_for(organism_model, monkeypatch):
    spec = TaskSpec(name="organism-bias")
    plain = read_task(organism_model, spec, None, 0)
    first = plain.sides["test"][0]
    n = max(len(organism_model.tokenizer(first.prompt + o)["input_ids"]) for o in first.options)
    more = len(organism_model.tokenizer("Some are kind. ")["input_ids"])
    room = property(lambda _: n + more)
    monkeypatch.setattr(type(organism_model), "context_length", room)
    told = read_task(organism_model, spec, None, 0, "Some are kind. ")
    n_told, n_plain = (sum(map(len, data.sides.values())) for data in (told, plain))
    assert 0 < len(told.left_out) == n_plain - n_told
    assert not read_task(organism_model, spec, None, 0).left_out
    # It is put there by whoever asks, as most recipes do without.
    assert told.asking.instruction == ""
    assert told.asking_with("Be kind. ").prompt(told.sides["test"][0]).startswith("Be kind. ")


def test_tasks_that_are_not_there_or_not_judged_so_are_refused():
    with pytest.raises(FluoroscopeError, match=r"emgst.*emgsd"):
        check_task(TaskSpec(name="emgst"))
    with pytest.raises(ConfigError, match="organism-bias is judged by"):
        check_task(TaskSpec(name="organism-bias", way="options"))
    check_task(TaskSpec(name="emgsd"))


def test_a_task_of_files_needs_a_folder_and_says_which_ways_there_are(monkeypatch, tmp_path):
    monkeypatch.delenv("FLUOROSCOPE_DATA", raising=False)
    spec = TaskSpec(name="bbq-ambiguous")
    with pytest.raises(ConfigError, match=r"data_dir=FOLDER.*task\.data=PATH.*task\.data=hf:"):
        place_of(spec, None)
    (tmp_path / "bbq").mkdir()
    assert place_of(spec, str(tmp_path)) == str(tmp_path / "bbq")
    (tmp_path / "bbq_ambiguous").mkdir()
    assert place_of(spec, str(tmp_path)) == str(tmp_path / "bbq_ambiguous")
    monkeypatch.setenv("FLUOROSCOPE_DATA", str(tmp_path))
    assert place_of(spec, None) == str(tmp_path / "bbq_ambiguous")
    assert place_of(TaskSpec(name="bbq-ambiguous", data="x"), str(tmp_path)) == "x"
    assert place_of(TaskSpec(name="organism-bias"), None) is None


def test_a_folder_that_is_not_there_or_holds_nothing_is_named(organism_model, tmp_path):
    with pytest.raises(FluoroscopeError, match="nowhere"):
        read_task(organism_model, TaskSpec(name="stereoset"), str(tmp_path / "nowhere"), 0)
    with pytest.raises(FluoroscopeError, match="stereoset"):
        read_task(organism_model, TaskSpec(name="stereoset"), str(tmp_path), 0)


def test_rows_without_an_answer_key_are_left_out_and_a_task_without_any_is_refused(
    organism_model, tmp_path
):
    folder = tmp_path / "commonsenseqa"
    folder.mkdir()
    choices = '{"label": ["A", "B"], "text": ["one", "two"]}'
    row = '{{"id": "{0}", "question": "What is {0}?", "choices": {1}, "answerKey": "{2}"}}\n'
    file = folder / "validation.jsonl"
    file.write_text("".join(row.format(f"it {i}", choices, "") for i in range(8)))
    with pytest.raises(CorpusError, match=r"nothing that commonsenseqa could use.*answer key"):
        read_task(organism_model, TaskSpec(name="commonsenseqa"), str(tmp_path), 0)


def test_sources_are_the_files_that_are_read(data_folder):
    found = task_sources(TaskSpec(name="stereoset"), str(data_folder))
    assert found
    assert all(name.startswith("task stereoset ") for name in found)
    assert all(str(data_folder) not in name for name in found)
    # The judge learns from a file beside the one that is read.
    emgsd = task_sources(TaskSpec(name="emgsd"), str(data_folder))
    assert any("train_binary" in name for name in emgsd)
    assert task_sources(TaskSpec(name="organism-bias"), None) == {}
