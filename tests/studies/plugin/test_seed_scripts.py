"""The plan's command lines: what they ask of `fluoro`, what they leave, and where they run."""

import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from sklearn.metrics import accuracy_score, f1_score

from fluoroscope.core.config import build
from fluoroscope.core.errors import ConfigError
from fluoroscope.runs.engine import execute
from fluoroscope.runs.how import How
from fluoroscope.runs.record import default_name
from fluoroscope.studies.plugin.spec import PluginSpec
from fluoroscope.studies.plugin.study import PluginStudy
from fluoroscope.studies.plugin.summary import summary, written_files
from fluoroscope.studies.settings import study_spec

ROOT = Path(__file__).resolve().parents[3]
CLASSIFICATION = ROOT / "scripts" / "run_classification.sh"
ENTAILMENT = ROOT / "scripts" / "run_entailment.sh"
SHELLS = (CLASSIFICATION, ENTAILMENT, ROOT / "scripts" / "pifi.sh")
DEFAULT_DATA = {CLASSIFICATION: ["sst2", "imdb", "cola"], ENTAILMENT: ["mnli", "snli"]}
FLUORO = f"{sys.executable} -m fluoroscope"
SMALL = [
    "model.pooling=last", "n_train=64", "selection.n_samples=60", "selection.ilm.n_samples=60",
    "selection.also=[]", "training.max_length=32",
]  # fmt: skip


def shell(script, *words, cwd=None, path=None, **variables):
    """Runs a script with `variables` and none of the plan's that are set outside."""
    kept = ("PATH", "HOME", "LANG", "TMPDIR", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    given = {name: os.environ[name] for name in kept if name in os.environ}
    if path is not None:
        given["PATH"] = f"{path}:/usr/bin:/bin"
    return subprocess.run(
        ["bash", str(script), *words],
        env={**given, "USE_WANDB": "false", **variables},
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )


def asked(script, *words, **variables):
    """The words that `fluoro` would be given, and its settings."""
    done = shell(script, *words, DRY_RUN="1", FLUORO="fluoro", **variables)
    assert done.returncode == 0, done.stderr
    command = shlex.split(done.stderr.splitlines()[-1])
    assert command[:3] == ["fluoro", "run", "plugin"]
    settings = [word for word in command[3:] if "=" in word]
    preset = command[command.index("--preset") + 1]
    return command, study_spec("plugin", preset, None, settings)


EXAMPLES = [
    ({"MODE": "base", "DATASETS": "sst2"}, CLASSIFICATION),
    (
        {"MODE": "pifi_ilm", "MODEL": "bert", "LLM": "llama3.1", "DATASETS": "sst2 imdb"},
        CLASSIFICATION,
    ),
    ({"MODE": "pifi", "LLM": "qwen2_0.5b", "LAYER": "15", "DATASETS": "cola"}, CLASSIFICATION),
    ({"MODE": "pifi_ilm", "DATASETS": "sst2 imdb cola trec"}, CLASSIFICATION),
    ({"DOCKER": "true", "FLUOROSCOPE_IN_DOCKER": "1", "MODE": "pifi_ilm"}, CLASSIFICATION),
    (
        {"MODE": "pifi_ilm", "MODEL": "roberta", "LLM": "qwen2_1.5b", "DATASETS": "mnli"},
        ENTAILMENT,
    ),
    ({"CACHE_PATH": "/data/hf_cache", "MODEL_PATH": "/data/models"}, CLASSIFICATION),
]


@pytest.mark.parametrize(("variables", "script"), EXAMPLES)
def test_each_example_of_the_manual_is_its_settings(variables, script):
    _, spec = asked(script, **variables)
    assert spec.mode == variables.get("MODE", "pifi_ilm")
    assert spec.model.source == variables.get("MODEL", "bert")
    assert spec.llm.source == variables.get("LLM", "llama3.1")
    assert spec.layer == int(variables.get("LAYER", -1))
    wanted = variables["DATASETS"].split() if "DATASETS" in variables else DEFAULT_DATA[script]
    assert spec.datasets == wanted
    cache = variables.get("CACHE_PATH", "./cache")
    assert spec.outputs.cache == f"{cache}/layers"
    assert spec.outputs.models == variables.get("MODEL_PATH", "./models")
    assert spec.outputs.checkpoints == "./checkpoints"
    assert spec.outputs.results == "./results"
    assert spec.outputs.preprocessed == "./preprocessed"


def test_what_is_not_set_is_as_in_the_manual():
    command, spec = asked(CLASSIFICATION)
    assert (spec.epochs, spec.training.batch_size, spec.seed, spec.seeds) == (3, 32, 2023, 1)
    ilm = spec.selection.ilm
    assert (spec.selection.method, ilm.n_samples, ilm.n_pcs, ilm.top_pc) == ("ilm", 400, 16, 5)
    assert spec.beside == []
    assert "--executor" not in command
    assert "--name" not in command


def test_every_variable_arrives():
    command, spec = asked(
        CLASSIFICATION, "training.dropout=0.3", EPOCHS="2", BS="16", SEED="7", WORKERS="2",
        SEL_SAMPLES="3000", SEL_PCS="9", SEL_TOP_PC="4", THREADS="2", BESIDE="base random_layer",
        NAME="mine", PREPROCESS_PATH="/p", CHECKPOINT_PATH="/c", RESULT_PATH="/r",
    )  # fmt: skip
    assert (spec.epochs, spec.training.batch_size, spec.seed, spec.threads) == (2, 16, 7, 2)
    ilm = spec.selection.ilm
    assert (ilm.n_samples, ilm.n_pcs, ilm.top_pc) == (3000, 9, 4)
    assert spec.selection.n_samples == 3000
    assert spec.beside == ["base", "random_layer"]
    assert spec.training.dropout == 0.3
    outputs = spec.outputs
    assert (outputs.preprocessed, outputs.checkpoints, outputs.results) == ("/p", "/c", "/r")
    assert command[command.index("--name") + 1] == "mine"
    assert command[command.index("--workers") + 1] == "2"


def test_another_preset_brings_what_it_has():
    _, spec = asked(CLASSIFICATION, PRESET="tiny")
    assert (spec.datasets, spec.llm.source) == (["organism_reviews"], "organism")
    _, sound = asked(CLASSIFICATION, PRESET="plugin/sound")
    assert sound.datasets == DEFAULT_DATA[CLASSIFICATION]
    assert (sound.epochs, sound.seeds) == (4, 3)
    assert "random_layer" in sound.beside
    assert asked(CLASSIFICATION, PRESET="sound", MODE="base")[1].beside == []


def test_a_second_seed_or_setting_is_another_run_and_the_same_command_the_same():
    first, seed, batch = (
        asked(CLASSIFICATION, **one)[1] for one in ({}, {"SEED": "1"}, {"BS": "8"})
    )
    again = asked(CLASSIFICATION, MODEL_PATH="/elsewhere", WORKERS="4")[1]
    names = [default_name("plugin", spec) for spec in (first, seed, batch, again)]
    assert len(set(names)) == 3
    assert names[3] == names[0]


def test_data_is_looked_for_where_it_is_named(tmp_path):
    assert asked(CLASSIFICATION, DATA_DIR=str(tmp_path))[1].data_dir == str(tmp_path)
    assert asked(CLASSIFICATION, FLUOROSCOPE_DATA=str(tmp_path))[1].data_dir is None
    beside = ROOT.parent / "shared" / "data"
    assert asked(CLASSIFICATION)[1].data_dir == (str(beside) if beside.is_dir() else None)
    none = shell(CLASSIFICATION, DATA_DIR="/no/such", DRY_RUN="1")
    assert none.returncode == 2
    assert "DATA_DIR=/no/such is no folder" in none.stderr


def test_a_variable_without_effect_says_so():
    for variables, text in (
        ({"MODE": "base", "LAYER": "3"}, "LAYER has no effect with MODE=base"),
        ({"MODE": "pifi_ilm", "LAYER": "3"}, "LAYER has no effect with MODE=pifi_ilm"),
    ):
        done = shell(CLASSIFICATION, DRY_RUN="1", FLUORO="fluoro", **variables)
        assert text in done.stderr
        assert "layer=3" not in done.stderr


@pytest.mark.parametrize("value", ["abc", "08", "0", "-3", "2 3"])
@pytest.mark.parametrize("name", ["WORKERS", "SEL_SAMPLES"])
def test_a_number_that_is_none_is_refused_before_anything_is_run(name, value):
    done = shell(CLASSIFICATION, DRY_RUN="1", FLUORO="fluoro", **{name: value})
    assert done.returncode == 2
    assert done.stderr.startswith(f"{name} is a whole number from 1")
    assert f"got {name}={value}." in done.stderr


def test_wandb_is_used_where_it_is_and_left_out_with_a_word_where_not(tmp_path):
    for code, expected in ((0, "outputs.wandb=true"), (1, "wandb is not installed")):
        for name, line in (("fluoro", "exit 0"), ("python", f"exit {code}")):
            tool = tmp_path / name
            tool.write_text(f"#!/bin/sh\n{line}\n")
            tool.chmod(0o755)
        fluoro = str(tmp_path / "fluoro")
        done = shell(CLASSIFICATION, DRY_RUN="1", FLUORO=fluoro, USE_WANDB="true")
        assert done.returncode == 0
        assert expected in done.stderr
    without = shell(CLASSIFICATION, DRY_RUN="1", FLUORO=fluoro).stderr
    assert "outputs.wandb" not in without
    assert "not installed" not in without


def test_no_fluoro_anywhere_says_what_to_do(tmp_path):
    done = shell(CLASSIFICATION, path=tmp_path, FLUOROSCOPE_IN_DOCKER="1")
    assert done.returncode == 2
    assert "make install" in done.stderr


@pytest.mark.parametrize("path", SHELLS)
def test_the_shell_is_sound_and_knows_no_path_of_anyone(path):
    assert subprocess.run(["bash", "-n", path], check=False).returncode == 0
    assert "/home/" not in path.read_text()
    if shutil.which("shellcheck"):
        done = subprocess.run(
            ["shellcheck", "-x", path], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout


def organism(folder, script=CLASSIFICATION, dataset="organism_reviews", **variables):
    done = shell(
        script, *SMALL, cwd=folder, FLUORO=FLUORO, MODEL="organism", LLM="organism",
        DATASETS=dataset, EPOCHS="1", PYTHONPATH=str(ROOT), **variables,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.slow
def test_a_script_trains_says_how_it_went_and_goes_on_with_the_same_command(tmp_path):
    first = organism(tmp_path)
    header, row = (line for line in first.stdout.splitlines() if "accuracy" in line or "[" in line)
    assert header.split()[:2] == ["data", "set"]
    assert row.split()[0] == "organism_reviews"
    chosen = json.loads(next(tmp_path.rglob("selection.json")).read_text())["best_llm_layer"]
    model = Path("models/classification/organism_reviews/last/organism/pifi/organism") / str(chosen)
    assert (tmp_path / model / "final_model.safetensors").is_file()
    assert str(model) in first.stdout
    assert (tmp_path / "checkpoints" / model.relative_to("models")).is_dir()
    results = tmp_path / "results/layer_selection/classification/organism_reviews"
    assert (results / "organism/organism/layer_scores.csv").is_file()
    second = organism(tmp_path)
    assert "train: done before" in second.stderr
    assert second.stdout == first.stdout


@pytest.mark.slow
def test_pairs_without_a_layer_and_another_seed_each_leave_files(tmp_path):
    pairs = {"script": ENTAILMENT, "dataset": "organism_inference", "MODE": "base"}
    base = tmp_path / "models/entailment/organism_inference/last/organism/base/none/none"
    organism(tmp_path, **pairs)
    assert (base / "final_model.safetensors").is_file()
    organism(tmp_path, SEED="1", **pairs)
    assert len(list(base.glob("run-*/final_model.safetensors"))) == 1
    assert len(list((tmp_path / "runs").glob("plugin-*"))) == 2


@pytest.mark.slow
def test_no_result_yet_is_said(tmp_path):
    done = organism(tmp_path, NAME="begun", MODE="base")
    assert "begun" in done.stderr
    texts = shell(
        CLASSIFICATION, *SMALL, "--until", "preprocessing", cwd=tmp_path, FLUORO=FLUORO,
        MODEL="organism", MODE="base", DATASETS="organism_reviews", PYTHONPATH=str(ROOT),
    )  # fmt: skip
    assert texts.returncode == 0
    assert "Nothing is trained yet." in texts.stdout


@pytest.fixture
def docker(tmp_path):
    """A `docker` that writes down what it is asked, and knows an image once it was built."""
    tools = tmp_path / "tools"
    tools.mkdir()
    tool = tools / "docker"
    tool.write_text(
        '#!/bin/bash\necho "$*" >>"$LOG"\n'
        '[[ $1 == image ]] && exec test -e "$LOG.built"\n'
        '[[ $1 == build ]] && touch "$LOG.built"\nexit 0\n'
    )
    tool.chmod(0o755)
    work = tmp_path / "work"
    work.mkdir()
    log = tmp_path / "log"

    def run(*words, **variables):
        log.write_text("")
        known = {"FLUOROSCOPE_IN_DOCKER": "0", "LOG": str(log), **variables}
        done = shell(CLASSIFICATION, *words, cwd=work, path=tools, DOCKER="true", **known)
        assert done.returncode == 0, done.stderr
        return log.read_text().splitlines()

    run.work, run.tools = work, tools
    return run


def test_a_container_runs_the_same_script_with_the_same_folders(docker, tmp_path):
    data, models = tmp_path / "data", tmp_path / "models"
    data.mkdir()
    secret = "hf_secret"
    variables = {"MODE": "base", "DATA_DIR": str(data), "MODEL_PATH": str(models)}
    lines = docker("n_train=9", HF_TOKEN=secret, **variables)
    assert [line.split()[0] for line in lines] == ["image", "build", "run"]
    run = lines[-1]
    assert run.endswith("/opt/fluoroscope/scripts/run_classification.sh n_train=9")
    work = docker.work
    for part in (
        f"--volume {work}:{work} --workdir {work}",
        f"--volume {data}:{data}:ro",
        f"--volume {models}:{models}:rw",
        "--env FLUOROSCOPE_IN_DOCKER=1",
        "--env MODE ",
        "--env HF_TOKEN ",
    ):
        assert part in run
    assert secret not in run
    assert "--gpus" not in run
    assert [line.split()[0] for line in docker(**variables)] == ["image", "run"]


def test_a_container_has_the_weights_beside_the_data_and_every_folder_once(docker, tmp_path):
    data, weights = tmp_path / "data", tmp_path / "weights"
    data.mkdir()
    variables = {"DATA_DIR": str(data), "FLUOROSCOPE_DATA": str(data), "LLM": "stories260k"}
    assert f"{weights}:" not in docker(**variables)[-1]
    weights.mkdir()
    run = docker(**variables)[-1]
    for folder in (data, weights):
        assert run.count(f"--volume {folder}:{folder}:ro") == 1


def test_a_container_is_shown_as_it_is_run(docker):
    shown = shell(
        CLASSIFICATION, "n_train=9", cwd=docker.work, path=docker.tools, DOCKER="true",
        FLUOROSCOPE_IN_DOCKER="0", DRY_RUN="1", LOG=os.devnull,
    ).stderr.strip()  # fmt: skip
    assert shown.startswith("docker run --rm")
    assert shown.endswith("/opt/fluoroscope/scripts/run_classification.sh n_train=9")


def test_a_container_has_the_gpus_where_there_is_a_driver(docker):
    tool = docker.tools / "nvidia-smi"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    run = docker(CUDA_VISIBLE_DEVICES="1")[-1]
    assert "--gpus all" in run
    assert "--env CUDA_VISIBLE_DEVICES" in run


def test_in_a_container_already_nothing_is_asked_of_docker(docker):
    variables = {"FLUOROSCOPE_IN_DOCKER": "1", "FLUORO": "fluoro", "DRY_RUN": "1"}
    assert docker(**variables) == []


def test_docker_that_is_not_there_is_an_error(tmp_path):
    for tool in ("bash", "dirname", "uname"):
        (tmp_path / tool).symlink_to(shutil.which(tool))
    done = subprocess.run(
        ["bash", CLASSIFICATION],
        env={"PATH": str(tmp_path), "DOCKER": "true", "FLUOROSCOPE_IN_DOCKER": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "DOCKER=true needs the command docker" in done.stderr


@pytest.fixture(scope="module")
def main():
    spec = importlib.util.spec_from_file_location("plan_main", ROOT / "scripts" / "main.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def by_flags(main, *arguments):
    command = main.command(main.parsed(list(arguments)))
    settings = [word for word in command if "=" in word]
    return command, study_spec("plugin", command[command.index("--preset") + 1], None, settings)


MANUAL = shlex.split(
    "--auto_select_layer true --selection_samples 400 --selection_pcs 16 --selection_top_pc 5 "
    "--selection_pooling mean --selection_dtype fp16 --selection_score_mode mixed "
    "--selection_score_alpha 0.4 --selection_score_beta 0.3 --selection_score_gamma 0.3 "
    "--selection_depth_bias 0.3"
)


def test_the_manuals_flags_are_ilms_defaults_in_half_precision(main):
    command, spec = by_flags(main, *MANUAL)
    default = build(PluginSpec, {}).selection.ilm
    assert spec.mode == "pifi_ilm"
    assert spec.selection.ilm == default.model_copy(update={"dtype": "float16"})
    assert main.notes(main.parsed(MANUAL)) == []
    assert "--until" not in command


def test_every_flag_of_a_setting_arrives(main):
    values = {
        "padding": "average_pooling_with_padding", "optimizer": "SGD", "scheduler": "None",
        "optimize_objective": "f1", "use_wandb": "no", "selection_dtype": "fp32",
        "selection_split": "validation", "selection_stratified": "false",
        "selection_patch_lambda": "0.1,2", "selection_score_mode": "robust",
        "selection_pooling": "last", "clip_grad_norm": "0", "early_stopping_patience": "None",
        "dropout_rate": "0.4", "label_smoothing_eps": "0.2", "weight_decay": "0.01",
        "learning_rate": "1e-4", "selection_depth_bias": "0",
    }  # fmt: skip
    flags = [*main.FLAGS, *main.SELECTION]
    words = [f"--{name}={values.get(name, '3')}" for name in flags if name != "task_dataset"]
    _, spec = by_flags(main, "--auto_select_layer=true", "--task_dataset=cola", *words)
    assert spec.model.pooling == "average_pooling_with_padding"
    assert spec.training.padding == "max_length"
    assert spec.training.optimiser.model_dump() | {"schedule": "constant"} == {
        "name": "sgd", "learning_rate": 1e-4, "new_learning_rate": None, "weight_decay": 0.01,
        "schedule": "constant", "warmup_share": 0, "clip": None,
    }  # fmt: skip
    assert (spec.training.patience, spec.training.choose_by) == (None, "macro_f1")
    ilm = spec.selection.ilm
    assert (ilm.patch_lambda, ilm.is_stratified, ilm.layer_stride) == ((0.1, 2.0), False, 3)
    assert (spec.datasets, spec.outputs.cache) == (["cola"], "3/layers")


def test_a_job_is_how_far_to_go_of_one_run(main):
    runs = {}
    for job in ("preprocessing", "training", "resume_training", "testing"):
        command, _ = by_flags(main, "--job", job)
        assert ("--until" in command) == (job == "preprocessing")
        runs[job] = command[-1]
    assert len(set(runs.values())) == 1
    assert by_flags(main, "--seed", "3")[0][-1] != runs["training"]


def test_what_is_tested_besides_is_only_what_was_asked(main):
    assert by_flags(main, "--task_dataset", "imdb")[1].test_on == []
    line = ["--task_dataset", "imdb", "--test_dataset"]
    assert by_flags(main, *line, "sst2")[1].test_on == ["sst2"]
    assert by_flags(main, *line, "imdb")[1].test_on == []


def test_methods_are_modes(main):
    assert by_flags(main, "--method", "base")[1].mode == "base"
    _, spec = by_flags(main, "--method", "pifi", "--llm_model", "falcon", "--layer_num", "3")
    assert (spec.mode, spec.llm.source, spec.layer) == ("pifi", "falcon", 3)
    assert by_flags(main, "--freeze", "false")[1].variant == "unfrozen"


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("--selection_sample 5", "Did you mean '--selection_samples'?"),
        ("--scheduler StepLR", "None, linear, CosineAnnealingLR, got 'StepLR'"),
        ("--auto_select_layer true --selection_split test", "train, validation, got 'test'"),
        ("--auto_select_layer perhaps", "true or false"),
        ("--job test", "invalid choice: 'test'"),
        (
            "--auto_select_layer true --selection_samples abc",
            "--selection_samples: A whole number from 1 is needed, got 'abc'",
        ),
        ("sst2", "A setting is key=value, got 'sst2'"),
    ],
)
def test_a_flag_that_cannot_be_meant_is_answered(main, line, text):
    with pytest.raises(ConfigError, match=text.replace("?", r"\?")):
        main.command(main.parsed(line.split()))


def test_a_data_set_of_the_other_task_is_refused(main):
    with pytest.raises(ConfigError, match="mnli is a data set of --task entailment"):
        main.check_task(main.parsed(["--task", "classification", "--task_dataset", "mnli"]))


def test_the_columns_of_a_table_tell_its_task(main, tmp_path):
    table = tmp_path / "mine.csv"
    for header, own, other in (
        ("premise,hypothesis,label", "entailment", "classification"),
        ("text,note,label", "classification", "entailment"),
    ):
        table.write_text(f"{header}\na,b,0\n")
        dataset = ["--task_dataset", f"file:{table}"]
        main.check_task(main.parsed(["--task", own, *dataset]))
        with pytest.raises(ConfigError, match=f"is a data set of --task {own}, not of {other}"):
            main.check_task(main.parsed(["--task", other, *dataset]))


@pytest.mark.parametrize(
    ("line", "flags"),
    [
        ("--test_batch_size 8", ["test_batch_size"]),
        ("--auto_select_layer true --selection_topk_rerank 3", ["selection_topk_rerank"]),
        ("--auto_select_layer true --layer_num 3", ["layer_num"]),
        ("--selection_pcs 3", ["selection_pcs"]),
        ("--method base --llm falcon --layer_num 2", ["llm", "layer_num"]),
        ("--method pifi --llm falcon --layer_num 2", []),
    ],
)
def test_a_flag_without_effect_says_so(main, line, flags):
    notes = main.notes(main.parsed(line.split()))
    assert [note.split()[0] for note in notes] == [f"--{flag}" for flag in flags]


def test_a_summary_is_of_every_training_and_names_its_files(tmp_path):
    settings = {
        "mode": "pifi", "layer": 2, "model": {"source": "organism", "pooling": "last"},
        "llm": "organism", "datasets": ["organism_reviews"], "n_train": 32, "epochs": 1,
        "seeds": 2, "beside": ["base"], "training": {"max_length": 24, "batch_size": 16},
        "outputs": {"models": str(tmp_path / "models")},
    }  # fmt: skip
    study, how = PluginStudy(), How(devices="cpu")
    spec = build(PluginSpec, settings)
    begun = execute(study, spec, "one", how, root=tmp_path, until="preprocessing")
    assert summary(begun).is_empty()
    assert written_files(begun) == []
    run = execute(study, spec, "one", how, root=tmp_path)
    found = summary(run)
    assert found["arm"].to_list() == ["faithful", "faithful", "base", "base"]
    assert found["layer"].to_list() == [2, 2, None, None]
    assert found["seed"].to_list() == [2023, 2024] * 2
    for arm, seed, shown, f1 in found.select("arm", "seed", "test accuracy", "macro-F1").rows():
        name = "faithful-02" if arm == "faithful" else arm
        shard = run.folder / "train" / "shards" / f"organism_reviews.{name}.{seed}"
        tested = pl.read_parquet(shard / "predictions.parquet").filter(pl.col("side") == "test")
        labels, said = tested["label"].to_numpy(), tested["predicted"].to_numpy()
        assert shown.startswith(f"{accuracy_score(labels, said):.3f} [")
        assert f1 == pytest.approx(f1_score(labels, said, average="macro"))
    folder = tmp_path / "models/classification/organism_reviews/last/organism/pifi/organism/2"
    states = [path for path in written_files(run) if path.suffix != ".html"]
    assert sorted(states)[0] == folder
    assert len(states) == 2
    assert all((path / "final_model.safetensors").is_file() for path in states)
