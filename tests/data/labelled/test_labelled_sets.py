import json
from collections import Counter
from functools import cache
from types import SimpleNamespace

import jaxtyping
import polars as pl
import pytest

from fluoroscope.core.errors import ConfigError, CorpusError
from fluoroscope.data.labelled.base import (
    LABELLED,
    labelled_commit,
    labelled_place,
    labelled_set,
)
from fluoroscope.data.labelled.written import cleaned

# Of each side, the examples of each class in the files themselves.
OWN_SIDES = {
    "cola": {"test": (322, 721)},
    "imdb_cad": {"train": (851, 856), "validation": (122, 123), "test": (488, 488)},
    "snli_cad": {
        "train": (562, 554, 550),
        "validation": (74, 75, 51),
        "test": (654, 677, 669),
    },
    "sst2": {"train": (3310, 3610), "validation": (428, 444), "test": (912, 909)},
    "trec": {"test": (9, 94, 138, 65, 81, 113)},
    "tweet_offensive": {"train": (7975, 3941), "validation": (865, 459), "test": (620, 240)},
}
# With what is left out of them.
ROWS = {
    "agnews": 7600,
    "cola": 7250 + 1301 + 1043,
    "cr": 3775,
    "imdb_cad": 1707 + 245 + 488 + 488,
    "mr": 10662,
    "snli_cad": 1666 + 200 + 400 + 1600,
    "sst2": 6920 + 872 + 1821,
    "subj": 10000,
    "trec": 5452 + 500,
    "tweet_offensive": 11916 + 1324 + 860,
    "tweet_sentiment_binary": 2000 + 12284,
}
DRAWN = {"agnews", "cr", "mr", "subj", "tweet_sentiment_binary"}


@pytest.fixture(scope="module")
def read(data_folder):
    """Each set once."""

    @cache
    def once(name, splitting):
        with pytest.MonkeyPatch.context() as patch:
            # Checks of the signatures of a dozen calls a row take minutes over all the files.
            patch.setattr(jaxtyping.config, "jaxtyping_disable", True)
            place = labelled_place(name, data_folder)
            return labelled_set(name).read(place, splitting=splitting)

    return once


def write(folder, **files):
    for name, text in files.items():
        stem, _, suffix = name.rpartition("_")
        (folder / f"{stem}.{suffix}").write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize("name", ROWS)
def test_every_row_of_the_real_files_is_read_or_counted(name, read):
    for splitting in ("sound", "paper"):
        gathered = read(name, splitting)
        assert len(gathered.items) + len(gathered.left_out) == ROWS[name]


@pytest.mark.parametrize("name", ROWS)
def test_sound_sides_share_no_group_and_no_text_is_there_twice(name, read):
    gathered = read(name, "sound")
    sides = {(one.group_id, one.split) for one in gathered.items}
    assert len(sides) == len({group for group, _ in sides})
    assert len({one.id for one in gathered.items}) == len(gathered.items)
    assert len({(one.text, one.pair) for one in gathered.items}) == len(gathered.items)
    drawn = {side for side, origin in gathered.origins.items() if origin == "drawn"}
    expected = {"train", "validation", "test"} if name in DRAWN else {"validation"}
    assert drawn == (expected if name in DRAWN | {"cola", "trec"} else set())


@pytest.mark.parametrize("name", OWN_SIDES)
def test_the_sides_of_the_paper_are_those_of_the_files(name, read):
    counts = read(name, "paper").counts()
    for side, expected in OWN_SIDES[name].items():
        assert tuple(counts[side].values()) == expected


def test_the_paper_takes_a_fifth_of_the_training_rows_to_choose_by(read):
    cola = read("cola", "paper")
    assert len(cola.side("validation")) == round(0.2 * 8551)
    assert len(cola.side("train")) == 8551 - round(0.2 * 8551)
    assert len({one.id for one in cola.items}) == len(cola.items)


def test_a_sound_validation_side_is_a_tenth_with_the_classes_in_proportion(read):
    counts = read("trec", "sound").counts()
    for kind, n in counts["train"].items():
        assert counts["validation"][kind] == pytest.approx(
            (n + counts["validation"][kind]) / 10, abs=1
        )


@pytest.mark.parametrize(
    ("name", "said", "label"),
    [
        ("agnews", "Second Private Team Sets Launch Date for Human", "sci/tech"),
        ("cola", "The weights made the rope stretch over the pulley.", "acceptable"),
        ("cr", "many of our disney movies do n 't play on this dvd player", "negative"),
        ("imdb_cad", "Never have I been so glad to see ending credits roll", "negative"),
        ("mr", "simplistic , silly and tedious", "negative"),
        ("snli_cad", "A little boy is playing cricket.", None),
        ("sst2", "apparently reassembled from the cutting room floor", "negative"),
        ("subj", "thirteen conversations about one thing is a small gem", "subjective"),
        ("trec", "How far is it from Denver to Aspen ?", "number"),
        ("tweet_offensive", "Soon people will understand that they gain nothing", "not offensive"),
        ("tweet_sentiment_binary", "Dark Souls 3 April Launch Date Confirmed", None),
    ],
)
def test_labels_mean_what_the_files_mean(name, said, label, read):
    gathered = read(name, "paper")
    found = {
        gathered.classes[one.label]
        for one in gathered.items
        if said in one.text or said in (one.pair or "")
    }
    # None: of a file that is not read, or neutral.
    assert found == ({label} if label else set())


def test_both_forms_of_trec_say_the_same(data_folder, tmp_path, read, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    for file in ("TREC.train.all", "TREC.test.all"):
        (tmp_path / file).write_bytes((data_folder / "trec" / file).read_bytes())
    numbered = LABELLED.load("trec").read(tmp_path)
    assert [(one.text, one.label) for one in numbered.items] == [
        (one.text, one.label) for one in read("trec", "sound").items
    ]


def test_pairs_are_kept_as_they_are_and_grouped_by_the_first(read):
    gathered = read("snli_cad", "sound")
    parts = Counter(one.part for one in gathered.items if one.split == "test")
    assert set(parts) == {"original", "edited"}
    by_premise = {}
    for one in gathered.items:
        by_premise.setdefault(one.text, set()).add(one.group_id)
    assert all(len(groups) == 1 for groups in by_premise.values())


def test_markup_goes_and_words_stay_apart():
    said = "<b>Good</b> film.<br /><br />Not  bad &amp; 2 < 3 <3"
    assert cleaned(said) == "Good film. Not bad & 2 < 3 <3"


def test_a_known_folder_is_found_below_the_data_else_the_hub(tmp_path, monkeypatch):
    monkeypatch.delenv("FLUOROSCOPE_DATA", raising=False)
    (tmp_path / "ag_news").mkdir()
    assert labelled_place("agnews", tmp_path) == str(tmp_path / "ag_news")
    assert labelled_place("snli", tmp_path) == "hf:"
    assert labelled_place("agnews") == "hf:"
    assert labelled_place("organism_reviews", tmp_path) == ""
    monkeypatch.setenv("FLUOROSCOPE_DATA", str(tmp_path))
    assert labelled_place("agnews") == str(tmp_path / "ag_news")


NLI_HEADER = "premise\thypothesis\tlabel\n"


def mnli_folder(folder):
    names = ("entailment", "neutral", "contradiction")

    def rows(kind, n):
        lines = (f"{kind} {i}\tit is {i}\t{names[i % 3]}\n" for i in range(n))
        return NLI_HEADER + "".join(lines)

    return write(
        folder,
        train_tsv=rows("train", 9_900),
        dev_matched_tsv=rows("matched", 6),
        dev_mismatched_tsv=rows("mismatched", 6) + "nobody agrees\tit is\t-\n",
    )


def test_both_sides_of_mnli_are_parts_of_the_test_side_but_in_the_paper(tmp_path, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    mnli = LABELLED.load("mnli")
    sound = mnli.read(mnli_folder(tmp_path))
    assert Counter(one.part for one in sound.side("test")) == {"matched": 6, "mismatched": 6}
    assert sound.reasons() == {"people did not agree on its label": 1}
    assert len(sound.side("validation")) == 990
    assert sound.task == mnli.task_at() == "entailment"
    paper = mnli.read(tmp_path, splitting="paper")
    assert {one.part for one in paper.side("test")} == {"mismatched"}
    validation = {one.text for one in paper.side("validation")}
    assert validation == {f"train {i}" for i in range(68, 9_900)}


def test_the_hub_is_read_by_its_numbers_and_names(monkeypatch):
    def rows(hub):
        assert (hub.id, hub.subset) == ("nyu-mll/glue", "cola")
        for i in range(40):
            yield {"sentence": f"{hub.split} {i}", "label": i % 2, "idx": i}

    monkeypatch.setattr("fluoroscope.data.rows._hub_rows", rows)
    gathered = LABELLED.load("cola").read("hf:")
    assert {one.text.split()[0] for one in gathered.side("test")} == {"validation"}
    assert all(one.label == int(one.text.split()[1]) % 2 for one in gathered.items)
    assert gathered.task == "classification"


@pytest.mark.parametrize(
    ("place", "asked"),
    [
        ("hf:", ("nyu-mll/glue", None)),
        ("hf:@c0ffee", ("nyu-mll/glue", "c0ffee")),
        ("hf:some/copy@v1.0", ("some/copy", "v1.0")),
        ("hf:some/copy", ("some/copy", None)),
    ],
)
def test_the_hub_is_read_at_the_revision_that_a_place_names(place, asked, monkeypatch):
    calls = []

    def load(name, subset, *, split, revision):
        calls.append((name, subset, split, revision))
        return [{"sentence": f"{split} {i}", "label": i % 2} for i in range(40)]

    monkeypatch.setattr("datasets.load_dataset", load)
    LABELLED.load("cola").read(place)
    name, revision = asked
    assert calls == [(name, "cola", split, revision) for split in ("train", "validation")]


def test_a_place_without_the_revision_that_it_announces_is_refused():
    with pytest.raises(CorpusError, match="hf:some/copy@ names no revision"):
        LABELLED.load("cola").read("hf:some/copy@")


def test_only_what_is_read_from_the_hub_has_a_commit(tmp_path, monkeypatch):
    monkeypatch.delenv("FLUOROSCOPE_DATA", raising=False)
    asked = []

    def info(self, name, *, revision, timeout):
        asked.append(name)
        return SimpleNamespace(sha="c0ffee")

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", info)
    assert labelled_commit("cola", tmp_path) == "c0ffee"
    (tmp_path / "cola").mkdir()
    # On no hub, made, of the user's own, and in a folder.
    for name in ("imdb_cad", "organism_reviews", "file:mine.csv", "cola"):
        assert labelled_commit(name, tmp_path) is None
    assert asked == ["nyu-mll/glue"]

    def fails(self, name, *, revision, timeout):
        raise ConnectionError("no network")

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", fails)
    assert labelled_commit("cola") is None


@pytest.mark.parametrize("name", list(LABELLED))
def test_a_set_is_of_one_repository_as_one_commit_pins_it(name):
    known = LABELLED.load(name)
    assert {hub.id for hub in getattr(known, "hubs", ())} <= {known.hub_id}


def test_a_table_of_ones_own_is_a_set(tmp_path):
    rows = [{"sentence": f"text {i}", "label": ("no", "yes")[i % 2]} for i in range(50)]
    pl.DataFrame(rows).write_csv(tmp_path / "mine.csv")
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    pl.DataFrame(rows).write_parquet(tmp_path / "mine.parquet")
    pl.DataFrame(rows).write_csv(tmp_path / "mine.tsv", separator="\t")
    read = [
        labelled_set(f"file:{tmp_path}/mine.{suffix}").read()
        for suffix in ("csv", "jsonl", "parquet", "tsv")
    ]
    assert read[0].classes == ("no", "yes")
    assert read[0].task == "classification"
    assert read[0].counts()["test"] == {"no": 5, "yes": 5}
    assert all(one.items == read[0].items for one in read)


def test_sides_of_a_table_are_those_of_its_column_or_of_the_names_of_files(tmp_path):
    rows = [
        {"premise": f"p {i}", "hypothesis": f"h {i}", "label": i % 2, "split": side}
        for i, side in enumerate(["train"] * 4 + ["dev"] * 2 + ["test"] * 2)
    ]
    pl.DataFrame(rows).write_parquet(tmp_path / "all.parquet")
    by_column = labelled_set(f"file:{tmp_path}/all.parquet").read()
    assert [one.split for one in by_column.items] == [
        {"dev": "validation"}.get(row["split"], row["split"]) for row in rows
    ]
    assert by_column.items[0].pair == "h 0"
    assert by_column.task == "entailment"
    folder = tmp_path / "named"
    folder.mkdir()
    for side in ("train", "dev", "test"):
        of_side = [row for row in rows if row["split"] == side]
        pl.DataFrame(of_side).drop("split").write_csv(folder / f"{side}.csv")
    by_name = labelled_set(f"file:{folder}").read()
    by_text = {one.text: one.split for one in by_column.items}
    assert {one.text: one.split for one in by_name.items} == by_text


def test_numbers_are_classes_by_their_size_and_rows_without_a_label_are_counted(tmp_path):
    lines = [f"text {i},{(2, 10)[i % 2]}" for i in range(60)]
    gathered_from = write(tmp_path, t_csv="\n".join(["text,label", *lines, "no label,"]))
    gathered = labelled_set(f"file:{gathered_from / 't.csv'}").read()
    assert gathered.classes == ("2", "10")
    assert gathered.reasons() == {"it has no label": 1}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a film\t0\nanother\t0\nthird\t0\n", "two classes"),
        ("a film\t2\n", "the label '2' is none of sst2"),
        ("a film\tgood\n", "negative, positive"),
        ("a film\n", "1 columns, expected 2"),
        ("", "no rows"),
    ],
)
def test_wrong_files_are_named(tmp_path, text, says):
    write(tmp_path, train_tsv=text, dev_tsv="", test_tsv="x\t0\ny\t1\n" if text else "")
    with pytest.raises(CorpusError, match=says):
        LABELLED.load("sst2").read(tmp_path)


def test_what_is_not_there_is_named(tmp_path):
    sst2 = LABELLED.load("sst2")
    with pytest.raises(CorpusError, match=r"holds none of train\.tsv"):
        sst2.read(tmp_path)
    with pytest.raises(CorpusError, match="no data for sst2"):
        sst2.read(tmp_path / "nowhere")
    with pytest.raises(CorpusError, match="needs a file"):
        sst2.read()
    (tmp_path / "train.tsv").write_bytes(b"caf\xe9\t0\n")
    with pytest.raises(CorpusError, match="not UTF-8"):
        sst2.read(tmp_path)
    with pytest.raises(CorpusError, match="named as no file"):
        sst2.read(write(tmp_path, notes_txt="x") / "notes.txt")
    with pytest.raises(CorpusError, match="not on the hub"):
        LABELLED.load("imdb_cad").read("hf:")
    with pytest.raises(ConfigError, match="Did you mean 'sst2'"):
        labelled_set("sst")
    with pytest.raises(CorpusError, match="Is the column of labels"):
        labelled_set(f"file:{write(tmp_path, t_csv=IDS) / 't.csv'}").read()


IDS = "text,label\n" + "".join(f"text {i},{i}\n" for i in range(9))


def test_tweets_without_their_labels_are_refused(tmp_path):
    write(tmp_path, train_text_txt="one\ntwo\n", train_labels_txt="0\n")
    with pytest.raises(CorpusError, match=r"2 texts and .* 1 labels"):
        LABELLED.load("tweet_offensive").read(tmp_path)
    (tmp_path / "train_labels.txt").unlink()
    with pytest.raises(CorpusError, match="no labels for"):
        LABELLED.load("tweet_offensive").read(tmp_path)
