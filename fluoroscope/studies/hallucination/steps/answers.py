"""A data set -> answers that are true or made up (`answers/`).

answers/records.parquet            a row an answer, by group and id: see `data/answers/record.py`
answers/left_out.parquet           what could not be used, with the reason
answers/shards/<k>/...             the same of some questions, where the model answers itself
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import polars as pl

from fluoroscope.core.errors import ConfigError, CorpusError
from fluoroscope.core.seeding import derive_seed, stream
from fluoroscope.core.sink import Sink
from fluoroscope.core.storage import write_parquet
from fluoroscope.data.answers.labelling import labelled
from fluoroscope.data.answers.record import (
    AnswerRecord,
    OpenQuestion,
    read_records,
    write_records,
)
from fluoroscope.data.answers.sets import ANSWER_SETS, QUESTION_SETS, REPEATED
from fluoroscope.data.answers.splits import grouped_folds
from fluoroscope.data.rows import Gathered, LeftOut
from fluoroscope.models.generation import Request, generate
from fluoroscope.models.sampling import Sampling
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import Cost, MapStep, Shard, ShardContext
from fluoroscope.steps.models import load_model
from fluoroscope.steps.texts_cost import texts_cost
from fluoroscope.studies.hallucination.config import HallucinationConfig

Item = TypeVar("Item", AnswerRecord, OpenQuestion)

ANSWERS = "answers"
RECORDS, LEFT_OUT = "records.parquet", "left_out.parquet"
PROMPT_TOKENS = 64
"""Of a question, as a plan reckons."""

MAX_LEFT_OUT = 0.5
"""Share of questions without a usable answer above which nothing is said of the rest."""


class AnswersStep(MapStep):
    """Stated answers are read in one shard; own answers are written in shards of questions."""

    name = ANSWERS

    def __init__(self, config: HallucinationConfig) -> None:
        self.config = config

    def cost(self) -> Cost:
        n = self.config.size.answers
        if self.config.data.answers == "stated":
            return Cost(disk_bytes=1e3 * n, note=f"about {n} answers are read from files")
        return own_answers_cost(self.config, 1, f"about {n} questions")

    def shards(self, run: Run) -> Sequence[Shard]:
        if self.config.data.answers == "stated":
            return [Shard("stated")]
        n, size = len(self._questions(run).items), self.config.answers.prompts_per_shard
        return [
            Shard(f"{start:06d}", {"from": start, "to": min(start + size, n)})
            for start in range(0, n, size)
        ]

    def work(self, run: Run, shard: Shard, context: ShardContext) -> None:
        if self.config.data.answers == "stated":
            found = ANSWER_SETS.load(self.config.data.name).read(self.config.data.path)
            check_left_out(len(found.items), [one.reason for one in found.left_out])
            items = chosen_groups(found.items, self.config.data.limit, self.config.seed)
            _write(context.folder, items, found.left_out)
            return
        questions = self._questions(run).items[shard.params["from"] : shard.params["to"]]
        answers = self._ask(run, questions, context)
        records = [one for one in answers if isinstance(one, AnswerRecord)]
        _write(context.folder, records, [one for one in answers if isinstance(one, LeftOut)])

    def merge(self, run: Run, folder: Path, sink: Sink) -> None:
        places = [folder / "shards" / shard.key for shard in self.shards(run)]
        records = [one for place in places for one in read_records(place / RECORDS)]
        left_out = pl.concat([pl.read_parquet(place / LEFT_OUT) for place in places])
        if self.config.data.answers == "own":
            check_left_out(len(records), left_out["reason"].to_list())
            unusable = [(one.where, one.reason) for one in self._questions(run).left_out]
            rows = pl.DataFrame(unusable, schema=left_out.schema, orient="row")
            left_out = pl.concat([rows, left_out])
        check_answers(records)
        write_records(folder / RECORDS, sorted(records, key=lambda one: (one.group_id, one.id)))
        write_parquet(folder / LEFT_OUT, left_out)
        sink.message(f"{len(records)} answers, {len(left_out)} left out.")
        why = why_not_judged(records, self.config.detection.folds, self.config.seed)
        if why:
            sink.message(f"Of these answers tracks can be had, but no detector be judged: {why}")

    def _ask(
        self, run: Run, questions: Sequence[OpenQuestion], context: ShardContext
    ) -> list[AnswerRecord | LeftOut]:
        model = load_model(run, self.config.model, context.device)
        settings = self.config.answers
        requests = [
            Request(
                prompt=question.prompt,
                seed=derive_seed(self.config.seed, "answer", question.id),
                max_tokens=settings.max_tokens,
                stop=tuple(settings.stop),
                may_echo=True,
            )
            for question in questions
        ]
        texts = generate(
            model,
            requests,
            sampling=Sampling(**settings.sampling.model_dump()),
            max_rows=settings.rows,
        )
        decoding = {
            "model": self.config.model.name,
            "revision": self.config.model.revision or "",
            "decoding": settings.sampling.model_dump(mode="json"),
        }
        return [
            labelled(question, text.text, decoding)
            for question, text in zip(questions, texts, strict=True)
        ]

    def _questions(self, run: Run) -> Gathered[OpenQuestion]:
        return run.cached((ANSWERS, "questions"), self._read_questions)

    def _read_questions(self) -> Gathered[OpenQuestion]:
        data = self.config.data
        found = QUESTION_SETS.load(data.name).read(data.path)
        check_left_out(len(found.items), [one.reason for one in found.left_out])
        items = chosen_groups(found.items, data.limit, self.config.seed)
        return Gathered(found.name, tuple(items), found.left_out)


def read_answer_records(run: Run) -> list[AnswerRecord]:
    return run.cached(
        (ANSWERS, "records"), lambda: read_records(run.step_folder(ANSWERS) / RECORDS)
    )


def chosen_groups(items: Sequence[Item], limit: int | None, seed: int) -> list[Item]:
    """Items of at most `limit` groups; which, is a matter of the seed and the groups' names."""
    groups = sorted({item.group_id for item in items})
    if limit is None or len(groups) <= limit:
        return list(items)
    kept = {groups[i] for i in stream(seed, "groups").permutation(len(groups))[:limit]}
    return [item for item in items if item.group_id in kept]


def check_left_out(n_used: int, reasons: Sequence[str]) -> None:
    """Raises `CorpusError` where most of what was read is of no use; repeats take nothing away."""
    lost = [reason for reason in reasons if reason != REPEATED]
    if len(lost) <= MAX_LEFT_OUT * (n_used + len(lost)):
        return
    why = ", ".join(f"{n} x {reason}" for reason, n in Counter(lost).most_common())
    raise CorpusError(
        f"{len(lost)} of {n_used + len(lost)} answers cannot be used ({why}), so the rest says "
        "little. Give the model other prompts, more tokens (answers.max_tokens), or another data "
        "set."
    )


def why_not_judged(records: Sequence[AnswerRecord], folds: int, seed: int) -> str:
    """What `detect` would refuse hours later; empty where it would not."""
    labels = np.array([record.label for record in records])
    try:
        grouped_folds([record.group_id for record in records], labels, folds, seed)
    except ConfigError as error:
        return str(error)
    return ""


def check_answers(records: Sequence[AnswerRecord]) -> None:
    """Raises `CorpusError` where nothing can be learned from what there is."""
    labels = [record.label for record in records]
    if len(set(labels)) < 2:
        said = "none" if not labels else "all made up" if labels[0] else "all true"
        raise CorpusError(
            f"Of {len(labels)} answers {said}: telling the two apart needs both. Use another data "
            "set, or a model that knows some of it."
        )


def _n_prompts(config: HallucinationConfig) -> int:
    # Stated answers to one question share its prompt.
    return config.size.answers if config.data.answers == "own" else config.size.groups


def own_answers_cost(config: HallucinationConfig, answers: int, note: str) -> Cost:
    """Of so many answers to every question."""
    n, reply = _n_prompts(config), config.answers.max_tokens
    return texts_cost(
        config.shape,
        config.model.dtype,
        n_tokens=n * (PROMPT_TOKENS + answers * reply),
        columns=PROMPT_TOKENS + reply,
        rows=config.answers.rows,
        passes=n * answers * (reply + 1) / config.answers.rows,
        n_texts=n * answers,
        parallel=max(1, n // config.answers.prompts_per_shard),
        note=note,
    )


def _write(folder: Path, records: Sequence[AnswerRecord], left_out: Sequence[LeftOut]) -> None:
    write_records(folder / RECORDS, records)
    rows = [(one.where, one.reason) for one in left_out]
    schema = {"where": pl.String, "reason": pl.String}
    write_parquet(folder / LEFT_OUT, pl.DataFrame(rows, schema=schema, orient="row"))
