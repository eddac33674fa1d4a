"""`fluoro hallucination watch`: which run scores, what is written, and what may be said of it."""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl
import typer
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from fluoroscope.cli.running_score import (
    MAX_ROWS,
    is_cut,
    plain,
    score_table,
    show_lines,
    show_live,
    shown,
)
from fluoroscope.core.config import build
from fluoroscope.core.errors import DamagedError, RunError
from fluoroscope.core.seeding import derive_seed, stream
from fluoroscope.data.answers.record import AnswerRecord
from fluoroscope.models.hub import model_fingerprint
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.models.sampling import Sampling
from fluoroscope.models.texts import Request
from fluoroscope.runs.ledger import find_run
from fluoroscope.runs.record import FILE, read_record, runs_root
from fluoroscope.runs.run import DONE, Run
from fluoroscope.steps.models import load_model
from fluoroscope.studies.hallucination.online.watcher import Watched, Watcher
from fluoroscope.studies.hallucination.steps.answers import read_answer_records
from fluoroscope.studies.hallucination.steps.online import (
    AUROC,
    ONLINE,
    PREFIXES,
    early_aurocs,
    read_judged,
)
from fluoroscope.studies.hallucination.steps.watcher import open_watcher

PIPE_WIDTH = 120
OWN_QUESTIONS = 4
STUDY = "hallucination"


class Wanted(NamedTuple):
    """What the command line says; None is as in the run."""

    prompts: Sequence[str]
    max_tokens: int | None
    temperature: float | None
    seed: int | None
    as_json: bool


def watch_prompts(model: str, run_name: str | None, device: str, wanted: Wanted) -> None:
    """Writes an answer to each prompt and shows its score meanwhile."""
    folder = newest_run(model) if run_name is None else find_run(run_name)
    run = Run.open(folder, device)
    if run.study != STUDY:
        raise RunError(f"{run.name} is a run of the study {run.study}, not of {STUDY}.")
    run.step_folder(ONLINE)
    with Console(stderr=True).status(f"Reading {escape(model)}"):
        watcher = open_watcher(run, _loaded(run, model, device))
    console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH)
    about = Console(stderr=True) if wanted.as_json else console
    about.print(Text(what_scores_are(run)), soft_wrap=True)
    for prompt in wanted.prompts or own_questions(run):
        _watch(console, run, watcher, prompt, wanted)


def newest_run(model: str) -> Path:
    """The run of this model that was started last, of those with an online detector."""
    fingerprint = model_fingerprint(model)
    found: list[tuple[str, Path]] = []
    for file in runs_root().glob(f"*/{FILE}"):
        folder = file.parent
        if not (folder / ONLINE / DONE).exists():
            continue
        try:
            record = read_record(folder)
        except DamagedError:
            continue
        if record.study == STUDY and record.sources.get("model") == fingerprint:
            found.append((str(record.provenance.get("started")), folder))
    if not found:
        raise RunError(
            f"No run in {runs_root()} has learnt to score answers of {model}. Make one, by `fluoro "
            f"run {STUDY} model={model} ...` as far as its phase detect, or name one with --run."
        )
    return max(found)[1]


def own_questions(run: Run) -> list[str]:
    """Some prompts of a run: as many whose answer was made up as whose was true, in turn."""
    records = [one for one in read_answer_records(run) if one.prompt]
    order = stream(run.config.seed, "watched").permutation(len(records))
    half = OWN_QUESTIONS // 2
    kinds = [
        list(dict.fromkeys(records[i].prompt for i in order if records[i].label == label))[:half]
        for label in (1, 0)
    ]
    return [prompt for pair in zip(*kinds, strict=False) for prompt in pair]


def what_scores_are(run: Run) -> str:
    """On what a score rests, in words."""
    judged = read_judged(run)
    said = (
        f"Score: the probability that an answer is made up, calibrated on {judged['answers']} "
        f"answers of the run {run.name} ({judged['made_up']:.0%} of them made up). It says how "
        "answers like this one were labelled there, not whether this one is true."
    )
    if AUROC in judged:
        before, last = early_aurocs(judged)
        error = judged["last"]
        said += (
            f"\nAUROC on answers that it had not seen: {before} before the first token, {last} "
            f"after the last. Expected calibration error {error['value']:.3f} (perfect scores "
            f"would have {error['if_calibrated']:.3f})."
        )
    if run.config.data.answers == "stated":
        said += (
            "\nThat run judged answers which people had written; how far its scores hold for what "
            "the model itself writes was not measured."
        )
    return said


def _loaded(run: Run, model: str, device: str) -> LanguageModel:
    config = run.config.model
    if model == config.name:
        return load_model(run, config, device)
    # In the run's precision: with another a latent may be on that was off.
    return LanguageModel.load(model, dtype=config.dtype, device=device)


def _watch(console: Console, run: Run, watcher: Watcher, prompt: str, wanted: Wanted) -> None:
    record = next((one for one in read_answer_records(run) if one.prompt == prompt), None)
    tokens = _written(run, watcher, prompt, record, wanted)
    if wanted.as_json:
        about = {"run": run.name, "model": watcher.model.name, "prompt": prompt}
        for one in tokens:
            typer.echo(json.dumps(about | plain(one), ensure_ascii=False))
        return
    console.print()
    show = show_live if console.is_terminal else show_lines
    watched = show(console, prompt, tokens)
    console.print(score_table(watched))
    if is_cut(watched):
        console.print(f"The {MAX_ROWS} tokens at which the score moved most.", style="dim")
    if record is not None:
        console.print(Text(_about_record(run, record, watched), "dim"), soft_wrap=True)
    else:
        console.print(Text(_other_prompt(run), "dim"), soft_wrap=True)


def _written(
    run: Run, watcher: Watcher, prompt: str, record: AnswerRecord | None, wanted: Wanted
) -> Iterator[Watched]:
    settings = run.config.answers
    seed = wanted.seed
    if seed is None:
        # By the seed of the step `answers` a question of the run is answered as it was there.
        question = record.id.rpartition("/")[0] if record else prompt
        seed = derive_seed(run.config.seed, "answer", question)
    request = Request(
        prompt=prompt,
        seed=seed,
        max_tokens=wanted.max_tokens or settings.max_tokens,
        stop=tuple(settings.stop),
        may_echo=True,
    )
    sampling = settings.sampling.model_dump()
    if wanted.temperature is not None:
        sampling["temperature"] = wanted.temperature
    return watcher.write(request, build(Sampling, sampling))


def _about_record(run: Run, record: AnswerRecord, watched: Sequence[Watched]) -> str:
    said = "This prompt is one of the run's, and the detector has learnt from an answer to it"
    label = "made up" if record.label else "true"
    if "".join(one.text for one in watched) != record.completion:
        return f"{said}: {shown(record.completion)!r}, labelled {label}."
    found = pl.read_parquet(run.step_folder(ONLINE) / PREFIXES).filter(pl.col("id") == record.id)
    if found.is_empty():
        return f"{said}: the same, labelled {label}."
    score = found.sort("tokens")["score"][-1]
    return f"{said}: the same, labelled {label}. Without it, the last score was {score:.2f}."


def _other_prompt(run: Run) -> str:
    first = next((one.prompt for one in read_answer_records(run) if one.prompt), "")
    return f"Not a prompt of the run, whose prompts are like {shown(first)!r}."
