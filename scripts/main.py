r"""The plan's own command line, as one `fluoro run plugin`.

    python scripts/main.py --task classification --job training --task_dataset sst2 \
        --method pifi --llm qwen2_0.5b --auto_select_layer true --selection_samples 400

`--job` says how far to go: `preprocessing` to the texts, the others to the end, as a classifier is
tested once, when it is trained. Every job goes on where an earlier one stopped, if all else is
said alike; a flag changed is another run. Words as key=value are settings of the study (`fluoro
run plugin --help` lists them). With DRY_RUN=1 the command is printed and not run.
"""

import argparse
import os
import re
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from fluoroscope.cli import main as fluoro
from fluoroscope.core.errors import ConfigError, UserError
from fluoroscope.core.registry import nearest
from fluoroscope.data.labelled.base import labelled_set
from fluoroscope.runs.record import default_name
from fluoroscope.studies.settings import study_spec

ILM = "selection.ilm."
OPTIMISERS = {"Adam": "adam", "AdamW": "adamw", "SGD": "sgd", "AdaDelta": "adadelta"}
SCHEDULES = {"None": "constant", "linear": "linear", "CosineAnnealingLR": "cosine"}
OBJECTIVES = {"accuracy": "accuracy", "loss": "loss", "f1": "macro_f1"}
DTYPES = {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32"}
PADDINGS = ("cls", "average_pooling_with_padding", "average_pooling_without_padding")

Reading = Mapping[str, str] | Callable[[str], str]
Flags = Mapping[str, tuple[str, Reading]]


def truth(text: str) -> str:
    """`true` or `false`, of whatever words the plan takes for them."""
    if text.lower() in ("true", "yes", "t", "y", "1"):
        return "true"
    if text.lower() in ("false", "no", "f", "n", "0"):
        return "false"
    raise ConfigError(f"true or false is needed, got {text!r}.")


def count(text: str) -> str:
    """A whole number from 1."""
    if not re.fullmatch(r"[1-9][0-9]*", text):
        raise ConfigError(f"A whole number from 1 is needed, got {text!r}.")
    return text


def as_list(text: str) -> str:
    return f"[{text}]"


def or_null(text: str) -> str:
    return "null" if text in ("None", "none", "0") else text


def same(text: str) -> str:
    return text


FLAGS: Flags = {
    "task_dataset": ("datasets", same),
    "model_type": ("model", same),
    "padding": ("model.pooling", {name: name for name in PADDINGS}),
    "num_epochs": ("epochs", same),
    "seed": ("seed", same),
    "batch_size": ("training.batch_size", same),
    "max_seq_len": ("training.max_length", same),
    "dropout_rate": ("training.dropout", same),
    "label_smoothing_eps": ("training.label_smoothing", same),
    "early_stopping_patience": ("training.patience", or_null),
    "optimize_objective": ("training.choose_by", OBJECTIVES),
    "optimizer": ("training.optimiser.name", OPTIMISERS),
    "scheduler": ("training.optimiser.schedule", SCHEDULES),
    "learning_rate": ("training.optimiser.learning_rate", same),
    "weight_decay": ("training.optimiser.weight_decay", same),
    "clip_grad_norm": ("training.optimiser.clip", or_null),
    "data_path": ("data_dir", same),
    "cache_path": ("outputs.cache", lambda path: str(Path(path) / "layers")),
    "preprocess_path": ("outputs.preprocessed", same),
    "model_path": ("outputs.models", same),
    "checkpoint_path": ("outputs.checkpoints", same),
    "result_path": ("outputs.results", same),
    "use_wandb": ("outputs.wandb", truth),
}
"""Flag -> setting, and how its value is said there: one of a few, or by a function."""

SELECTION: Flags = {
    "selection_samples": (ILM + "n_samples", count),
    "selection_pcs": (ILM + "n_pcs", same),
    "selection_top_pc": (ILM + "top_pc", same),
    "selection_pooling": (ILM + "pooling", same),
    "selection_dtype": (ILM + "dtype", DTYPES),
    "selection_score_mode": (ILM + "score_mode", same),
    "selection_score_alpha": (ILM + "alpha", same),
    "selection_score_beta": (ILM + "beta", same),
    "selection_score_gamma": (ILM + "gamma", same),
    "selection_depth_bias": (ILM + "depth_bias", same),
    "selection_split": (ILM + "split", {"train": "train", "validation": "validation"}),
    "selection_max_length": (ILM + "max_length", same),
    "selection_stratified": (ILM + "is_stratified", truth),
    "selection_layer_stride": (ILM + "layer_stride", same),
    "selection_patch_lambda": (ILM + "patch_lambda", as_list),
    "selection_topk_rerank": (ILM + "topk_rerank", same),
}
"""Those of `--auto_select_layer true` alone."""

NO_EFFECT = {
    "selection_patch_lambda": "of an earlier ILM that took components away; the plan's has none",
    "selection_topk_rerank": "the best layers are ranked again by the same numbers, as in the plan",
    "test_batch_size": "no result depends on it",
    "num_workers": "texts are tokenised once; --workers N trains N classifiers at once",
    "min_seq_len": "short texts are padded, never left out",
    "model_ispretrained": "encoders are always pretrained",
    "train_valid_split": "the sides are those of split=paper or split=sound",
    "proj_name": "WANDB_PROJECT names the project of W&B",
    "description": "--name names the run",
    "log_selection": "the choice is always in the report, and in W&B where that is on",
    "log_selection_pca": "as --log_selection",
    "selection_plot_layers": "the report shows the first, middle, chosen and last",
    "selection_plot_max_layers": "as --selection_plot_layers",
}
"""Flags of the plan that change nothing here, and why."""


class Parser(argparse.ArgumentParser):
    """What is wrong is an error with a message, and an unknown flag names the nearest."""

    def error(self, message: str) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        raise ConfigError(f"{message[0].upper()}{message[1:]}.")


def parser() -> Parser:
    found = Parser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        argument_default=None,
    )
    tasks, jobs = ("classification", "entailment"), ("training", "resume_training", "testing")
    found.add_argument("--task", choices=tasks, help="checked against the data set, which tells it")
    found.add_argument("--job", choices=("preprocessing", *jobs), default="training")
    found.add_argument("--test_dataset", help="a further data set to be tested on (default: none)")
    found.add_argument("--method", choices=("base", "pifi"), default="pifi")
    found.add_argument("--llm", "--llm_model", help="llama3.1, qwen2_0.5b..., a folder, a hub id")
    found.add_argument("--layer_num", type=int, help="from 0; -1 is the last (default: -1)")
    found.add_argument("--auto_select_layer", default="false", help="true: the layer is chosen")
    found.add_argument("--freeze", default="true", help="false: the layer is trained too")
    found.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:0,cuda:1")
    found.add_argument("--workers", type=int, help="trainings at once")
    found.add_argument("--preset", default="paper", help="paper (default) or sound")
    found.add_argument("--beside", default="", help="what is trained beside it: base random_layer")
    found.add_argument("--name", help="of the run (default: from its settings)")
    for name, (key, _) in {**FLAGS, **SELECTION}.items():
        why = NO_EFFECT.get(name)
        found.add_argument(f"--{name}", help=f"no effect: {why}" if why else f"sets {key}")
    for name, why in NO_EFFECT.items():
        if name not in SELECTION:
            found.add_argument(f"--{name}", help=f"no effect: {why}")
    found.add_argument("settings", nargs="*", metavar="key=value", help="further settings")
    return found


def parsed(arguments: list[str]) -> argparse.Namespace:
    known = parser()
    options, unknown = known.parse_known_intermixed_args(arguments)
    if unknown:
        flag = unknown[0].partition("=")[0]
        flags = [name for action in known._actions for name in action.option_strings]
        raise ConfigError(f"There is no {flag}.{nearest(flag, flags)} --help lists all.")
    wrong = [word for word in options.settings if "=" not in word]
    if wrong:
        raise ConfigError(f"A setting is key=value, got {wrong[0]!r}.")
    return options


def command(options: argparse.Namespace) -> list[str]:
    """The words behind `fluoro`; settings given as key=value come last, and win."""
    mode = mode_of(options)
    settings = {"mode": mode, **said(options, FLAGS)}
    if options.padding == "average_pooling_with_padding":
        # A mean over padding is a text's own only where all are padded alike.
        settings["training.padding"] = "max_length"
    if mode == "pifi_ilm":
        settings |= said(options, SELECTION)
        if int(options.selection_samples or 0) > 2000:
            settings["selection.n_samples"] = options.selection_samples
    if mode == "pifi" and options.layer_num is not None:
        settings["layer"] = str(options.layer_num)
    if mode != "base" and options.llm is not None:
        settings["llm"] = options.llm
    if mode != "base" and truth(options.freeze) == "false":
        settings["variant"] = "unfrozen"
    dataset = options.task_dataset or "sst2"
    if options.test_dataset not in (None, dataset):
        settings["test_on"] = as_list(options.test_dataset)
    settings["beside"] = as_list(",".join(options.beside.split()))
    preset = options.preset.removeprefix("plugin/")
    words = ["run", "plugin", "--preset", f"plugin/{preset}", "--devices", options.device]
    if options.workers is not None:
        words += ["--executor", "processes", "--workers", str(options.workers)]
    if options.job == "preprocessing":
        words += ["--until", "preprocessing"]
    words += [f"{key}={value}" for key, value in {"datasets": dataset, **settings}.items()]
    words += options.settings
    return [*words, "--name", options.name or run_name(words, preset)]


def mode_of(options: argparse.Namespace) -> str:
    if options.method == "base":
        return "base"
    return "pifi_ilm" if truth(options.auto_select_layer) == "true" else "pifi"


def said(options: argparse.Namespace, flags: Flags) -> dict[str, str]:
    """The settings of the flags that were given."""
    found: dict[str, str] = {}
    for name, (key, how) in flags.items():
        text = getattr(options, name)
        if text is None:
            continue
        if callable(how):
            try:
                found[key] = how(text)
            except ConfigError as error:
                raise ConfigError(f"--{name}: {error}") from None
        elif text in how:
            found[key] = how[text]
        else:
            raise ConfigError(
                f"--{name} is one of {', '.join(how)}, got {text!r}.{nearest(text, how)}"
            )
    return found


def run_name(words: list[str], preset: str) -> str:
    """As `fluoro run` would name it, so that its results are found again."""
    overrides = [word for word in words if re.match(r"[\w.]+=", word)]
    return default_name("plugin", study_spec("plugin", preset, None, overrides))


def notes(options: argparse.Namespace) -> list[str]:
    """What was said and changes nothing."""
    given = [name for name in (*FLAGS, *SELECTION, *NO_EFFECT) if getattr(options, name)]
    found = {name: NO_EFFECT[name] for name in given if name in NO_EFFECT}
    mode = mode_of(options)
    if mode != "pifi_ilm":
        found |= dict.fromkeys(
            (name for name in given if name in SELECTION), "it belongs to --auto_select_layer true"
        )
    elif options.layer_num not in (None, -1):
        found["layer_num"] = "--auto_select_layer true chooses it"
    if mode == "base":
        others = {"llm": options.llm, "layer_num": options.layer_num}
        found |= {
            name: "it belongs to --method pifi"
            for name, value in others.items()
            if value is not None
        }
    return [f"--{name} has no effect: {why}." for name, why in found.items()]


def check_task(options: argparse.Namespace) -> None:
    """Refuses a data set of the other task, and one that there is not."""
    for name in filter(None, (options.task_dataset, options.test_dataset)):
        task = labelled_set(name).task_at()
        if options.task not in (None, task):
            raise ConfigError(f"{name} is a data set of --task {task}, not of {options.task}.")


def main() -> None:
    options = parsed(sys.argv[1:])
    check_task(options)
    words = command(options)
    for note in notes(options):
        print(note, file=sys.stderr)
    print("fluoro", shlex.join(words), file=sys.stderr)
    if os.environ.get("DRY_RUN"):
        return
    ask(words)
    if options.job != "preprocessing":
        ask(["plugin", "summary", words[-1]])


def ask(words: list[str]) -> None:
    """`fluoro` in this process, so that Ctrl-C and errors are its own."""
    sys.argv = ["fluoro", *words]
    try:
        fluoro()
    except SystemExit as end:
        if end.code:
            raise


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
