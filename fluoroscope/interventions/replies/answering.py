"""What a model replies to the samples of a task, steered or not, and how that is scored.

Three ways, by what the task's scorer reads: `texts` that are generated; the probabilities of
`options` by their first token, at the prompt's end; `sums` of the log-probabilities of whole
options. Edits hold wherever a token is drawn, or its probability read: at the prompt's last
position and at every later token but the last (CorrSteer, arXiv:2508.12535), in all three ways
alike.

Captures see the same positions. Of `options` that is one. Of `sums` with a prompt it is one as
well, the prompt's end, which decides between the options and knows none of them; where whole
sentences are compared it is those of the sentence that the model prefers.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from torch import Tensor

from fluoroscope.activations.tiles import length_tiles
from fluoroscope.core.errors import ConfigError
from fluoroscope.core.seeding import derive_seed
from fluoroscope.data.rows import LeftOut
from fluoroscope.data.tasks.base import Task
from fluoroscope.data.tasks.samples import Sample, Score, Scorer
from fluoroscope.interventions.positions import GENERATED, LAST
from fluoroscope.interventions.replies.option_passes import read_ends, read_options
from fluoroscope.interventions.replies.option_texts import OptionTexts
from fluoroscope.interventions.row_edits import EditSet, row_edits
from fluoroscope.interventions.steering import steer
from fluoroscope.models.generation import generate
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.models.requests import prompt_tokens
from fluoroscope.models.sampling import Sampling
from fluoroscope.models.texts import Capture, Generation, Request

Way = Literal["texts", "options", "sums"]
"""What of a model is scored."""

_SCORED: Mapping[Way, str] = {
    "texts": "texts",
    "options": "options' probabilities",
    "sums": "sums of log-probabilities",
}
_LIKELIEST = Sampling(temperature=0.0)
Captured = Mapping[str, Tensor]
"""Name of a capture -> its pooled value [width]."""


class Reply(NamedTuple):
    text: str
    """What was generated, or the option that won."""

    score: Score
    numbers: tuple[float, ...] = ()
    """Of each option its probability, or its summed log-probability (nats)."""

    n_tokens: int = 0
    """That were generated, or of the options."""

    n_edits: int = 0
    """Positions that were edited, one for each hook point."""

    logprob: float = 0.0
    """Sum over the generated tokens under the model as it was steered (nats)."""


@dataclass(frozen=True)
class Asking:
    """How samples are put to a model; the same for everything that is compared."""

    scorer: Scorer
    way: Way
    max_tokens: int = 32
    stop: tuple[str, ...] = ()
    sampling: Sampling = _LIKELIEST
    rows: int = 256
    """Texts that are written at once."""

    tile_tokens: int = 4096
    """Tokens of a pass over prompts, padding included."""

    instruction: str = ""
    """Put before every prompt: the baseline that only asks."""

    seed: int = 0
    """Of the tokens, where sampling leaves them to chance."""

    def prompt(self, sample: Sample) -> str:
        return self.instruction + sample.prompt


OnReply = Callable[[int, Reply, Captured], None]
"""Gets the sample's place, its reply, and what was captured."""


def way_of(task: Task, scorer: Scorer, wanted: Way | None = None) -> Way:
    """The way that is wanted; else probabilities where the scorer reads them: they are exact."""
    known = [way for way in get_args(Way) if _SCORED[way] in scorer.ways]
    if wanted is not None and wanted not in known:
        raise ConfigError(f"{task.name} is judged by {' or '.join(known)}, got {wanted!r}.")
    order: tuple[Way, ...] = ("sums", "texts") if task.kind == "pairs" else ("options", "texts")
    return wanted or next((way for way in order if way in known), known[0])


def usable(
    model: LanguageModel, samples: Sequence[Sample], asking: Asking
) -> tuple[list[Sample], list[LeftOut]]:
    """The samples that the model has room for, and those that it has not."""
    kept, left_out = [], []
    asked = [
        [asking.prompt(sample) + end for end in (sample.options if asking.way == "sums" else ("",))]
        for sample in samples
    ]
    texts = [text for several in asked for text in several]
    lengths = iter(map(len, model.tokenizer(texts)["input_ids"] if texts else ()))
    for sample, several in zip(samples, asked, strict=True):
        longest = max(next(lengths) for _ in several)
        if longest >= model.context_length:
            reason = f"it does not fit into the model's {model.context_length} positions"
            left_out.append(LeftOut(sample.id, reason))
        else:
            kept.append(sample)
    return kept, left_out


def reply_all(
    model: LanguageModel,
    samples: Sequence[Sample],
    asking: Asking,
    edits: EditSet | None = None,
    captures: Mapping[str, Capture] | None = None,
    on_reply: OnReply | None = None,
) -> list[Reply]:
    """A reply to every sample, in their order; `on_reply` gets each as it is done."""
    if not samples:
        return []
    how = {"texts": _texts, "options": _options, "sums": _sums}[asking.way]
    found: list[Reply | None] = [None] * len(samples)
    for place, reply, captured in how(model, samples, asking, edits or {}, captures or {}):
        found[place] = reply
        if on_reply is not None:
            on_reply(place, reply, captured)
    assert all(reply is not None for reply in found)
    return [reply for reply in found if reply is not None]


_Found = Iterator[tuple[int, Reply, Captured]]


def _texts(
    model: LanguageModel,
    samples: Sequence[Sample],
    asking: Asking,
    edits: EditSet,
    captures: Mapping[str, Capture],
) -> _Found:
    for start in range(0, len(samples), asking.rows):
        part = samples[start : start + asking.rows]
        requests = [
            Request(
                prompt=asking.prompt(sample),
                seed=derive_seed(asking.seed, "reply", sample.id),
                max_tokens=asking.max_tokens,
                stop=asking.stop,
            )
            for sample in part
        ]
        found = _generated(model, requests, asking, edits, captures)
        # Together, as some judges are far faster on many texts at once.
        scores = asking.scorer.score_texts(list(part), [one.text for one in found])
        for one, score in zip(found, scores, strict=True):
            reply = Reply(
                one.text,
                score,
                n_tokens=len(one.tokens),
                n_edits=one.n_edits,
                logprob=sum(one.logprobs or ()),
            )
            yield start + one.request, reply, one.captured


def _generated(
    model: LanguageModel,
    requests: Sequence[Request],
    asking: Asking,
    edits: EditSet,
    captures: Mapping[str, Capture],
) -> list[Generation]:
    with steer(model, edits, LAST | GENERATED):
        return generate(
            model,
            requests,
            sampling=asking.sampling,
            max_rows=asking.rows,
            logprobs=True,
            captures=captures,
        )


def _options(
    model: LanguageModel,
    samples: Sequence[Sample],
    asking: Asking,
    edits: EditSet,
    captures: Mapping[str, Capture],
) -> _Found:
    prompts = [prompt_tokens(model, asking.prompt(sample)) for sample in samples]
    asked = [(asking.prompt(sample), asking.scorer.replies(sample)) for sample in samples]
    texts = OptionTexts.of_all(model, asked)
    firsts = [first_tokens(*both) for both in zip(samples, texts, strict=True)]
    for tile in length_tiles([len(prompt) for prompt in prompts], asking.tile_tokens):
        rows = [edits] * len(tile)
        with row_edits(model, rows, LAST) as active:
            ends = read_ends(model, [prompts[place] for place in tile], captures)
        for row, place in enumerate(tile):
            sample = samples[place]
            n_edits = active.expected(row, prompts[place], len(prompts[place]))
            shares = ends.logprobs[row, firsts[place]].exp().tolist()
            score = asking.scorer.score_options(sample, shares)
            said = sample.options[shares.index(max(shares))]
            captured = {name: value[row] for name, value in ends.captured.items()}
            yield place, Reply(said, score, tuple(shares), 1, n_edits), captured


def _sums(
    model: LanguageModel,
    samples: Sequence[Sample],
    asking: Asking,
    edits: EditSet,
    captures: Mapping[str, Capture],
) -> _Found:
    texts = OptionTexts.of_all(model, [(asking.prompt(one), one.options) for one in samples])
    for tile in length_tiles([text.n_tokens for text in texts], asking.tile_tokens):
        read = read_options(model, [texts[place] for place in tile], edits, captures)
        for place, found in zip(tile, read, strict=True):
            sample = samples[place]
            score = asking.scorer.score_sums(sample, list(found.sums), list(found.n_tokens))
            said = sample.options[found.preferred]
            reply = Reply(said, score, found.sums, sum(found.n_tokens), found.n_edits)
            yield place, reply, found.captured


def first_tokens(sample: Sample, texts: OptionTexts) -> list[int]:
    """The token that each option begins with."""
    found = [rest[0] for rest in texts.options]
    if len(set(found)) < len(found):
        raise ConfigError(
            f"Two options of {sample.id!r} begin with the same token, so that the first token does "
            "not tell them apart; ask for task.way=texts, or task.way=sums where the task has it."
        )
    return found
