"""The tutorials and how-tos work as they stand: their commands and their Python are run."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pytest

from fluoroscope import HookPoint, capture, organism
from fluoroscope.studies.gambling.games.base import Game, State, luck_tape, replay
from fluoroscope.studies.gambling.reading import Action
from fluoroscope.studies.settings import preset_files, study_spec

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[1]
TUTORIAL = ROOT / "docs" / "tutorials" / "gambling.md"
MADE_UP = ROOT / "docs" / "tutorials" / "hallucination.md"
STEERED = ROOT / "docs" / "tutorials" / "steering.md"
BORROWED = ROOT / "docs" / "tutorials" / "borrowing.md"
REASONED = ROOT / "docs" / "tutorials" / "slots.md"
LOOKED_AT = ROOT / "docs" / "tutorials" / "anatomy.md"
ADD_A_GAME = ROOT / "docs" / "how-to" / "add-a-game.md"
PAGES = [
    pytest.param(TUTORIAL, "done", marks=pytest.mark.slow),
    pytest.param(MADE_UP, "watched", marks=pytest.mark.slow),
    (STEERED, "steered"),
    pytest.param(BORROWED, "borrowed", marks=pytest.mark.slow),
    pytest.param(REASONED, "reasoned", marks=pytest.mark.slow),
    pytest.param(LOOKED_AT, "looked_at", marks=pytest.mark.slow),
]
"""Whole runs: one by default, all in `make test-all`."""

QUICK = {
    "gambling/organism": "gambling/tiny",
    "hallucination/organism": "hallucination/tiny",
    "steering/organism": "steering/tiny",
    "plugin/organism": "plugin/tiny",
    "connection/pointer": "connection/tiny",
    "anatomy/organism": "anatomy/tiny",
}
"""Presets of the text -> those that take seconds."""

ASKED_BESIDES = {"plugin/organism": ["beside=[base,random_layer,every_layer]"]}
"""Settings of a preset of the text that its page needs, and the quick one leaves out."""

STUDIES = (
    *("anatomy", "connection", "dictionary", "gambling", "hallucination", "plugin", "policy"),
    *("steering", "unlearning"),
)

_BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)


def blocks(page: Path, *languages: str) -> list[tuple[str, str]]:
    """Language and text of every block of code in these languages."""
    found = _BLOCK.findall(page.read_text(encoding="utf-8"))
    return [(language, text) for _, language, text in found if language in languages]


def commands(page: Path) -> list[list[str]]:
    """The words of every `fluoro` line of a page: `sh` is run by the tests, `bash` needs more."""
    lines = [
        line
        for _, text in blocks(page, "sh", "bash")
        for line in text.replace("\\\n", "").split("\n")
    ]
    words = [shlex.split(line, comments=True) for line in lines]
    return [one[1:] for one in words if one and one[0].rpartition("/")[2] == "fluoro"]


def pages() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


class Done(NamedTuple):
    run: Path
    printed: list[str]
    """By each block of the tutorial."""


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Done:
    """The tutorial from its first block to its last, as somebody who follows it would go."""
    return followed(TUTORIAL, tmp_path_factory.mktemp("gamble"), "gamble")


@pytest.fixture(scope="module")
def watched(tmp_path_factory) -> Done:
    return followed(MADE_UP, tmp_path_factory.mktemp("made-up"), "made-up")


@pytest.fixture(scope="module")
def steered(tmp_path_factory) -> Done:
    return followed(STEERED, tmp_path_factory.mktemp("fair"), "fair")


@pytest.fixture(scope="module")
def borrowed(tmp_path_factory) -> Done:
    return followed(BORROWED, tmp_path_factory.mktemp("layer"), "borrowed")


@pytest.fixture(scope="module")
def reasoned(tmp_path_factory) -> Done:
    return followed(REASONED, tmp_path_factory.mktemp("slots"), "slots")


@pytest.fixture(scope="module")
def looked_at(tmp_path_factory) -> Done:
    return followed(LOOKED_AT, tmp_path_factory.mktemp("anatomy"), "anatomy")


def followed(page: Path, folder: Path, name: str) -> Done:
    printed, names = [], {}
    environment = {**os.environ, "FLUOROSCOPE_RUNS": str(folder / "runs"), "COLUMNS": "120"}
    for language, text in blocks(page, "sh", "python"):
        if language == "sh":
            printed.append("".join(run(line, folder, environment) for line in text.splitlines()))
        else:
            printed.append(execute(text, names, folder))
    return Done(folder / "runs" / name, printed)


def run(line: str, folder: Path, environment: dict[str, str]) -> str:
    program, *words = shlex.split(line, comments=True)
    assert program == "fluoro"
    more = [setting for word in words for setting in ASKED_BESIDES.get(word, [])]
    words = [QUICK.get(word, word) for word in words]
    command = [sys.executable, "-m", "fluoroscope", *words, *more]
    ended = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def execute(text: str, names: dict[str, object], folder: Path) -> str:
    """Our own page: this is what it is tested for. Blocks share their names."""
    with pytest.MonkeyPatch.context() as patched:
        said: list[str] = []
        patched.chdir(folder)
        names["print"] = lambda *values: said.append(" ".join(str(value) for value in values))
        exec(text, names)
    return "\n".join(said)


@pytest.mark.slow
def test_the_tutorial_ends_in_a_report_with_the_sections_that_it_names(done):
    report = (done.run / "report.html").read_text(encoding="utf-8")
    for section in ("Ground truth", "Latents that cause the decision", "How replies were read"):
        assert section in report


@pytest.mark.parametrize(("page", "fixture"), PAGES)
def test_every_table_that_a_tutorial_names_is_there(page, fixture, request):
    made: Done = request.getfixturevalue(fixture)
    named = set(re.findall(r"`(tables/[\w.-]+)`", page.read_text(encoding="utf-8")))
    assert len(named) >= 3
    assert [name for name in sorted(named) if not (made.run / name).is_file()] == []


@pytest.mark.parametrize(("page", "fixture"), PAGES)
def test_every_step_that_a_tutorial_names_is_one_and_none_is_missing(page, fixture, request):
    made: Done = request.getfixturevalue(fixture)
    rows = re.findall(r"^\| (`[^|]+`) \|", page.read_text(encoding="utf-8"), re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([\w-]+)`", row)}
    assert named == {file.parent.name for file in made.run.glob("*/done.json")}


@pytest.mark.slow
def test_the_watched_answer_has_a_score_before_and_after_every_token(watched):
    lines = next(text for text in watched.printed if "score" in text and "tracks" in text)
    live = [text for text in watched.printed if re.search(r"^'.*' +score 0\.\d\d", text, re.M)]
    assert "Score: the probability that an answer is made up" in lines
    scores = [float(one) for one in re.findall(r"score (0\.\d\d)", live[0])]
    assert len(scores) >= 3


@pytest.mark.slow
def test_the_paper_and_the_files_of_the_original_are_written(watched):
    folder = watched.run.parents[1]
    assert (folder / "paper" / "numbers.tex").read_text(encoding="utf-8").count("\\newcommand") > 50
    assert (folder / "files" / "detection" / "classifications.csv").is_file()


def test_the_bias_is_steered_away_by_what_was_picked_and_not_by_random_latents(steered):
    parts = pl.read_csv(steered.run / "tables" / "parts.csv")
    biased = parts.filter(pl.col("category") == "is_biased yes")
    after = dict(zip(biased["recipe"], biased["after"], strict=True))
    assert abs(after["corrsteer-a"] - 0.5) < 0.1
    controls = [value for name, value in after.items() if name.startswith("random-")]
    assert max(controls) < 0.35


def test_a_vector_of_the_run_and_a_latent_by_hand_change_what_is_said(steered):
    beside = next(text for text in steered.printed if "Velar farmer" in text and "seed 9" in text)
    pairs = re.findall(r"^ (lazy|diligent)\. +(lazy|diligent)\. *$", beside, re.MULTILINE)
    assert len(pairs) == 10
    unsteered, said = (list(words).count("diligent") for words in zip(*pairs, strict=True))
    assert unsteered <= 2
    assert said >= unsteered + 2
    found = re.findall(r"^(unsteered|steered): (\w+) (0\.\d\d)$", steered.printed[-2], re.MULTILINE)
    p = {(edits, word): float(number) for edits, word, number in found}
    assert p["unsteered", "lazy"] == pytest.approx(0.85, abs=0.01)
    assert p["steered", "lazy"] == pytest.approx(0.37, abs=0.01)
    assert p["steered", "diligent"] == pytest.approx(0.63, abs=0.01)


@pytest.mark.slow
def test_every_layer_has_a_regret_and_a_saved_classifier_knows_both_reviews(borrowed):
    agreement = pl.read_csv(borrowed.run / "tables" / "agreement.csv")
    accuracy = pl.read_csv(borrowed.run / "tables" / "accuracy.csv")
    layers = accuracy.filter(pl.col("arm") == "faithful")["accuracy"].to_list()
    assert len(layers) == 6
    regret = dict(zip(agreement["method"], agreement["regret"], strict=True))
    assert regret["random"] == pytest.approx(max(layers) - np.mean(layers))
    said = re.findall(r"^(\w+), P\(positive\) (0\.\d\d|1\.00)$", borrowed.printed[-1], re.M)
    assert [name for name, _ in said] == ["positive", "negative"]


@pytest.mark.slow
def test_a_step_says_a_node_and_every_slot_is_patched_with_another_walk(reasoned):
    depths = pl.read_csv(reasoned.run / "tables" / "depths.csv")
    assert depths["depth"].unique().sort().to_list() == [2, 3, 4, 5]
    said, patched = reasoned.printed[-2:]
    nodes = re.findall(r"'(n?\d*)'", said)
    assert len(nodes) == 7 + 3
    as_it_is, *slots, together, other = patched.splitlines()
    assert len(slots) == 8
    assert re.match(r"all n\d$", together)
    assert re.match(r"The other walk ends at n\d$", other)
    # After the last of its steps the network has said what `generate` writes.
    assert nodes[6] == as_it_is.removeprefix("As it is: ")


@pytest.mark.slow
def test_half_of_what_saes_of_one_seed_share_is_where_they_began(looked_at):
    page = LOOKED_AT.read_text(encoding="utf-8")
    same, shared = re.findall(r"^Same index: (\d+) of (\d+)", looked_at.printed[-2], re.M)[0]
    assert f"Same index: {same} of {shared} shared latents" in page
    assert int(same) > int(shared) / 2


@pytest.mark.slow
def test_statistics_without_a_run_are_those_of_dense_latents(looked_at):
    subject = organism.load()
    density = []
    for i in range(40):
        tokens = subject.model.tokenize([subject.world.text("library", i).text]).tokens
        point = HookPoint("3.resid_post")
        activations = capture(subject.model, tokens, [point])[point][0]
        # The first position is no text.
        density += (subject.saes[3, "batch_topk"].encode(activations)[1:, 249] > 0).tolist()
    clean, without = re.findall(r"latent 249 at (\d+) tokens \(([\d.]+)%\)", looked_at.printed[-1])
    assert int(clean[0]) == sum(density)
    assert float(clean[1]) == pytest.approx(100 * np.mean(density), abs=0.05)
    assert int(without[0]) > 2 * int(clean[0])


@pytest.mark.slow
def test_replies_are_read_again_as_they_were_played(done):
    table = next(text for text in done.printed if "is same" in text)
    assert " yes " in table
    assert " no " not in table


@pytest.mark.slow
def test_the_state_by_hand_is_stopped_in_as_often_as_the_world_says(done):
    as_it_is, edited = done.printed[-1].splitlines()
    assert abs(float(as_it_is.split()[-1]) - 1 / (1 + np.exp(0.4 + 2 * 1.2))) < 0.01
    shares = [float(number) for number in re.findall(r"0\.\d+", edited)]
    assert len(shares) == 5
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(0.21, abs=0.01)


@pytest.mark.slow
def test_a_latent_that_was_turned_down_is_a_cause_as_the_tutorial_says(done):
    score = next(text for text in done.printed if text.startswith("Score("))
    assert "matches=True" in score
    assert "is_cause=True" in score
    assert float(re.findall(r" effect=([\d.]+)", score)[0]) == pytest.approx(0.27, abs=0.03)


def test_every_command_of_a_study_in_the_docs_has_settings_that_exist():
    checked = 0
    for page in pages():
        for words in commands(page):
            studies = [word for word in words[1:2] if word in STUDIES]
            if words[0] not in ("run", "plan", "sweep") or not studies or "--help" in words:
                continue
            presets = [words[i + 1] for i, word in enumerate(words) if word == "--preset"]
            overrides = [word for word in words if re.match(r"[\w.]+=", word)]
            study_spec(studies[0], presets[0] if presets else None, None, overrides)
            checked += 1
    assert checked >= 12


def test_every_preset_that_the_docs_name_is_there():
    named = {
        name
        for page in pages()
        for name in re.findall(rf"`((?:{'|'.join(STUDIES)})/[\w.-]+)`", page.read_text("utf-8"))
    }
    asked = {
        words[i + 1]
        for page in pages()
        for words in commands(page)
        for i, word in enumerate(words)
        if word == "--preset"
    }
    assert sorted((named | asked) - set(preset_files())) == []


def test_the_game_of_the_how_to_can_be_played_from_its_log():
    (_, text), *_ = blocks(ADD_A_GAME, "python")
    names: dict[str, object] = {}
    exec(text, names)  # Our own page: this is what it is tested for.
    kind = names["Dice"]
    assert isinstance(kind, type)
    assert issubclass(kind, Game)
    rules = kind.rules_type()
    conditions = kind.conditions(rules)
    assert len(conditions) == 8
    game = kind(rules, conditions["variable-GM"])
    tape = luck_tape(kind, 0, 0, rules.max_rounds)
    states = replay(game, [Action("bet", 10), Action("bet", 20), Action("stop")], tape, 3)
    assert states[-1].outcome == "voluntary_stop"
    wins = [one.won for one in states[-1].rounds]
    assert wins == [bool(draw < 1 / 6) for draw in tape[:2, 0]]
    assert game.read(game.observe(State(100)), State(100)).kind is None
    # 5.4 dollars for a six, of six equal faces.
    paid = [
        game.step(State(100), Action("bet", 10), np.array([u])).balance for u in np.arange(6) / 6
    ]
    assert np.mean(paid) == pytest.approx(100 - 1)
