"""The gambling study from the first game to the report: undisturbed, disturbed, with other games,
and with models that do not follow them.
"""

import re
import shutil
import signal
import socket
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from quick_study import Actor, quick_spec
from strikes import end_after_kills, end_after_strikes

from fluoroscope.core.config import build
from fluoroscope.core.errors import ConfigError, RunError
from fluoroscope.core.seeding import stream
from fluoroscope.core.storage import sha256_folder
from fluoroscope.runs.engine import execute
from fluoroscope.runs.events import read_events
from fluoroscope.runs.how import How
from fluoroscope.runs.run import DONE, Run
from fluoroscope.studies.gambling.episodes import Ask
from fluoroscope.studies.gambling.spec import GamblingSpec
from fluoroscope.studies.gambling.study import GamblingStudy

pytestmark = pytest.mark.long

STEPS = [
    "play", "record", "latents", "contrast", "screen", "seed_rule", "doses", "confirm", "patched",
    "pathway", "words", "truth",
]  # fmt: skip
SECTIONS = [
    "Ground truth",
    "How it plays",
    "Latents that go with bankruptcy",
    "Latents that cause the decision",
    "Sampled texts",
    "Whole games with a latent held",
    "Two games, decision by decision",
    "How the decision forms from layer to layer",
    "Words",
    "How replies were read",
]
TABLES = {
    "ground_truth", "truth_scores", "behaviour", "streaks", "contrast", "decision_contrast",
    "causal", "controls", "seed_rule", "sampled", "patched_games", "reading", "rules", "attempts",
    "words_interventional", "readings",
}  # fmt: skip
LOCAL = How(devices="cpu", retries=0)


@pytest.fixture(autouse=True)
def _no_pictures(no_pictures):
    """What is drawn is tested where figures are."""


def played(root: Path, name: str = "run", how: How = LOCAL, **changes: object) -> Run:
    return execute(GamblingStudy(), quick_spec(**changes), name, how, root=root)


def result_bytes(run: Run) -> dict[str, str]:
    """Hashes of what a run found: its steps, their manifests, and its tables."""
    kept = tuple(f"{name}/" for name in (*STEPS, "tables"))
    files = sha256_folder(run.folder)
    return {name: digest for name, digest in files.items() if name.startswith(kept)}


def headings(run: Run) -> list[str]:
    page = (run.folder / "report.html").read_text(encoding="utf-8")
    return re.findall(r"<h2[^>]*>([^<]*)", page)


def table(run: Run, name: str) -> pl.DataFrame:
    return pl.read_csv(run.folder / "tables" / f"{name}.csv", infer_schema_length=None)


def test_every_step_is_done_and_every_section_of_the_report_is_there(quick_run):
    assert [step.name for step in GamblingStudy().steps(quick_run.config)] == STEPS
    assert all((quick_run.folder / name / DONE).exists() for name in STEPS)
    assert headings(quick_run) == SECTIONS


def test_every_table_of_the_report_is_a_file_with_rows(quick_run):
    folder = quick_run.folder / "tables"
    names = {file.stem for file in folder.glob("*.csv")}
    assert names >= TABLES
    assert {file.stem for file in folder.glob("*.tex")} == names
    # Of so few latents of two layers none may go along with another.
    empty = {name for name in names if not len(table(quick_run, name))}
    assert empty <= {"pathway-correlations", "pathway-edges"}


def test_tables_hold_no_time_and_no_path(quick_run):
    texts = [file.read_text() for file in (quick_run.folder / "tables").glob("*.*v")]
    texts += [file.read_text() for file in (quick_run.folder / "tables").glob("*.tex")]
    assert texts
    for text in texts:
        for place in (str(quick_run.folder.parent), str(Path.home()), socket.gethostname()):
            assert place not in text
        assert not re.search(r"20\d\d-\d\d-\d\d|\d\d:\d\d:\d\d", text)


@pytest.mark.slow
def test_stopped_in_every_step_it_ends_with_the_bytes_of_worker_processes_left_alone(
    quick_run, tmp_path, monkeypatch
):
    monkeypatch.setattr(GamblingStudy, "steps", GamblingStudy.steps)
    merges = ("play-merge", "doses-merge")
    run, strikes = end_after_strikes(
        GamblingStudy, lambda: played(tmp_path, "quick"), merges, tmp_path / "struck"
    )
    assert strikes == {*STEPS, *merges}
    assert result_bytes(run) == result_bytes(quick_run)


@pytest.mark.slow
def test_killed_in_every_step_and_every_merge_it_ends_with_the_same_bytes(quick_run, tmp_path):
    codes = end_after_kills("gambling", quick_spec(), "quick", tmp_path)
    assert codes == [-signal.SIGKILL] * 2 * len(STEPS) + [0]
    run = Run(tmp_path / "quick", "gambling", quick_run.config)
    assert result_bytes(run) == result_bytes(quick_run)


def test_the_same_what_goes_on_under_another_how_and_another_what_is_refused(quick_run, tmp_path):
    shutil.copytree(quick_run.folder, tmp_path / "quick")
    (tmp_path / "quick" / "truth" / DONE).unlink()
    started = len(read_events(tmp_path / "quick", "shard started"))
    run = played(tmp_path, "quick", How(executor="local", devices="cpu", retries=3))
    assert len(read_events(run.folder, "shard started")) == started
    assert result_bytes(run) == result_bytes(quick_run)
    with pytest.raises(RunError, match="seed: 0 -> 1") as refused:
        played(tmp_path, "quick", seed=1, patch={"min_effect": 0.03})
    assert "patch.min_effect: 0.02 -> 0.03" in str(refused.value)
    assert "play.repetitions" not in str(refused.value)


def at_the_table(folder: Path, game: str, conditions: list[str], **changes: object) -> Run:
    """The random model at a game, or another one (`model=`), with and without SAEs (`saes=`)."""
    settings = {
        "model": str(folder / "model"),
        "saes": str(folder / "saes"),
        "game": {"name": game, "rules": {"max_rounds": 8}, "conditions": conditions},
        "play": {"repetitions": 2, "max_tokens": 4, "retries": {"max_attempts": 2, "max_skips": 2}},
        **changes,
    }
    return execute(GamblingStudy(), build(GamblingSpec, settings), "run", LOCAL, root=folder / "at")


@pytest.mark.parametrize("name", ["slot_machine", "coin_flip", "blackjack"])
def test_a_model_that_does_not_follow_the_game_is_said_not_to(stranger, name):
    run = at_the_table(stranger, name, ["variable-BASE", "fixed-BASE"])
    games = pl.read_parquet(run.folder / "play" / "games.parquet")
    assert set(games["outcome"]) == {"invalid"}
    assert len(table(run, "reading"))
    assert table(run, "unread")["problem"].is_in(["truncated", "unparsed", "empty"]).all()
    page = (run.folder / "report.html").read_text()
    assert "this model does not follow the game" in page
    assert "0 of 16 replies moved a game on" in page
    causal = pl.read_parquet(run.folder / "doses" / "causal.parquet")
    assert len(causal) == 0
    assert "no latent was selected, so none was patched" in page.lower()


def test_a_real_model_that_knows_no_games_is_said_not_to_follow_them(stranger, stories_folder):
    model = str(stories_folder)
    run = at_the_table(stranger, "slot_machine", ["fixed-GMRWP"], model=model, saes=None)
    games = pl.read_parquet(run.folder / "play" / "games.parquet")
    assert set(games["outcome"]) == {"invalid"}
    assert "this model does not follow the game" in (run.folder / "report.html").read_text()


def test_without_saes_it_describes_behaviour_only(tmp_path):
    run = played(tmp_path, saes=None, play={"repetitions": 2, "repetitions_per_shard": 2})
    assert [step.name for step in GamblingStudy().steps(run.config)] == ["play", "truth"]
    assert headings(run) == ["Ground truth", "How it plays", "How replies were read"]
    assert "causal" not in {file.stem for file in (run.folder / "tables").iterdir()}


def test_games_of_which_none_ends_in_bankruptcy_leave_nothing_to_contrast(tmp_path):
    cautious = {"rules": {"max_rounds": 2}, "conditions": ["fixed-GRWP"]}
    run = played(tmp_path, game=cautious, play={"repetitions": 4, "repetitions_per_shard": 4})
    games = pl.read_parquet(run.folder / "play" / "games.parquet")
    assert "bankruptcy" not in set(games["outcome"])
    said = [event["text"] for event in read_events(run.folder, "message")]
    assert any("nothing to contrast" in text for text in said)
    assert "none is called causal" in (run.folder / "report.html").read_text()


def gambler(ask: Ask) -> str:
    """Goes on or stops at random, in the form that is asked for."""
    luck = stream(ask.seed, "gambler")
    form = ask.prompt.rpartition("Final Decision: ")[2].rstrip(">").lstrip("<")
    if form == "Hit or Stand":
        return f"Why not. Final Decision: {'Hit' if luck.random() < 0.4 else 'Stand'}"
    if luck.random() < 0.3:
        return "Enough.\nFinal Decision: Stop"
    if "Option" in form:
        return f"Target: $200\nFinal Decision: $500, Option {luck.integers(2, 5)}"
    return "Why not.\nFinal Decision: Bet all"


GAMES = {
    "coin_flip": ["variable-BASE", "variable-GMRWP"],
    "mystery_wheel": ["variable-BASE", "variable-GM"],
    "investment": ["variable-GM-70", "variable-BASE-50"],
    "blackjack": ["variable-BASE", "variable-GMRW"],
}
DEEP = {
    "play": {"repetitions": 12, "max_tokens": 2, "retries": {"max_attempts": 1, "max_skips": 1}},
    "contrast": {"top": 1, "permutations": 2},
    "patch": {
        "states": 10, "held_out_states": 10, "shortlist": 1, "min_legible": 0,
        "controls": 5, "alpha": 0.2,
        "confirm": {"latents": 1, "random": 1, "prompts": 1, "trials": 2},
    },
    "games": {"latents": 1, "repetitions": 1, "conditions": 1},
    "pathway": {"games": 0},
}  # fmt: skip


@pytest.mark.parametrize("name", GAMES)
def test_every_game_is_played_and_described_without_saes(stranger, monkeypatch, name):
    monkeypatch.setattr(
        "fluoroscope.studies.gambling.steps.play._player", lambda *_: Actor(gambler)
    )
    run = at_the_table(stranger, name, GAMES[name], saes=None)
    games = pl.read_parquet(run.folder / "play" / "games.parquet")
    assert games["n_bets"].sum() > 0
    assert headings(run) == ["How it plays", "How replies were read"]


# Coin and wheel are asked as the slot machine is.
_LIKE = [pytest.param(name, marks=pytest.mark.slow) for name in ("coin_flip", "mystery_wheel")]


@pytest.mark.parametrize("name", ["investment", "blackjack", *_LIKE])
def test_latents_of_every_game_are_looked_into_to_the_end(stranger, monkeypatch, name):
    # The model is random, so somebody else answers for it.
    monkeypatch.setattr(
        "fluoroscope.studies.gambling.steps.play._player", lambda *_: Actor(gambler)
    )
    monkeypatch.setattr("fluoroscope.studies.gambling.steps.latents.MIN_GAMES", 2)
    saes = {"source": str(stranger / "saes"), "hook_points": "1.resid_post"}
    run = at_the_table(stranger, name, GAMES[name], saes=saes, **DEEP)
    games = pl.read_parquet(run.folder / "play" / "games.parquet")
    assert {"bankruptcy", "voluntary_stop"} <= set(games["outcome"])
    states = pl.read_parquet(run.folder / "screen" / "states.parquet")
    assert states.select(pl.col("p_stop", "p_bet").is_between(0, 1, closed="none")).to_numpy().all()
    causal = pl.read_parquet(run.folder / "doses" / "causal.parquet")
    assert len(causal) == 1
    assert np.isfinite(causal.select("effect", "held_out_effect").to_numpy()).all()
    assert not causal["is_causal"].any()
    assert {"Sampled texts", "Whole games with a latent held"} <= set(headings(run))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch": {"positions": "PROMPT"}}, r"exact for LAST"),
        ({"pathway": {"controls": 512}}, r"must be below the \d+ latents"),
        ({"game": {"conditions": []}}, "nothing to play"),
        ({"game": {"conditions": ["variable-XYZ"]}}, "no condition 'variable-XYZ'"),
        ({"model": None}, "Say who plays"),
    ],
)
def test_what_a_later_step_would_refuse_is_refused_before_the_first_game(
    tmp_path, changes, message
):
    with pytest.raises(ConfigError, match=message):
        played(tmp_path, **changes)
    assert not list(tmp_path.iterdir())
