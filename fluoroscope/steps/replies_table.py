"""Replies as a table: a row a sample, by its id."""

from collections.abc import Sequence

import numpy as np
import polars as pl
from jaxtyping import Float

from fluoroscope.core.config import canonical_json
from fluoroscope.data.tasks.samples import Sample, Score
from fluoroscope.interventions.replies.answering import Reply

SCHEMA = {
    "id": pl.String,
    "group": pl.String,
    "category": pl.String,
    "facts": pl.String,
    "prompt": pl.String,
    "text": pl.String,
    "score": pl.Float64,
    "is_readable": pl.Boolean,
    "reason": pl.String,
    "n_tokens": pl.Int64,
    "n_edits": pl.Int64,
    "logprob": pl.Float64,
    "numbers": pl.List(pl.Float64),
}


def replies_frame(samples: Sequence[Sample], replies: Sequence[Reply]) -> pl.DataFrame:
    rows = [
        (
            sample.id,
            sample.group_id,
            sample.category,
            canonical_json(dict(sample.facts)),
            sample.prompt,
            reply.text,
            reply.score.value,
            reply.score.is_readable,
            reply.score.reason,
            reply.n_tokens,
            reply.n_edits,
            reply.logprob,
            list(reply.numbers),
        )
        for sample, reply in zip(samples, replies, strict=True)
    ]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def replies_of(frame: pl.DataFrame) -> list[Reply]:
    """The replies of such a table, in its order."""
    return [
        Reply(
            row["text"],
            Score(row["score"], row["is_readable"], row["reason"]),
            tuple(row["numbers"]),
            row["n_tokens"],
            row["n_edits"],
            row["logprob"],
        )
        for row in frame.iter_rows(named=True)
    ]


def scores(frame: pl.DataFrame) -> Float[np.ndarray, " rows"]:
    return frame["score"].to_numpy()
