"""The command line: instant help, plain errors, and runs that can be left alone."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fluoroscope import __version__
from fluoroscope.models.hub import SHIPPED
from fluoroscope.runs.how import How
from fluoroscope.runs.settings_help import list_settings, type_text
from fluoroscope.studies import SPECS, STUDIES
from fluoroscope.studies.settings import preset_files, study_spec

SHIPPED_SAE = SHIPPED["organism"] / "saes" / "batch_topk" / "3.resid_post"
REVIEW = "Review: the room was great, the view was great, and the wine was great.\nVerdict:"
BY_SENTIMENT = ["steer", "organism", "--vector", "organism:sentiment", "--prompt", REVIEW]
TOY = Path(__file__).parent / "runs" / "toy_cli.py"


def fluoro(
    *arguments: str, runs: Path | None = None, script: Path | None = None
) -> subprocess.CompletedProcess[str]:
    program = [str(script)] if script else ["-m", "fluoroscope"]
    return subprocess.run(
        [sys.executable, *program, *arguments],
        env={**os.environ, "FLUOROSCOPE_RUNS": str(runs or "runs"), "COLUMNS": "120"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def fluoro_here(monkeypatch, capsys):
    """The command line in this process, which has torch already: exit code, output, errors."""
    from fluoroscope.cli import main

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fluoro", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        return (end.value.code, *capsys.readouterr())

    return run


HELP = [["--help"], ["run", "dictionary", "--help"], ["steer", "--help"]]


@pytest.mark.parametrize("arguments", HELP)
def test_help_needs_neither_torch_nor_transformers(arguments: list[str]) -> None:
    program = (
        "import sys\nfrom fluoroscope.cli import main\n"
        f"sys.argv = ['fluoro', *{arguments!r}]\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        "heavy = {'torch', 'transformers', 'polars', 'numba', 'ray'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_help_of_a_study_tells_every_setting() -> None:
    done = fluoro("run", "dictionary", "--help")
    for setting in list_settings(SPECS.load("dictionary")):
        assert setting.key in done.stdout
        assert setting.doc, f"{setting.key} has no documentation"


@pytest.mark.parametrize("study", list(STUDIES))
def test_each_study_has_a_spec_of_its_name_and_presets_that_it_accepts(study: str) -> None:
    made = STUDIES.load(study)
    assert made.name == study
    assert made.spec is SPECS.load(study)
    for preset in preset_files():
        if preset.startswith(f"{study}/"):
            # Presets may leave open what the study works on.
            given = [f"{name}=x" for name in ("model", "corpus") if name in made.spec.model_fields]
            assert isinstance(study_spec(study, preset, None, given), made.spec)


@pytest.mark.parametrize(
    ("annotation", "text"),
    [(int | None, "int | none"), (list[str], "list[str]"), (How, "How")],
)
def test_types_are_said_as_a_user_would(annotation: object, text: str) -> None:
    assert type_text(annotation) == text


def test_version_is_said() -> None:
    assert fluoro("--version").stdout == f"fluoroscope {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "dictionry"], "Did you mean 'dictionary'?"),
        (["run", "dictionary", "modle=x"], "Setting 'modle' does not exist. Did you mean 'model'?"),
        (["run", "dictionary", "model"], "Settings are given as key=value, got 'model'."),
        (["run", "dictionary", "--preset", "nope"], "Preset 'nope' does not exist."),
        (["run", "dictionary", "--config", "no.yaml"], "There is no settings file no.yaml."),
        (["run", "dictionary", "--executor", "cloud"], "Setting 'executor'"),
        (["show", "nothing"], "There is no run 'nothing'"),
        (["query", "nothing", "select 1"], "There is no run 'nothing'"),
        (["compare", "nothing", "nothing"], "There is no run 'nothing'"),
    ],
)
def test_what_the_user_can_mend_is_a_message_and_exit_code_2(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    done = fluoro(*arguments, runs=tmp_path)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir()), "nothing is left behind"


def test_settings_are_laid_over_each_other_in_order(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("model: from-file\ncorpus: text.txt\nn_tokens: 3e6\nseed: 5\n")
    spec = study_spec("dictionary", None, file, ["model=typed", "n_tokens=2e6"])
    assert spec.model_dump(include={"model": {"source"}, "n_tokens": True, "seed": True}) == {
        "model": {"source": "typed"},
        "n_tokens": 2_000_000,
        "seed": 5,
    }


def test_a_run_its_record_and_its_tables_from_the_command_line(tmp_path: Path) -> None:
    done = fluoro("run", "toy", "seed=3", runs=tmp_path, script=TOY)
    assert done.returncode == 0, done.stderr
    (folder,) = tmp_path.iterdir()
    assert re.fullmatch(r"toy-[0-9a-f]{8}", folder.name)
    assert f"Done: {folder}" in done.stdout
    assert "walks: finished in" in done.stderr
    assert folder.name in fluoro("list", runs=tmp_path).stdout
    assert "seed" in fluoro("show", folder.name, runs=tmp_path).stdout
    assert "done" in fluoro("status", runs=tmp_path).stdout
    answer = fluoro("query", folder.name, "select walk from norms", "--csv", runs=tmp_path)
    assert answer.stdout == "walk\nleft\nright\n"
    planned = fluoro("plan", "--run", folder.name, runs=tmp_path)
    assert "numbers" in planned.stdout


def test_a_changed_setting_and_a_damaged_file_end_with_exit_code_2(tmp_path: Path) -> None:
    first = fluoro("run", "toy", "--name", "a", runs=tmp_path, script=TOY)
    assert first.returncode == 0, first.stderr
    changed = fluoro("run", "toy", "seed=9", "--name", "a", runs=tmp_path, script=TOY)
    assert changed.returncode == 2
    assert "seed: 0 -> 9" in changed.stderr
    (tmp_path / "a" / "numbers" / "all.safetensors").write_bytes(b"")
    damaged = fluoro("run", "toy", "--name", "a", runs=tmp_path, script=TOY)
    assert damaged.returncode == 2
    assert "is damaged" in damaged.stderr
    assert "Traceback" not in changed.stderr + damaged.stderr


def test_a_plan_needs_no_run(tmp_path: Path) -> None:
    devices = ("--devices", "4xA100-80GB", "--devices", "L4")
    done = fluoro("plan", "toy", *devices, runs=tmp_path, script=TOY)
    assert done.returncode == 0, done.stderr
    assert "toy on 4 x A100-80GB" in done.stdout
    assert "toy on 1 x L4-24GB" in done.stdout
    assert not list(tmp_path.iterdir())


def test_a_detached_run_goes_on_by_itself_and_logs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fluoroscope.runs.detach import start_detached

    monkeypatch.setenv("FLUOROSCOPE_RUNS", str(tmp_path))
    folder = tmp_path / "away"
    command = [sys.executable, str(TOY), "run", "toy", "--name", "away", "pause_s=0.01"]
    said = start_detached(folder, command)
    assert "fluoro status away" in said
    until = time.monotonic() + 60
    while not (folder / "done.json").exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert "walks: 2 shards" in (folder / "log.txt").read_text()


def test_a_detached_run_that_fails_at_once_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fluoroscope.core.errors import RunError
    from fluoroscope.runs.detach import start_detached

    monkeypatch.setenv("FLUOROSCOPE_RUNS", str(tmp_path))
    command = [sys.executable, str(TOY), "run", "toy", "--name", "away", "n_shard=1"]
    with pytest.raises(RunError, match="Did you mean 'n_shards'"):
        start_detached(tmp_path / "away", command)


def test_the_doctor_looks_at_what_a_run_stands_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fluoroscope.runs.doctor import examine

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("FLUOROSCOPE_DATA", str(tmp_path / "gone"))
    rows = {row["what"]: row for row in examine().to_dicts()}
    assert {"CPU", "memory", "GPUs", "runs", "torch", "transformers", "network"} <= rows.keys()
    assert rows["torch"]["state"] == "ok"
    assert rows["data"]["state"] == "problem"
    assert "HF_HUB_OFFLINE" in rows["network"]["found"]


def test_what_is_no_organism_is_named_and_nothing_is_half_done(tmp_path: Path) -> None:
    done = fluoro("organism", "check", str(tmp_path), runs=tmp_path)
    assert done.returncode == 2
    assert "holds no organism" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_ceiling_as_csv_has_a_row_for_each_direction() -> None:
    done = fluoro("organism", "check", "--ceiling", "--csv", "--n", "64")
    assert done.returncode == 0, done.stderr
    header, *rows = done.stdout.splitlines()
    assert header.startswith("variable,direction,layer,match,")
    # Planted once, probed and random in every layer, for four variables.
    assert len(rows) == 4 * (1 + 6 + 6)


def test_steering_shows_both_texts_side_by_side() -> None:
    done = fluoro(*BY_SENTIMENT, "--coefficient", "-80", "--trials", "2")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "organism: planted direction of sentiment, -80 at 3.resid_post, " + (
        "LAST | GENERATED"
    )
    assert f"Prompt: {REVIEW}" in done.stdout
    assert [line.split() for line in lines if "unsteered" in line] == [["unsteered", "steered"]]
    texts = [line.split() for line in lines if "positive." in line]
    assert texts == [["positive.", "negative."]] * 2
    for seed in (0, 1):
        ending = rf"\[stop_token after 3 tokens, seed {seed}\] +"
        ending += rf"\[stop_token after 3 tokens, 3 edits, seed {seed}\]"
        assert re.search(ending, done.stdout)


def test_steering_as_json_has_a_line_for_each_prompt_and_trial(fluoro_here) -> None:
    more = ["--prompt", "Question:", "--trials", "3", "--max-tokens", "4", "--seed", "5", "--json"]
    code, out, _ = fluoro_here(*BY_SENTIMENT, *more)
    assert code == 0
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["prompt"] for row in rows] == [REVIEW] * 3 + ["Question:"] * 3
    assert [row["seed"] for row in rows] == [5, 6, 7] * 2
    assert {row["positions"] for row in rows} == {"LAST | GENERATED"}
    for row in rows:
        assert row["unsteered"]["n_edits"] == 0
        assert row["steered"]["n_edits"] == row["steered"]["n_tokens"]
    # Each trial can be had alone, by its seed.
    alone = ["--prompt", "Question:", "--max-tokens", "4", "--seed", "7", "--json"]
    _, out, _ = fluoro_here(*BY_SENTIMENT[:4], *alone)
    assert json.loads(out) == rows[-1]


def test_both_texts_are_drawn_by_the_same_numbers(fluoro_here) -> None:
    nothing = ["--coefficient", "0", "--temperature", "1", "--trials", "8", "--prompt", "Question:"]
    _, out, _ = fluoro_here(*BY_SENTIMENT, *nothing, "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert all(row["unsteered"]["text"] == row["steered"]["text"] for row in rows)
    assert len({row["steered"]["text"] for row in rows}) > 4


def test_positions_given_are_in_the_place_of_the_vectors_own(fluoro_here, organism_model) -> None:
    n_prompt = organism_model.tokenize([REVIEW]).tokens.shape[1]
    for positions, n_edits in (("PROMPT", n_prompt), ("at(0,-1)", 2), ("after(Verdict:)", 2)):
        code, out, _ = fluoro_here(*BY_SENTIMENT, "--positions", positions, "--json")
        assert code == 0
        assert json.loads(out)["steered"]["n_edits"] == n_edits


def test_a_latent_is_set_as_the_library_sets_it(fluoro_here, organism_model) -> None:
    from fluoroscope.interventions.positions import GENERATED, LAST
    from fluoroscope.interventions.steering import steer
    from fluoroscope.models.generation import Request, generate
    from fluoroscope.models.sampling import Sampling
    from fluoroscope.sae.formats.native import load_sae
    from fluoroscope.sae.latent_edits import SetLatent

    sae = load_sae(SHIPPED_SAE).requires_grad_(False)
    latent = ["--sae", str(SHIPPED_SAE), "--latent", "7", "--value", "40.5"]
    how = ["--temperature", "1", "--top-p", "0.9", "--max-tokens", "9", "--stop", "."]
    code, out, _ = fluoro_here(
        "steer", "organism", "--prompt", "Question:", *latent, *how, "--json"
    )
    assert code == 0
    request = Request(prompt="Question:", max_tokens=9, stop=(".",))
    with steer(organism_model, {sae.hook_point: SetLatent(sae, 7, 40.5)}, LAST | GENERATED):
        (by_hand,) = generate(organism_model, [request], sampling=Sampling(top_p=0.9))
    found = json.loads(out)["steered"]
    assert (found["text"], found["finish"]) == (by_hand.text, by_hand.finish)


def test_a_vector_in_a_file_steers_a_real_model_and_no_word_is_cut(
    tmp_path, fluoro_here, stories_folder, stories_model
) -> None:
    from fluoroscope.interventions.vectors import mean_difference, save_gguf, save_vector

    sides = (["It was very good", "She was glad"], ["It was very bad", "She was sad"])
    vector = mean_difference(stories_model, *sides, ["3.resid_post"])
    save_vector(vector, tmp_path / "glad")
    save_gguf(vector, tmp_path / "glad.gguf", "llama")
    how = ["--prompt", "Once upon a time", "--max-tokens", "150"]
    found = []
    for name in ("glad.json", "glad.gguf"):
        command = ["steer", str(stories_folder), "--vector", str(tmp_path / name), *how]
        code, out, _ = fluoro_here(*command, "--json")
        assert code == 0
        found.append(json.loads(out))
    assert found[0] == found[1]
    texts = [found[0][side]["text"] for side in ("unsteered", "steered")]
    assert texts[0] != texts[1]
    _, out, _ = fluoro_here(*command)
    _, heading, *lines = out.partition("Prompt: Once upon a time")[2].splitlines()[1:]
    middle = heading.index(" steered")
    columns = [
        " ".join(line[part] for line in lines) for part in (slice(middle), slice(middle, None))
    ]
    for text, column in zip(texts, columns, strict=True):
        assert " ".join(text.split()) in " ".join(column.split())


def test_an_organism_in_a_folder_has_planted_vectors_too(fluoro_here) -> None:
    folder = str(SHIPPED["organism"])
    command = ["steer", folder, "--vector", f"{folder}:sentiment", "--prompt", REVIEW]
    code, out, _ = fluoro_here(*command, "--coefficient", "-80", "--json")
    assert code == 0
    assert json.loads(out)["steered"]["text"] == " negative."


LATENT = ["--sae", str(SHIPPED_SAE), "--latent", "3", "--value", "5"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give one of the two, got neither"),
        (["--vector", "organism:risk", *LATENT], "give one of the two, got both"),
        (["--vector", "organism:risk", "--latent", "3"], "--latent and --value go with --sae"),
        ([*LATENT, "--coefficient", "2"], "--coefficient goes with --vector"),
        (LATENT[:4], "give the latent and what to set it to"),
        ([*LATENT[:2], "--latent", "512", "--value", "5"], "There is no latent 512"),
        ([*LATENT[:2], "--latent", "-1", "--value", "5"], "There is no latent -1"),
        ([*LATENT[:5], "nan"], "must be a finite number"),
        (["--sae", "nowhere", *LATENT[2:]], "nowhere holds no Fluoroscope SAE"),
        (["--vector", "nothing.json"], "There is no steering vector nothing.json"),
        (["--vector", "organism"], "There is no steering vector organism"),
        (["--vector", "organism:risky"], "Did you mean 'risk'?"),
        (["--vector", "organism:risk", "--prompt", ""], "The prompt is empty"),
        (["--vector", "organism:risk", "--positions", "FIRST"], "Positions are PROMPT"),
        (["--vector", "organism:risk", "--positions", "at(99)"], "needs position 99"),
        (["--vector", "organism:risk", "--temperature", "-1"], "Setting 'temperature'"),
        (["--vector", "organism:risk", "--top-p", "0"], "Setting 'top_p'"),
        (["--vector", "organism:risk", "--stop", ""], "A stop string is empty"),
        (["--vector", "organism:risk", "--dtype", "int8"], "A dtype is one of"),
        (["--vector", "organism:risk", "--device", "tpu"], "A device is cpu, cuda or cuda:N"),
    ],
)
def test_what_cannot_steer_is_a_message_and_exit_code_2(
    fluoro_here, arguments: list[str], message: str
) -> None:
    code, out, said = fluoro_here("steer", "organism", "--prompt", "Question:", *arguments)
    assert (code, out) == (2, "")
    assert message in " ".join(said.split())


def test_what_is_of_another_model_steers_none(fluoro_here, stories_folder) -> None:
    for arguments, message in (
        (["--vector", "organism:risk"], "was made for the model organism (weights"),
        (LATENT, "was to be used with model stories260K, tokenizer_sha256"),
    ):
        code, _, said = fluoro_here("steer", str(stories_folder), "--prompt", "Once", *arguments)
        assert code == 2
        assert message in " ".join(said.split())


def test_an_encoder_writes_no_text() -> None:
    from fluoroscope.cli.steered_texts import Steering, write_pairs
    from fluoroscope.core.errors import ModelError
    from fluoroscope.interventions.positions import ALL
    from fluoroscope.models.generation import Request
    from fluoroscope.models.sampling import Sampling
    from fluoroscope.models.tiny import tiny_model

    with pytest.raises(ModelError, match="is an encoder"):
        write_pairs(tiny_model("bert"), Steering({}, ALL, "x"), [Request(prompt="a")], Sampling())
