"""Replies that were written while a policy, or one fixed action, held; and what they are worth.

Replies of one number have one luck under every method, so that methods differ by what they do.

Axes: texts.
"""

from collections.abc import Callable, Sequence

import numpy as np
import polars as pl
from jaxtyping import Float

from fluoroscope.core.seeding import derive_seed
from fluoroscope.data.tasks.samples import Sample
from fluoroscope.interventions.replies.answering import Asking
from fluoroscope.models.generation import generate
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.models.sampling import Sampling
from fluoroscope.models.texts import Generation, Request
from fluoroscope.studies.policy.acting import Acting, Replay, TokenActions
from fluoroscope.studies.policy.candidates import NO_OP, Candidates
from fluoroscope.studies.policy.heads import PolicyHead
from fluoroscope.studies.policy.worth import text_worth

MAX_ROWS = 256
"""Texts that are written at once."""

WRITTEN_SCHEMA = {
    "id": pl.String,
    "reply": pl.Int64,
    "text": pl.String,
    "score": pl.Float64,
    "worth": pl.Float64,
    "n_tokens": pl.Int64,
    "n_acted": pl.Int64,
}


def in_turns(samples: Sequence[Sample], kinds: Sequence[str], n: int) -> list[Sample]:
    """`n` of them: the first of each kind, then the second of each, in their order."""
    own: dict[str, list[Sample]] = {}
    for sample, kind in zip(samples, kinds, strict=True):
        own.setdefault(kind, []).append(sample)
    longest = max(map(len, own.values()))
    return [some[i] for i in range(longest) for some in own.values() if i < len(some)][:n]


def requests_of(
    asking: Asking, samples: Sequence[Sample], n_replies: int, seed: int
) -> tuple[list[Sample], list[Request]]:
    """`n_replies` to each sample, one behind the other."""
    several = [sample for sample in samples for _ in range(n_replies)]
    requests = [
        Request(
            prompt=asking.prompt(sample),
            seed=derive_seed(seed, "policy reply", sample.id, place % n_replies),
            max_tokens=asking.max_tokens,
            stop=asking.stop,
        )
        for place, sample in enumerate(several)
    ]
    return several, requests


Holder = Callable[[Sequence[Request]], TokenActions]
"""Requests -> who acts in their replies."""


def by_head(
    model: LanguageModel, head: PolicyHead, candidates: Candidates, *, is_masked: bool
) -> Holder:
    return lambda requests: Acting(model, head, candidates, requests, is_masked=is_masked)


def by_action(model: LanguageModel, candidates: Candidates, action: int) -> Holder:
    """One action at every token."""
    return lambda requests: Replay(
        model, candidates, [[action] * one.max_tokens for one in requests]
    )


def written(
    model: LanguageModel,
    holder: Holder,
    samples: Sequence[Sample],
    asking: Asking,
    sampling: Sampling,
    n_replies: int,
    seed: int,
    towards: float | None,
) -> pl.DataFrame:
    """A row a reply; see `WRITTEN_SCHEMA`."""
    several, requests = requests_of(asking, samples, n_replies, seed)
    acting = holder(requests)
    with model.intervened(acting):
        texts = generate(model, requests, sampling=sampling, max_rows=MAX_ROWS)
    found = asking.scorer.score_texts(several, [one.text for one in texts])
    scores = np.array([score.value for score in found])
    values = text_worth(scores, [sample.id for sample in several], towards)
    columns = {
        "id": [sample.id for sample in several],
        "reply": [place % n_replies for place in range(len(several))],
        "text": [one.text for one in texts],
        "score": scores,
        "worth": values,
        "n_tokens": [len(one.tokens) for one in texts],
        "n_acted": n_acted(acting, texts),
    }
    return pl.DataFrame(columns, schema=WRITTEN_SCHEMA)


def n_acted(acting: TokenActions, texts: Sequence[Generation]) -> list[int]:
    """Tokens of each text at which anything was done."""
    if isinstance(acting, Acting):
        scripts = acting.log().scripts(len(texts))
        return [sum(action != NO_OP for action in script) for script in scripts]
    assert isinstance(acting, Replay)
    return [
        sum(action != NO_OP for action in acting.script(number, len(one.tokens)))
        for number, one in enumerate(texts)
    ]


def mean_by_sample(frame: pl.DataFrame) -> dict[str, Float[np.ndarray, " samples"]]:
    """Of each sample, in the order in which they come: worth, score, tokens acted at."""
    means = frame.group_by("id", maintain_order=True).agg(
        pl.col("worth").mean(),
        pl.col("score").mean(),
        pl.col("n_acted").mean(),
        (pl.col("n_acted").sum() / pl.col("n_tokens").sum()).alias("share"),
    )
    names = ("worth", "score", "n_acted", "share")
    return {name: means[name].to_numpy() for name in names}
