"""Tracks where the answer is drawn -> what it does to edit them (`causes/`).

causes/effects.parquet         a row an answer, role, control and edit: the gap between the answer
                               and its rival before and after
causes/left_out.parquet        answers that could not be asked, with the reason
causes/means.parquet, comparisons.parquet, verdict.json    what that tells
causes/shards/<k>/...          effects and left_out of some answers
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import torch
from jaxtyping import Float
from torch import Tensor

from fluoroscope.core.errors import CorpusError, NumericsError
from fluoroscope.core.seeding import derive_seed
from fluoroscope.core.sink import Sink
from fluoroscope.core.storage import write_json, write_parquet
from fluoroscope.data.answers.record import AnswerRecord, OpenQuestion
from fluoroscope.data.answers.sets import QUESTION_SETS
from fluoroscope.interventions.row_edits import EditSet
from fluoroscope.interventions.screening import Screen
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.models.shape import BYTES
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import Cost, MapStep, Shard, ShardContext
from fluoroscope.steps.models import load_model
from fluoroscope.steps.subject import load_layers, sae_inputs
from fluoroscope.studies.hallucination.causes import (
    LIKELIEST_RIVAL,
    Contested,
    Counts,
    contest,
    edits_of,
    parted,
    rival_of,
    sample_answers,
    tracks_of,
)
from fluoroscope.studies.hallucination.causes_statistics import (
    comparisons,
    means,
    verdict,
)
from fluoroscope.studies.hallucination.config import HallucinationConfig
from fluoroscope.studies.hallucination.signals.tokens import answer_tokens
from fluoroscope.studies.hallucination.steps.answers import (
    ANSWERS,
    PROMPT_TOKENS,
    read_answer_records,
)
from fluoroscope.studies.hallucination.steps.features import readable_answers
from fluoroscope.studies.hallucination.steps.read import READ
from fluoroscope.studies.hallucination.steps.track import TRACK
from fluoroscope.studies.hallucination.steps.track import TRACKS as TRACKS_FILE

CAUSES = "causes"
EFFECTS, LEFT_OUT, MEANS, COMPARISONS, VERDICT = (
    "effects.parquet", "left_out.parquet", "means.parquet", "comparisons.parquet", "verdict.json",
)  # fmt: skip

_COLUMNS = {
    "id": pl.String,
    "group_id": pl.String,
    "label": pl.Int8,
    "answer": pl.String,
    "rival": pl.String,
    "rival_source": pl.String,
    "n_shared": pl.Int32,
    "role": pl.String,
    "kind": pl.String,
    "number": pl.Int32,
    "track": pl.Int32,
    "n_points": pl.Int32,
    "edit": pl.String,
    "before": pl.Float64,
    "after": pl.Float64,
    "change": pl.Float64,
}
_LEFT_OUT = {"id": pl.String, "label": pl.Int8, "reason": pl.String}


class CausesStep(MapStep):
    """Shards of some answers; every answer is a batch of its own."""

    name = CAUSES

    def __init__(self, config: HallucinationConfig) -> None:
        self.config = config
        self.inputs = (*sae_inputs(config), ANSWERS, READ, TRACK)

    def cost(self) -> Cost:
        config, shape = self.config, self.config.shape
        n, n_edits = config.causes.answers, 5 + 4 * (1 + 2 * config.causes.controls)
        per_token = shape.forward_flops_per_token(PROMPT_TOKENS)
        flops = n * (n_edits + PROMPT_TOKENS) * per_token
        is_half = config.model.dtype != "float32"
        weights = float(shape.n_params * BYTES[config.model.dtype])
        saes = sum(8.0 * shape.d_model * d_sae for d_sae in config.widths)
        return Cost(
            flops=0.0 if is_half else flops,
            half_flops=flops if is_half else 0.0,
            bytes_moved=weights * n * (2 + n_edits / 1024),
            overhead_s=n * (0.05 + n_edits * len(config.points) * 2e-4),
            memory_bytes=weights + saes + 30.0 * n_edits * shape.vocab_size + 0.5e9,
            disk_bytes=n * n_edits * 50.0,
            parallel=max(1, n // config.causes.answers_per_shard),
            note=f"{n_edits} edits of {n} answers, exact",
        )

    def shards(self, run: Run) -> Sequence[Shard]:
        n, size = len(self._sample(run)), self.config.causes.answers_per_shard
        return [
            Shard(f"{start:06d}", {"from": start, "to": min(start + size, n)})
            for start in range(0, n, size)
        ]

    def work(self, run: Run, shard: Shard, context: ShardContext) -> None:
        ids = self._sample(run)[shard.params["from"] : shard.params["to"]]
        records = {record.id: record for record in read_answer_records(run)}
        rows: list[dict[str, object]] = []
        left_out: list[dict[str, object]] = []
        for number, name in enumerate(ids):
            try:
                rows += self._effects(run, records[name], context.device)
            except (CorpusError, NumericsError) as error:
                # A numerics error names an edit by its number, which is no reason to count by.
                is_number = isinstance(error, NumericsError)
                reason = "a number under an edit is NaN or infinite" if is_number else str(error)
                left_out.append({"id": name, "label": records[name].label, "reason": reason})
            context.sink.progress(number + 1, len(ids), "answers")
        write_parquet(context.folder / EFFECTS, pl.DataFrame(rows, schema=_COLUMNS))
        write_parquet(context.folder / LEFT_OUT, pl.DataFrame(left_out, schema=_LEFT_OUT))

    def merge(self, run: Run, folder: Path, sink: Sink) -> None:
        places = [folder / "shards" / shard.key for shard in self.shards(run)]
        effects = pl.concat([pl.read_parquet(place / EFFECTS) for place in places])
        left_out = pl.concat([pl.read_parquet(place / LEFT_OUT) for place in places])
        found = comparisons(effects, self.config.seed)
        write_parquet(folder / EFFECTS, effects)
        write_parquet(folder / LEFT_OUT, left_out)
        write_parquet(folder / MEANS, means(effects))
        write_parquet(folder / COMPARISONS, found)
        write_json(folder / VERDICT, {"sentence": verdict(found)})
        sink.message(f"{effects['id'].n_unique()} answers, {len(left_out)} could not be asked.")
        sink.message(verdict(found))

    def _effects(self, run: Run, record: AnswerRecord, device: str) -> list[dict[str, object]]:
        contested = self._contested(run, record.id)
        model = load_model(run, self.config.model, device)
        loaded = load_layers(run, self.config, device, model.identity)
        layers = [(point, loaded[str(point)]) for point in self.config.points]
        question = self._questions(run).get(record.id.rpartition("/")[0])
        asked = _asked(model, record, self._to_same_prompt(run, record), question)
        settings, seed = self.config.causes, derive_seed(self.config.seed, "causes", record.id)
        edits = list(edits_of(contested, layers, settings, seed, asked.screen))
        gaps = _gaps(asked, [{}, *(one.edit for one in edits)])
        before = float(gaps[0])
        about = {"id": record.id, "group_id": record.group_id, "label": record.label}
        texts = [model.tokenizer.decode([tokens[-1]]) for tokens in (asked.answer, asked.rival)]
        about |= {
            "answer": texts[0],
            "rival": texts[1],
            "rival_source": asked.rival_source,
            "n_shared": len(asked.answer) - 1,
        }
        return [
            {**about, **one.about, "before": before, "after": after, "change": after - before}
            for one, after in zip(edits, gaps[1:].tolist(), strict=True)
        ]

    def _contested(self, run: Run, name: str) -> Contested:
        points, elsewhere = self._points(run)
        here = tracks_of(points.filter(id=name))
        both = contest(here, len(self.config.points))
        if both is None:
            raise CorpusError("fewer than two tracks reach the last layer")
        return Contested(both, here, elsewhere)

    def _sample(self, run: Run) -> list[str]:
        settings = self.config.causes
        return run.cached(
            (CAUSES, "sample"),
            lambda: sample_answers(readable_answers(run), settings.answers, self.config.seed),
        )

    def _points(self, run: Run) -> tuple[pl.DataFrame, Mapping[int, Counts]]:
        """Of the tracks of sampled answers: those where the first token is drawn, and how often
        each latent of a layer is in any.
        """

        def read() -> tuple[pl.DataFrame, Mapping[int, Counts]]:
            files = sorted((run.step_folder(TRACK) / "shards").glob(f"*/{TRACKS_FILE}"))
            sampled = pl.col("id").is_in(self._sample(run))
            points = pl.concat([pl.scan_parquet(file).filter(sampled).collect() for file in files])
            counts = points.group_by("layer", "latent").len("n").sort("layer", "latent")
            elsewhere = {
                layer: (mine["latent"].to_numpy(), mine["n"].cast(pl.Int64).to_numpy())
                for layer in range(len(self.config.points))
                for mine in [counts.filter(layer=layer)]
            }
            return points.filter(position=-1).sort("id", "track", "layer"), elsewhere

        return run.cached((CAUSES, "points"), read)

    def _questions(self, run: Run) -> Mapping[str, OpenQuestion]:
        def read() -> Mapping[str, OpenQuestion]:
            data = self.config.data
            if data.answers == "stated":
                return {}
            items = QUESTION_SETS.load(data.name).read(data.path).items
            return {item.id: item for item in items}

        return run.cached((CAUSES, "questions"), read)

    def _to_same_prompt(self, run: Run, record: AnswerRecord) -> list[AnswerRecord]:
        def by_prompt() -> dict[str, list[AnswerRecord]]:
            found: dict[str, list[AnswerRecord]] = {}
            for one in read_answer_records(run):
                found.setdefault(one.prompt, []).append(one)
            return found

        return run.cached((CAUSES, "prompts"), by_prompt)[record.prompt]


@dataclass(frozen=True, eq=False)
class _Asked:
    """An answer and its rival, each up to the first token at which they differ."""

    screen: Screen
    answer: tuple[int, ...]
    rival: tuple[int, ...]
    rival_source: str


def _asked(
    model: LanguageModel,
    record: AnswerRecord,
    to_same_prompt: Sequence[AnswerRecord],
    question: OpenQuestion | None,
) -> _Asked:
    if not record.prompt.strip():
        raise CorpusError("there is no prompt, so nothing was asked where tracks are edited")
    tokens = answer_tokens(model, record.prompt, record.completion, record.answer_span)
    prompt, answer = tokens.tokens[: tokens.n_prompt], tokens.tokens[tokens.n_prompt :]
    rival = rival_of(record, to_same_prompt, question)
    if rival is None:
        screen = Screen(model, prompt)
        others = screen.baseline.clone()
        others[answer[0]] = -1
        return _Asked(screen, answer[:1], (int(others.argmax()),), LIKELIEST_RIVAL)
    theirs = answer_tokens(model, record.prompt, rival.completion)
    if theirs.tokens[: theirs.n_prompt] != prompt:
        raise CorpusError("the rival makes other tokens of the prompt's end")
    one, other = parted(answer, theirs.tokens[theirs.n_prompt :])
    return _Asked(Screen(model, prompt), one, other, rival.source)


def _gaps(asked: _Asked, edits: Sequence[EditSet]) -> Float[Tensor, " edits"]:
    """By how much log p(answer) exceeds log p(rival). Both begin alike, so it is the difference of
    the logits of the tokens that they end with.
    """
    found = asked.screen.answers(edits, [asked.answer, asked.rival]).double().log()
    gaps = found[:, 0] - found[:, 1]
    if not bool(torch.isfinite(gaps).all()):
        raise NumericsError("The probability of an answer or of its rival is 0 under an edit.")
    return gaps.cpu()
