import json
from collections import Counter
from functools import cache
from types import SimpleNamespace

import jaxtyping
import polars as pl
import pytest

from fluoroscope.core.errors import ConfigError, CorpusError
from fluoroscope.data.questions.base import (
    question_commit,
    question_place,
    question_set,
)
from fluoroscope.data.questions.names import HOMES, canonical_name
from fluoroscope.data.questions.question import Question
from fluoroscope.data.questions.sides import limited_questions

# Of the files, with what is left out of them; spec of the connection study, section 9.
ROWS = {
    "logiqa": 651 + 651,
    "gsm8k": 7473 + 1319,
    "strategyqa": 2061 + 229,
    "strategyqa_facts": 2061 + 229,
    "commonsenseqa": 1221,
    "sst2": 6920 + 872 + 1821,
}
TEST_SIDES = {"logiqa": 651, "gsm8k": 1319, "strategyqa": 229, "strategyqa_facts": 229}


@pytest.fixture(scope="module")
def read(data_folder):
    """Each set once."""

    @cache
    def once(name):
        with pytest.MonkeyPatch.context() as patch:
            # Checks of the signatures of a dozen calls a row take minutes over all the files.
            patch.setattr(jaxtyping.config, "jaxtyping_disable", True)
            return question_set(name).read(question_place(name, data_folder))

    return once


@pytest.mark.parametrize("name", ROWS)
def test_every_row_of_the_real_files_is_read_or_counted(name, read):
    gathered = read(name)
    assert len(gathered.items) + len(gathered.left_out) == ROWS[name]
    # Nothing is left out for its length or its options.
    assert set(gathered.reasons()) <= {
        "the same text came before",
        "its group is on the test side too",
    }
    if name in TEST_SIDES:
        assert len(gathered.side("test")) == TEST_SIDES[name]


@pytest.mark.parametrize("name", ROWS)
def test_sides_of_the_real_files_share_no_group(name, read):
    gathered = read(name)
    sides = {(one.group_id, one.split) for one in gathered.items}
    assert len(sides) == len({group for group, _ in sides})
    assert len({one.id for one in gathered.items}) == len(gathered.items)


@pytest.mark.parametrize("name", ["logiqa", "gsm8k", "strategyqa"])
def test_a_tenth_of_what_is_trained_on_is_chosen_by(name, read):
    n_train, n_validation = (len(read(name).side(side)) for side in ("train", "validation"))
    assert n_validation == pytest.approx(0.1 * (n_train + n_validation), abs=1)
    assert read(name).origins == {"train": "own", "validation": "drawn", "test": "own"}


def test_where_there_is_no_training_part_it_is_said_what_stands_in(read):
    assert read("logiqa").notes == (
        "There is no training part: the 651 questions of the validation part stand in",
    )
    assert "its 1,221 questions are drawn into three sides" in read("commonsenseqa").describe()
    assert read("gsm8k").notes == ()


def test_prompts_have_the_plans_form(read):
    """Of the first row of each file, but for the sides."""
    by_text = {
        "logiqa": ("Black Americans are twice as likely", "A"),
        "gsm8k": ("Natalia sold clips to 48", "72"),
        "strategyqa": ("related to Genghis Khan than Julius", "Yes"),
        "commonsenseqa": ("A revolving door is convenient", "A"),
        "sst2": ("a stirring , funny and finally", "positive"),
    }
    found = {
        name: next(one for one in read(name).items if text in one.source)
        for name, (text, _) in by_text.items()
    }
    assert {name: one.target for name, one in found.items()} == {
        name: target for name, (_, target) in by_text.items()
    }
    assert found["strategyqa"].source == (
        "strategy: Are more people today related to Genghis Khan than Julius Caesar? "
        "Answer (Yes or No):"
    )
    assert found["commonsenseqa"].source == (
        "commonsense: Question: A revolving door is convenient for two direction travel, but it "
        "also serves as a security measure at a what? Options: A) bank B) library C) department "
        "store D) mall E) new york"
    )
    assert found["gsm8k"].source.startswith("solve: Natalia sold")
    assert found["sst2"].source.startswith("sst2 sentence: a stirring")


def test_every_logiqa_prompt_has_its_four_options_without_their_first_letters(read):
    for one in read("logiqa").items:
        head, _, options = one.source.partition(" Options: ")
        assert head.startswith("reason: Context: ")
        assert " Question: " in head
        texts = [options]
        for letter in "ABCD":
            before, mark, after = texts.pop().partition(f"{letter}) ")
            assert mark
            texts += [before, after]
        assert all(text.strip() for text in texts[1:])


def test_options_out_of_order_are_read_by_their_own_letters(read):
    """Some people in Harbin are northerners and no workers; its options stand A, C, B, D."""
    [harbin] = [one for one in read("logiqa").items if "in Harbin are all" in one.source]
    assert harbin.source.endswith(
        "A) Some northerners are workers. B) Some northerners are not workers. "
        "C) Some workers are Northerners. D) Some workers are not Northerners."
    )
    assert harbin.target == "B"


def test_strategyqa_leaks_neither_steps_nor_facts_into_its_prompts(read, data_folder):
    rows = json.loads((data_folder / "strategyqa" / "dev.json").read_text(encoding="utf-8"))
    sources = {one.source for one in read("strategyqa").items}
    with_facts = {one.source for one in read("strategyqa_facts").items}
    for row in rows:
        assert f"strategy: {row['question'].strip()} Answer (Yes or No):" in sources
        told = " ".join(fact.strip() for fact in row["facts"])
        [found] = [one for one in with_facts if row["question"] in one]
        assert told in found
        assert not any(step in found for step in row["decomposition"] if step != row["question"])


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("LogiQA", "logiqa"),
        ("GSM8K", "gsm8k"),
        ("StrategyQA", "strategyqa"),
        ("CommonsenseQA", "commonsenseqa"),
        ("SST-2", "sst2"),
        ("MultiNLI", "mnli"),
        ("pointer fixed", "pointer_fixed"),
        ("babi15", "deduction"),
        ("file:My Table.csv", "file:My Table.csv"),
    ],
)
def test_the_plans_spellings_are_names_too(written, name):
    assert canonical_name(written) == name


def test_an_unknown_name_says_what_is_near_and_what_there_is():
    with pytest.raises(ConfigError, match=r"Did you mean 'logiqa'.*file:PATH"):
        question_set("logicqa")


@pytest.mark.parametrize("name", HOMES)
def test_every_set_is_what_its_name_says(name):
    known = question_set(name)
    assert known.name == name
    assert known.kind in ("choice", "number")
    assert (question_place(name, "/nowhere") == "") == known.is_made


def logiqa_file(folder, letters="abcd", name="Test.txt", n=24):
    lines = []
    for i in range(n):
        lines += ["", letters[i % len(letters)], f"context {i}", f"query {i}"]
        lines += [f"{letter}.option {letter}{i}" for letter in "ABCD"]
    (folder / name).write_text("\n".join(lines), encoding="utf-8")
    return folder


@pytest.mark.parametrize("right", ["2", 2, "c", "C", 2.0])
def test_a_right_option_may_be_a_place_or_a_letter(tmp_path, right):
    if isinstance(right, float):
        rows = [_logiqa_row(i, right) for i in range(30)]
        (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
        with pytest.raises(CorpusError, match="answer must be a place from 0 to 3"):
            question_set("logiqa").read(tmp_path)
        return
    rows = [_logiqa_row(i, right) for i in range(30)]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    gathered = question_set("logiqa").read(tmp_path)
    assert {one.target for one in gathered.items} == {"C"}
    assert gathered.items[0].source.endswith("Options: A) w B) x C) y D) z")


def _logiqa_row(i, right):
    options = ["w", "x", "y", "z"]
    return {"context": f"c {i}", "query": "q", "options": options, "correct_option": right}


def test_an_options_own_letter_goes_and_no_other(tmp_path):
    lines = ["", "b", "context", "query"]
    lines += ["A.one", "b. A two", "C three", "City D.S has four"]
    more = [
        line for i in range(30) for line in ("", "a", f"c {i}", "q", "A.w", "B.x", "C.y", "D.z")
    ]
    (tmp_path / "Train.txt").write_text("\n".join(lines + more) + "\n\n", encoding="utf-8")
    gathered = question_set("logiqa").read(tmp_path)
    [one] = [one for one in gathered.items if one.target == "B"]
    assert one.source.endswith("Options: A) one B) A two C) three D) City D.S has four")
    assert len(gathered.items) == 31


def test_questions_of_one_context_stay_together_and_repeats_are_counted(tmp_path):
    rows = [{**_logiqa_row(i // 3, i % 4), "query": f"q {i}"} for i in range(90)]
    rows += [rows[0], {**rows[1], "correct_option": 3}]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    gathered = question_set("logiqa").read(tmp_path)
    sides = {}
    for one in gathered.items:
        sides.setdefault(one.group_id, set()).add(one.split)
    assert len(sides) == 30
    assert all(len(found) == 1 for found in sides.values())
    assert gathered.reasons() == {
        "the same text has two answers": 2,
        "the same text came before": 1,
    }


@pytest.mark.parametrize(
    ("answer", "target"),
    [("so\n#### 1,080", "1080"), ("#### 18.0", "18"), ("#### 0.50", "0.5"), ("#### -3", "-3")],
)
def test_numbers_are_written_without_commas_and_needless_decimals(tmp_path, answer, target):
    rows = [{"question": f"how many {i}", "answer": answer} for i in range(30)]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "train_socratic.jsonl").write_text('{"question": "tutor", "answer": "#### 1"}')
    gathered = question_set("gsm8k").read(tmp_path)
    assert {one.target for one in gathered.items} == {target}
    assert len(gathered.items) == 30


@pytest.mark.parametrize(
    ("name", "file", "text", "says"),
    [
        ("logiqa", "Test.txt", "a\nb\nc\n", "line 1: eight lines are a question"),
        ("logiqa", "Test.txt", "", "gives nothing that logiqa could use. It holds no rows"),
        ("logiqa", "test.jsonl", '{"context": "x"}', "no column 'options' or 'choices'"),
        ("gsm8k", "train.jsonl", '{"question": "q", "answer": "six"}', "no number after ####"),
        ("gsm8k", "train.jsonl", '{"question": "q"', "line 1 is not JSON"),
        ("strategyqa", "train.json", '[{"question": "q", "answer": "maybe"}]', "true or false"),
        ("strategyqa", "train.json", '[{"question": "q"}]', "no answer, as in the official"),
        ("strategyqa_facts", "train.json", '[{"question": "q", "answer": true}]', "'facts'"),
        ("strategyqa", "train.json", '[{"question": "q", "answer": true}]', "nothing on its"),
        ("commonsenseqa", "dev_rand_split.jsonl", '{"question": "q"}', "no answer key"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path, name, file, text, says):
    (tmp_path / file).write_text(text)
    with pytest.raises(CorpusError, match=says.replace("####", "#+")):
        question_set(name).read(tmp_path)


def test_a_written_set_needs_a_place_and_a_made_one_has_none():
    with pytest.raises(CorpusError, match="gsm8k needs a file"):
        question_set("gsm8k").read()
    with pytest.raises(ConfigError, match="made and read from nowhere"):
        question_set("babi1").read("somewhere")


def test_mnli_is_chosen_on_its_matched_and_judged_on_its_mismatched_part(tmp_path):
    for file, n in (("train", 60), ("dev_matched", 9), ("dev_mismatched", 12)):
        rows = ["sentence1\tsentence2\tgold_label"]
        labels = ("entailment", "neutral", "contradiction")
        rows += [f"{file} {i}\thypothesis {i}\t{labels[i % 3]}" for i in range(n)]
        (tmp_path / f"{file}.tsv").write_text("\n".join(rows) + "\n")
    gathered = question_set("mnli").read(tmp_path)
    counts = Counter((one.split, one.source.split()[2]) for one in gathered.items)
    assert counts == {
        ("train", "train"): 60,
        ("validation", "dev_matched"): 9,
        ("test", "dev_mismatched"): 12,
    }
    assert gathered.side("test")[1].source == "infer: Premise: dev_mismatched 1 Hypothesis: " + (
        "hypothesis 1"
    )
    assert gathered.side("test")[1].target == "neutral"
    assert set(gathered.origins.values()) == {"own"}


def test_the_hub_is_asked_for_the_tables_of_logiqa(monkeypatch):
    calls = []

    def load(name, subset, *, split, revision):
        calls.append((name, split, revision))
        return [{**_logiqa_row(f"{split} {i}", str(i % 4))} for i in range(20)]

    monkeypatch.setattr("datasets.load_dataset", load)
    gathered = question_set("logiqa").read("hf:")
    assert calls == [
        ("lucasmccabe/logiqa", split, "refs/convert/parquet")
        for split in ("train", "validation", "test")
    ]
    assert [len(gathered.side(side)) for side in ("train", "validation", "test")] == [20] * 3
    calls.clear()
    question_set("logiqa").read("hf:extraordinarylab/logiqa")
    assert {(name, revision) for name, _, revision in calls} == {("extraordinarylab/logiqa", None)}


def test_only_what_is_read_from_the_hub_has_a_commit(tmp_path, monkeypatch):
    monkeypatch.delenv("FLUOROSCOPE_DATA", raising=False)
    asked = []

    def info(self, name, *, revision, timeout):
        asked.append((name, revision))
        return SimpleNamespace(sha="c0ffee")

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", info)
    assert question_commit("SST-2", tmp_path) == question_commit("logiqa", tmp_path) == "c0ffee"
    (tmp_path / "strategyqa").mkdir()
    for name in ("strategyqa", "strategyqa_facts", "babi1", "file:mine.csv"):
        assert question_commit(name, tmp_path) is None
    assert asked == [("SetFit/sst2", None), ("lucasmccabe/logiqa", "refs/convert/parquet")]


def rows_of(n, **more):
    return [{"source": f"add {i} and {i}", "target": str(2 * i), **more} for i in range(n)]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_table_of_ones_own_is_a_set(tmp_path, suffix):
    file = tmp_path / f"mine.{suffix}"
    frame = pl.DataFrame([{**row, "depth": i % 3, "group": f"g{i // 2}"}
                          for i, row in enumerate(rows_of(60))])  # fmt: skip
    {"csv": frame.write_csv, "jsonl": frame.write_ndjson, "parquet": frame.write_parquet}[suffix](
        file
    )
    gathered = question_set(f"file:{file}").read()
    assert (gathered.name, gathered.kind, gathered.choices) == ("mine", "number", None)
    assert {side: len(gathered.side(side)) for side in ("train", "validation", "test")} == (
        pytest.approx({"train": 43, "validation": 5, "test": 12}, abs=3)
    )
    by_source = {one.source: one for one in gathered.items}
    assert by_source["add 7 and 7"].depth == 1
    assert by_source["add 7 and 7"].split == by_source["add 6 and 6"].split
    assert by_source["add 7 and 7"].target == "14"


def test_sides_of_a_table_are_its_own_and_its_kind_is_what_its_targets_are(tmp_path):
    rows = [
        {"source": f"is {i} odd", "target": ("no", "yes")[i % 2], "split": side}
        for i, side in enumerate(["train"] * 20 + ["dev"] * 8 + ["test"] * 12)
    ]
    pl.DataFrame(rows).write_csv(tmp_path / "mine.csv")
    gathered = question_set(f"file:{tmp_path}/mine.csv").read()
    assert (gathered.kind, gathered.choices) == ("choice", ("no", "yes"))
    assert {side: len(gathered.side(side)) for side in ("train", "validation", "test")} == {
        "train": 20,
        "validation": 8,
        "test": 12,
    }
    texts = [{"source": f"q {i}", "target": f"word {i}"} for i in range(40)]
    pl.DataFrame(texts).write_csv(tmp_path / "texts.csv")
    assert question_set(f"file:{tmp_path}/texts.csv").read().kind == "text"


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"target": None}, "mine: 59 items; left out: 1 x 'target' is empty"),
        ({"source": " "}, "mine: 59 items; left out: 1 x 'source' is empty"),
    ],
)
def test_rows_of_a_table_without_a_text_are_counted(tmp_path, row, says):
    rows = [{**rows_of(1)[0], **row}, *rows_of(60)[1:]]
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert question_set(f"file:{tmp_path}/mine.jsonl").read().describe() == says


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty|cannot be read"),
        ("question,wrong\na,b\n", "no column 'target' or 'answer' or 'output'"),
        ("source,target,depth\na,b,deep\n", "depth must be a whole number"),
        ("source,target,split\na,b,other\n", "split must be one of"),
        ("source,target\na,b\n", "nothing on its"),
    ],
)
def test_tables_that_are_none_of_questions_are_named(tmp_path, text, says):
    (tmp_path / "mine.csv").write_text(text)
    with pytest.raises(CorpusError, match=says):
        question_set(f"file:{tmp_path}/mine.csv").read()
    with pytest.raises(CorpusError, match="needs the path of a table"):
        question_set("file: ")


def test_a_smaller_side_keeps_groups_and_shares_of_depths():
    questions = [
        Question(f"q{i}", f"g{i // 2}", "train", f"source {i}", "x", None, 1 + i // 2 % 4)
        for i in range(80)
    ]
    some = limited_questions(questions, 24, seed=0)
    assert Counter(one.depth for one in some) == {1: 6, 2: 6, 3: 6, 4: 6}
    assert Counter(Counter(one.group_id for one in some).values()) == {2: 12}
    assert limited_questions(questions[::-1], 24, seed=0) == some


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"target": " "}, "needs text as its target"),
        ({"choices": ("a", "b")}, "'yes', which is none of a, b"),
        ({"hops": ("no", "no"), "depth": 2}, "end with its answer 'yes'"),
        ({"hops": ("yes",), "depth": 2}, "must be 2, as its depth is"),
    ],
)
def test_a_question_that_contradicts_itself_is_refused(change, says):
    known = {"id": "q", "group_id": "g", "split": "train", "source": "s", "target": "yes"}
    with pytest.raises(CorpusError, match=says):
        Question(**{**known, **change})
