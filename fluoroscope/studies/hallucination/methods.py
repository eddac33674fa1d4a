"""By what made-up answers are told in a hallucination study: every method, from the simplest on.

All are judged on the same answers in the same folds of whole groups. That an answer such as "Paris"
is given to many questions is left as it is: whoever uses a detector meets known answers too. How
much of a score is nothing but knowing an answer again is shown beside: by `WORDS_APART`, whose
folds keep answers of one text together, and by the AUROC among answers of one text (`evaluate`).
Groups that share a text become one in the first of these, so it takes answers that seldom recur (of
790 questions of TruthfulQA 625 stay apart; of the organism's, who lives in one of a few cities,
nothing does); where more than half of them hang together it is left out, and that is said.
"""

from typing import Literal, NamedTuple

from fluoroscope.studies.hallucination.config import HallucinationConfig

Kind = Literal["raw", "text", "columns", "layers"]
"""What it looks at: one number as it is, a text, numbers, or the states of each layer."""

BASELINE, COMBINED, TRACKING = "baseline", "baseline + tracking", "tracking"
WORDS = ("words of the answer", "words of the question")
WORDS_APART = "words of the answer, none seen before"
OF_TEXTS = ("length alone", "style", *WORDS)
"""Methods that look at no model."""

RAW = {
    "length alone": "length",
    "perplexity alone": "perplexity",
    "token entropy alone": "token entropy",
}
RAW_OF_SAMPLES = {
    "EigenScore alone": "EigenScore",
    "semantic entropy alone": "semantic entropy",
}
"""Of each, a larger one is more suspect; that was settled before any answer was seen."""


class Method(NamedTuple):
    """A row of the tables."""

    name: str
    kind: Kind
    detector: str
    """A name in `DETECTORS`; empty for a raw score."""

    columns: str
    """What it looks at: a name in `steps.features.COLUMNS`, or `probe` and a hook point."""

    repeats: int
    """Of the cross-validation; the first ones, where they are fewer than those of others."""


def methods(config: HallucinationConfig) -> dict[str, Method]:
    """By name, from the simplest to the one that everything is about, and that one again by other
    detectors.
    """
    detection = config.detection
    repeats, detector = detection.repeats, detection.detector

    def of_columns(name: str) -> Method:
        return Method(name, "columns", detector, name, repeats)

    def of_words(name: str, columns: str) -> Method:
        return Method(name, "text", "words", columns, repeats)

    raw = RAW | (RAW_OF_SAMPLES if config.answers.samples else {})
    sampled = ["agreement of samples", "self-check"] if config.answers.samples else []
    also_repeats = min(repeats, detection.also_repeats)
    also = [one for one in dict.fromkeys(detection.also) if one != detector]
    found = [
        *(Method(name, "raw", "", columns, repeats) for name, columns in raw.items()),
        of_columns("style"),
        of_words(WORDS[0], WORDS[0]),
        of_words(WORDS_APART, WORDS[0]),
        of_words(WORDS[1], WORDS[1]),
        *(of_columns(name) for name in ("uncertainty", *sampled)),
        *(of_columns(f"probe {point}") for point in config.points),
        Method("probe, best layer", "layers", "best layer", "layers", repeats),
        *(of_columns(name) for name in ("probe of updates", "latents", "reconstruction")),
        *(of_columns(name) for name in (BASELINE, TRACKING, COMBINED)),
        *(
            Method(by(name, one), "columns", one, name, also_repeats)
            for one in also
            for name in (BASELINE, TRACKING, COMBINED)
        ),
    ]
    return {one.name: one for one in found}


def by(name: str, detector: str) -> str:
    """The name of a method that is judged by another detector than the one of all."""
    return f"{name} ({detector})"
