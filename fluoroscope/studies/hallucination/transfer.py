"""Detectors that learnt on one data set, judged on another: what they know that is not of a set.

Runs of one model and its SAEs have columns that mean the same, so a detector is trained on all
answers of run A and scores those of run B. Groups of B that A has as well (by name, by a prompt or
by a whole text) are left out of the test, and counted. Beside it stands how each run scores itself
out of fold. Intervals resample the groups that are tested on: they tell of other questions of B,
and not of other training data.

The likelihoods behind tracks are estimated in each run from its own tokens, as it would be used.

Axes: n answers, d columns of a method.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Shaped

from fluoroscope.core.intervals import Interval
from fluoroscope.core.seeding import derive_seed
from fluoroscope.data.answers.record import AnswerRecord
from fluoroscope.runs.run import Run
from fluoroscope.steps.subject import sae_choices
from fluoroscope.studies.hallucination.detection import DETECTORS
from fluoroscope.studies.hallucination.detection.cross_validation import cross_validate
from fluoroscope.studies.hallucination.detection.scores import auroc, scored
from fluoroscope.studies.hallucination.methods import (
    COMBINED,
    TRACKING,
    WORDS_APART,
    Method,
    methods,
)
from fluoroscope.studies.hallucination.steps.answers import read_answer_records
from fluoroscope.studies.hallucination.steps.detect import make_protocol, read_scores
from fluoroscope.studies.hallucination.steps.features import (
    Features,
    features,
    readable_answers,
)

LATENTS, OF_SAMPLES = "latents", ("agreement of samples", "self-check")
_BOTH = 2
_SCHEMA = {
    "method": pl.String,
    "trained_on": pl.String,
    "tested_on": pl.String,
    "n_answers": pl.Int64,
    "n_groups": pl.Int64,
    "n_groups_left_out": pl.Int64,
    "auroc": pl.Float64,
    "auroc_low": pl.Float64,
    "auroc_high": pl.Float64,
}


class Subject(NamedTuple):
    """What must be the same for columns of two runs to mean the same."""

    model: str
    saes: tuple[tuple[str, str], ...]
    """Hook point and SHA-256 of the weights of each SAE."""


def subject(run: Run) -> Subject:
    choices = sae_choices(run, run.config)
    saes = tuple((choice.hook_point, choice.weights_sha256) for choice in choices)
    return Subject(run.sources.get("model", run.config.model.name), saes)


def data_name(run: Run) -> str:
    """`truthfulqa, stated`: the data set of a run, and whose answers they are."""
    return f"{run.config.data.name}, {run.config.data.answers}"


def shared_methods(runs: Sequence[Run]) -> list[Method]:
    """Methods that learn, from columns that mean the same in all of `runs`, which are of one
    subject; each once, by the detector of all.
    """
    first, *others = (methods(run.config) for run in runs)
    left_out = {WORDS_APART, *(() if _samples_alike(runs) else OF_SAMPLES)}
    if len({run.config.tracking.model_dump_json() for run in runs}) > 1:
        left_out |= {TRACKING, COMBINED}
    return [
        method
        for name, method in first.items()
        if all(other.get(name, method) == method and name in other for other in others)
        and name not in left_out
        and method.kind != "raw"
        and not (method.kind == "columns" and method.detector != runs[0].config.detection.detector)
    ]


def transfer(runs: Sequence[Run], names: Sequence[str]) -> pl.DataFrame:
    """A row for each method, run to learn on, and run to be tested on.

    Where both are one run the score is out of fold. NaN stands where a test has one label only.
    """
    rows = []
    is_overlap = {(i, j): overlap(one, other) for i, one in enumerate(runs)
                  for j, other in enumerate(runs) if i != j}  # fmt: skip
    for method in shared_methods(runs):
        columns = aligned_columns(runs, method)
        for i, one in enumerate(runs):
            for j, other in enumerate(runs):
                if i == j:
                    is_tested = np.ones(len(readable_answers(one)), bool)
                    found = _out_of_fold(one, method, columns[i])
                else:
                    is_tested = ~is_overlap[i, j]
                    found = _trained_on(one, other, method, (columns[i], columns[j]), is_tested)
                at = (method.name, names[i], names[j])
                rows.append((*at, *_counts(other, is_tested), *found))
    return pl.DataFrame(rows, schema=_SCHEMA, orient="row")


def aligned_columns(runs: Sequence[Run], method: Method) -> list[Shaped[np.ndarray, "n ..."]]:
    """What `method` looks at in each run, column by column the same."""
    found = [features(run, run.config, method.columns) for run in runs]
    if method.kind != "columns":
        return [one.x for one in found]
    if method.columns == LATENTS:
        # A run keeps the latents that are ever active in it; elsewhere they are 0.
        names = list(dict.fromkeys(name for one in found for name in one.names))
        return [_with_columns(one, names) for one in found]
    unlike = set() if _samples_alike(runs) else _sampled_names(runs)
    names = [
        name
        for name in found[0].names
        if name not in unlike and all(name in one.names for one in found)
    ]
    return [_with_columns(one, names) for one in found]


def overlap(one: Run, other: Run) -> Bool[np.ndarray, " n"]:
    """Which answers of `other` are of a group that `one` has too: by its name, or because one of
    its prompts or texts is there.
    """
    known = {record.group_id for record in read_answer_records(one)}
    texts = {text for record in read_answer_records(one) for text in _texts(record)}
    found = {
        record.group_id
        for record in read_answer_records(other)
        if record.group_id in known or not texts.isdisjoint(_texts(record))
    }
    return readable_answers(other)["group_id"].is_in(sorted(found)).to_numpy()


def _texts(record: AnswerRecord) -> set[str]:
    texts = (" ".join(text.casefold().split()) for text in (record.prompt, record.text))
    return {text for text in texts if text}


def _samples_alike(runs: Sequence[Run]) -> bool:
    """Whether samples were drawn alike: what they agree on depends on how many there are."""
    asked = {
        (run.config.answers.samples, run.config.answers.sample_sampling.model_dump_json())
        for run in runs
    }
    return len(asked) == 1


def _sampled_names(runs: Sequence[Run]) -> set[str]:
    sampled = [run for run in runs if run.config.answers.samples]
    return {
        name
        for run in sampled
        for columns in OF_SAMPLES
        for name in features(run, run.config, columns).names
    }


def _with_columns(found: Features, names: Sequence[str]) -> Float[np.ndarray, "n d"]:
    """The columns of these names, in this order; 0 where there is none."""
    place = {name: i for i, name in enumerate(found.names)}
    columns = np.zeros((len(found.x), len(names)), found.x.dtype)
    there = [i for i, name in enumerate(names) if name in place]
    columns[:, there] = found.x[:, [place[names[i]] for i in there]]
    return columns


def _out_of_fold(run: Run, method: Method, columns: Shaped[np.ndarray, "n ..."]) -> Interval:
    config, whole = run.config, features(run, run.config, method.columns)
    if method.kind == "columns" and columns.shape[1] < len(whole.names):
        # Without columns that another run has not, it is another detector than the run's own.
        answers = readable_answers(run)
        found = cross_validate(
            DETECTORS.load(method.detector)(),
            columns,
            answers["label"].to_numpy(),
            answers["group_id"].to_numpy(),
            make_protocol(config, method.repeats),
            answers["id"].to_numpy(),
        )
    else:
        found = read_scores(run, config)[method.name]
    return auroc(found, config.seed, config.detection.resamples)


def _trained_on(
    one: Run,
    other: Run,
    method: Method,
    columns: tuple[Shaped[np.ndarray, "n ..."], Shaped[np.ndarray, "m ..."]],
    is_tested: Bool[np.ndarray, " m"],
) -> Interval:
    train, test = readable_answers(one), readable_answers(other).filter(pl.Series(is_tested))
    if test["label"].n_unique() < _BOTH:
        return Interval(float("nan"), float("nan"), float("nan"))
    fitted = DETECTORS.load(method.detector)().fit(
        columns[0],
        train["label"].to_numpy().astype(bool),
        train["group_id"].to_numpy(),
        derive_seed(one.config.seed, "transfer", method.name),
    )
    scores = fitted.scores(columns[1][is_tested])
    found = scored(scores, test["label"].to_numpy(), test["group_id"].to_numpy())
    return auroc(found, one.config.seed, one.config.detection.resamples)


def _counts(run: Run, is_tested: Bool[np.ndarray, " n"]) -> tuple[int, int, int]:
    answers = readable_answers(run)
    n_all = answers["group_id"].n_unique()
    kept = answers.filter(pl.Series(is_tested))["group_id"].n_unique()
    return int(is_tested.sum()), kept, n_all - kept
