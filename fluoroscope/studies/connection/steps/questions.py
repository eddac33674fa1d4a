"""Question sets are read or made once, split and cut into tokens; later steps read the run alone.

questions/shards/SET/questions.parquet   a row a question: id, group, side, source, target, hops
questions/shards/SET/set.json            kind, choices, sides, what was left out, what was cut
questions/shards/SET/tokenizer/          as any library reads it; not there for one of the hub
questions/shards/SET/tokens/             tokens of each side
questions/shards/SET/priors.parquet      what the majority and a bag of words answer to the test
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from fluoroscope.core.errors import ConfigError, CorpusError
from fluoroscope.core.storage import read_json, write_json, write_parquet
from fluoroscope.data.corpus_config import HUB_PREFIX, SPLITS, Split
from fluoroscope.data.questions.base import (
    GatheredQuestions,
    QuestionSet,
    question_place,
    question_set,
)
from fluoroscope.data.questions.encoding import EncodedQuestions, encode_questions
from fluoroscope.data.questions.pointer_chasing import FixedPointers
from fluoroscope.data.questions.priors import priors
from fluoroscope.data.questions.question import Kind, Question
from fluoroscope.data.questions.sides import limited_questions
from fluoroscope.data.questions.tokenizer import TextTokenizer, load_tokenizer, text_tokenizer
from fluoroscope.data.questions.tokenizer_config import TRAINED
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import Cost, MapStep, Shard, ShardContext
from fluoroscope.steps.models import pinned_revision
from fluoroscope.studies.connection.config import ConnectionConfig
from fluoroscope.studies.connection.sizes import questions_of

QUESTIONS = "questions"
TABLE, ABOUT, PRIORS = "questions.parquet", "set.json", "priors.parquet"
TOKENIZER, TOKENS = "tokenizer", "tokens"
_NOT_IN_A_KEY = re.compile(r"[^A-Za-z0-9_.-]")


@dataclass(frozen=True)
class AskedSet:
    """A question set as the run has it."""

    name: str
    kind: Kind
    questions: tuple[Question, ...]
    tokenizer: TextTokenizer
    max_source: int
    max_target: int
    """Tokens of the longest answer, its end among them; what is written is no longer."""

    def side(self, side: Split) -> list[Question]:
        return [one for one in self.questions if one.split == side]


class QuestionsStep(MapStep):
    name = QUESTIONS

    def __init__(self, config: ConnectionConfig) -> None:
        self.config = config

    def cost(self) -> Cost:
        names, data = self.config.all_sets, self.config.data
        rows = sum(sum(questions_of(name, data).values()) for name in names)
        return Cost(
            overhead_s=3.0 * len(names) + 1e-3 * rows,
            memory_bytes=3e8 + 6e3 * rows,
            disk_bytes=1e3 * rows,
            parallel=len(names),
            shares_device=True,
            note=f"{rows:,} questions",
        )

    def shards(self, run: Run) -> Sequence[Shard]:
        return [Shard(set_key(name), {"dataset": name}) for name in self.config.all_sets]

    def work(self, run: Run, shard: Shard, context: ShardContext) -> None:
        config, name, folder = self.config.data, str(shard.params["dataset"]), context.folder
        gathered = self._gathered(run, name)
        # Batches are drawn by place: the order of a file's rows must not decide them.
        items = sorted(gathered.items, key=lambda one: (one.split, one.id))
        is_made = question_set(name).is_made
        train = [one for one in items if one.split == "train"]
        tokenizer = text_tokenizer(config.tokenizer, train, is_made=is_made)
        if config.tokenizer.source == TRAINED:
            tokenizer.save(folder / TOKENIZER)
        sides: dict[Split, EncodedQuestions] = {
            side: _encoded(
                self.config, [one for one in items if one.split == side], tokenizer, folder
            )
            for side in SPLITS
        }
        write_parquet(folder / TABLE, _frame(items))
        write_json(folder / ABOUT, self._about(gathered, tokenizer, sides))
        write_parquet(folder / PRIORS, _priors(items, gathered.kind))
        context.sink.message(gathered.describe())

    def _gathered(self, run: Run, name: str) -> GatheredQuestions:
        config = self.config.data
        place = question_place(name, self.config.data_dir)
        commit = pinned_revision(run, data_source(name), None)
        if place == HUB_PREFIX and commit is not None:
            place = f"{HUB_PREFIX}@{commit}"
        known = question_set(name, config.made)
        gathered = known.read(place, seed=self.config.seed)
        kept: list[Question] = []
        limits: dict[Split, int | None] = {
            "train": config.n_train,
            "validation": None,
            "test": config.n_test,
        }
        for side, n in limits.items():
            own = gathered.side(side)
            if side == "train" and n is not None:
                check_edges_stay(known, n, len(own))
            kept += own if n is None else limited_questions(own, n, self.config.seed)
        for side in SPLITS:
            if not any(one.split == side for one in kept):
                raise CorpusError(f"{name} has nothing on its {side} side; raise its limit.")
        return replace(gathered, items=tuple(kept))

    def _about(
        self,
        gathered: GatheredQuestions,
        tokenizer: TextTokenizer,
        sides: dict[Split, EncodedQuestions],
    ) -> dict[str, object]:
        longest = max(int(side.target.lengths.max()) for side in sides.values())
        return {
            "name": gathered.name,
            "kind": gathered.kind,
            "choices": None if gathered.choices is None else list(gathered.choices),
            "sides": {side: len(encoded) for side, encoded in sides.items()},
            "depths": {
                side: {str(depth): n for depth, n in gathered.depths(side).items()}
                for side in SPLITS
            },
            "origins": dict(gathered.origins),
            "notes": list(gathered.notes),
            "left_out": gathered.reasons(),
            "cut": {side: encoded.cut_rates for side, encoded in sides.items()},
            "unknown_tokens": {side: encoded.unknown_rate for side, encoded in sides.items()},
            "vocab_size": tokenizer.vocab_size,
            "max_source": max(int(side.lengths.max()) for side in sides.values()),
            "max_target": longest,
        }


def check_edges_stay(known: QuestionSet, n: int, n_own: int) -> None:
    if isinstance(known, FixedPointers) and n < n_own:
        raise ConfigError(
            f"data.n_train={n} would leave edges of the graph of {known.name} out of the {n_own} "
            "questions it is learned from. Leave it out; data.made.n_train says how often walks "
            f"are repeated ({known.n_walks} have each walk once)."
        )


def load_questions(run: Run, config: ConnectionConfig, name: str) -> AskedSet:
    """As the step has left them; read once in each process."""
    return run.cached(("questions", name), lambda: _loaded(run, config, name))


def encoded_side(run: Run, config: ConnectionConfig, name: str, side: Split) -> EncodedQuestions:
    found, folder = load_questions(run, config, name), _folder(run, name)
    return run.cached(
        ("encoded", name, side),
        lambda: _encoded(config, found.side(side), found.tokenizer, folder),
    )


def about_set(run: Run, name: str) -> dict[str, object]:
    return read_json(_folder(run, name) / ABOUT)


def prior_answers(run: Run, name: str) -> pl.DataFrame:
    """id, and a column a prior."""
    return pl.read_parquet(_folder(run, name) / PRIORS)


def set_key(name: str) -> str:
    """Names a set's folders: a table by its file's name, or its folder's."""
    own = name.partition(":")[2].rstrip("/").rpartition("/")[2] if ":" in name else name
    return _NOT_IN_A_KEY.sub("-", own).lstrip("_.-") or "table"


def data_source(name: str) -> str:
    """Names what a run reads of a set."""
    return f"questions {name}"


def _folder(run: Run, name: str) -> Path:
    return run.step_folder(QUESTIONS) / "shards" / set_key(name)


def _encoded(
    config: ConnectionConfig, questions: Sequence[Question], tokenizer: TextTokenizer, folder: Path
) -> EncodedQuestions:
    network, data = config.network, config.data
    return encode_questions(
        questions,
        tokenizer,
        network.max_source,
        min(network.max_target, data.max_answer or network.max_target),
        cut=data.cut,
        cache=folder / TOKENS,
    )


def _loaded(run: Run, config: ConnectionConfig, name: str) -> AskedSet:
    folder, tokenizer = _folder(run, name), config.data.tokenizer
    about = read_json(folder / ABOUT)
    source = str(folder / TOKENIZER) if tokenizer.source == TRAINED else tokenizer.source
    rows = pl.read_parquet(folder / TABLE).iter_rows(named=True)
    questions = (
        Question(
            **{key: row[key] for key in ("id", "group_id", "split", "source", "target", "depth")},
            choices=None if row["choices"] is None else tuple(row["choices"]),
            hops=tuple(row["hops"]),
        )
        for row in rows
    )
    return AskedSet(
        name=name,
        kind=about["kind"],
        questions=tuple(questions),
        tokenizer=load_tokenizer(source, tokenizer.revision),
        max_source=about["max_source"],
        max_target=about["max_target"],
    )


def _frame(questions: Sequence[Question]) -> pl.DataFrame:
    columns = ("id", "group_id", "split", "source", "target", "choices", "depth", "hops")
    schema = dict.fromkeys(columns[:5], pl.String) | {
        "choices": pl.List(pl.String),
        "depth": pl.Int64,
        "hops": pl.List(pl.String),
    }
    rows = [{name: getattr(one, name) for name in columns} for one in questions]
    return pl.DataFrame(rows, schema=schema)


def _priors(questions: Sequence[Question], kind: Kind) -> pl.DataFrame:
    train, validation, test = ([q for q in questions if q.split == side] for side in SPLITS)
    return pl.DataFrame({"id": [q.id for q in test], **priors(train, validation, test, kind)})
