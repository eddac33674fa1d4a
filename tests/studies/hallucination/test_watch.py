"""`fluoro hallucination watch`: tokens with their scores, for people and for programs."""

import io
import json
import math
import subprocess
import sys

import numpy as np
import pytest
from rich.console import Console

from fluoroscope.cli import main
from fluoroscope.cli.running_score import MAX_ROWS, is_cut, score_table, show_lines, show_live
from fluoroscope.core.storage import read_json, write_json
from fluoroscope.studies.hallucination.online.columns import COLUMNS
from fluoroscope.studies.hallucination.online.watcher import Watched
from fluoroscope.studies.hallucination.steps.answers import read_answer_records

QUESTION = "Question: Where does Nobody Known live?\nAnswer:"


def watched(n=3, text=" word", score=0.5):
    pushes = {**dict.fromkeys(COLUMNS, 0.0), "entropy mean": 0.4, "gini so far": -0.2}
    first = Watched(0, None, "", score, math.nan, 1.0, 4, 2.0, pushes, np.zeros(1))
    rest = [first._replace(n_tokens=i, token=i, text=text, logprob=-1.0) for i in range(1, n)]
    return [first, *rest]


@pytest.fixture
def fluoro(watched_run, monkeypatch, capsys):
    monkeypatch.setenv("FLUOROSCOPE_RUNS", str(watched_run.folder.parent))

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["fluoro", "hallucination", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        return (end.value.code, *capsys.readouterr())

    return run


def test_help_needs_no_torch():
    program = (
        "import sys\nfrom fluoroscope.cli import main\n"
        "sys.argv = ['fluoro', 'hallucination', 'watch', '--help']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "heavy = {'torch', 'transformers', 'polars', 'numba'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_without_a_prompt_questions_of_the_latest_run_are_answered_as_they_were(
    watched_run, fluoro
):
    code, said, _ = fluoro("watch", "organism")
    assert code == 0
    assert said.count("Prompt: ") == 4
    # The label of a known answer is said, and what was scored without having seen it.
    assert said.count("the same, labelled made up. Without it, the last score was") == 2
    assert said.count("the same, labelled true. Without it, the last score was") == 2
    assert "not whether this one is true" in said
    assert "of the run watched" in said
    assert "before the first token" in said


def test_a_program_gets_one_object_a_token_and_the_words_apart(watched_run, fluoro):
    record = read_answer_records(watched_run)[0]
    code, said, apart = fluoro("watch", "organism", "--prompt", record.prompt, "--json")
    found = [json.loads(line) for line in said.splitlines()]
    assert code == 0
    assert "".join(one["text"] for one in found) == record.completion
    assert [one["n_tokens"] for one in found] == list(range(len(found)))
    assert all(0 <= one["score"] <= 1 for one in found)
    assert found[0]["logprob"] is None
    odds = found[1]["by_uncertainty"] + found[1]["by_tracks"]
    assert sum(found[1]["pushes"].values()) == pytest.approx(odds)
    assert "AUROC on answers that it had not seen" in apart


def test_where_an_interval_cannot_be_told_it_is_said_without_brackets(watched_run, monkeypatch):
    from fluoroscope.cli import watching

    judged = watching.read_judged(watched_run)
    ends = {end: {"score": [0.5, math.nan, math.nan]} for end in ("before", "last")}
    monkeypatch.setattr(watching, "read_judged", lambda _: judged | {"auroc": ends})
    said = watching.what_scores_are(watched_run)
    assert "0.500 (its interval cannot be told) before the first token" in said
    assert "nan" not in said


def test_a_seed_and_a_temperature_decide_what_is_written(fluoro):
    def texts(seed):
        found = fluoro(
            "watch", "organism", "--prompt", QUESTION, "--json", "--temperature", "1.5",
            "--seed", str(seed), "--max-tokens", "6",
        )  # fmt: skip
        return [json.loads(line)["text"] for line in found[1].splitlines()]

    assert texts(1) == texts(1)
    assert len({tuple(texts(seed)) for seed in range(4)}) > 1


def test_a_prompt_that_the_run_does_not_know_is_shown_one_that_it_does(fluoro):
    _, said, _ = fluoro("watch", "organism", "--prompt", QUESTION)
    assert "Not a prompt of the run, whose prompts are like 'Question: " in said


def test_without_a_run_of_the_model_it_is_said_how_to_make_one(fluoro, tmp_path, monkeypatch):
    monkeypatch.setenv("FLUOROSCOPE_RUNS", str(tmp_path))
    code, _, said = fluoro("watch", "organism")
    assert code == 2
    assert "fluoro run hallucination model=organism" in said


def test_a_run_of_another_model_is_not_taken_for_the_latest(watched_run, fluoro, tmp_path):
    from fluoroscope.cli.watching import newest_run

    other = watched_run.folder.parent / "another"
    (other / "online").mkdir(parents=True)
    (other / "online" / "done.json").write_text("{}")
    record = read_json(watched_run.folder / "run.json")
    started = {**record["provenance"], "started": "9999"}
    write_json(other / "run.json", record | {"sources": {"model": "x"}, "provenance": started})
    assert newest_run("organism").name == "watched"
    write_json(other / "run.json", record | {"provenance": started})
    assert newest_run("organism").name == "another"
    for file in (other / "run.json", other / "online" / "done.json"):
        file.unlink()


def test_a_terminal_shows_the_text_on_colours_and_the_score_below():
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, color_system="truecolor", width=60)
    found = show_live(console, "Who?", iter(watched(score=0.9)))
    assert len(found) == 3
    said = screen.getvalue()
    assert "score 0.90" in said
    assert "\x1b[38" in said
    assert "48;2;" in said


def test_a_text_cannot_move_the_cursor_of_whoever_watches():
    screen = io.StringIO()
    show_lines(Console(file=screen, width=80), "a\x1b[2Jb\nc", iter(watched(text="\x1b[31m[red]")))
    assert "\x1b" not in screen.getvalue()
    assert "␛[31m[red]" in screen.getvalue()
    show_live(Console(file=screen, force_terminal=True), "", iter(watched(text="\x1b[2Jx\x9b2J")))
    assert "␛[2Jx\N{REPLACEMENT CHARACTER}2J" in screen.getvalue()


def test_a_long_answer_shows_the_tokens_at_which_the_score_moved_most():
    found = watched(n=MAX_ROWS + 30)
    moved = MAX_ROWS + 20
    found[moved] = found[moved]._replace(score=0.99, text=" here")
    table = score_table(found)
    assert is_cut(found)
    assert table.row_count == MAX_ROWS
    screen = io.StringIO()
    Console(file=screen, width=120).print(table)
    assert "here" in screen.getvalue()
    assert "+0.40 entropy mean" in screen.getvalue()
