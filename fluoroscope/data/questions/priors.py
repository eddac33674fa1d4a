"""What can be had without reading: the most frequent answer, and which words go with which answer.

A reasoner that is not better than these has not reasoned. They are learnt from the same training
side and answer the same questions, one text each, so that they can be compared in pairs.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from fluoroscope.core.errors import CorpusError
from fluoroscope.data.questions.question import Kind, Question

MAJORITY: Final = "majority"
BAG_OF_WORDS: Final = "bag_of_words"
_STRENGTHS = (0.1, 1.0, 10.0)
"""Inverse strengths of the ridge that are tried, the strongest ridge first."""

_WORD = r"\w+|[^\w\s]"


def priors(
    train: Sequence[Question],
    validation: Sequence[Question],
    questions: Sequence[Question],
    kind: Kind,
) -> Mapping[str, list[str]]:
    """Prior -> its answer to each of `questions`; words go with choices alone."""
    found = {MAJORITY: majority_answers(train, questions)}
    if kind == "choice":
        found[BAG_OF_WORDS] = bag_of_words_answers(train, validation, questions)
    return found


def majority_answers(train: Sequence[Question], questions: Sequence[Question]) -> list[str]:
    """The answer that most training questions have; of those as frequent the first by name."""
    return [_majority(train)] * len(questions)


def bag_of_words_answers(
    train: Sequence[Question], validation: Sequence[Question], questions: Sequence[Question]
) -> list[str]:
    """Logistic regression on tf-idf of the words and signs of the sources; how strong its ridge
    is is chosen on the validation side, the strongest of those as good.
    """
    targets = [one.target for one in train]
    if len(set(targets)) < 2:
        return majority_answers(train, questions)
    words = TfidfVectorizer(token_pattern=_WORD, sublinear_tf=True)
    learnt = words.fit_transform([one.source for one in train])
    held = words.transform([one.source for one in validation]) if validation else None
    wanted = np.array([one.target for one in validation])
    best, best_accuracy = None, -1.0
    for strength in _STRENGTHS if validation else (1.0,):
        model = LogisticRegression(C=strength, max_iter=1000).fit(learnt, targets)
        accuracy = float(np.mean(model.predict(held) == wanted)) if held is not None else 0.0
        if accuracy > best_accuracy:
            best, best_accuracy = model, accuracy
    assert best is not None, "an accuracy is above -1"
    if not questions:
        return []
    return best.predict(words.transform([one.source for one in questions])).tolist()


def _majority(train: Sequence[Question]) -> str:
    counts: dict[str, int] = {}
    for one in train:
        counts[one.target] = counts.get(one.target, 0) + 1
    if not counts:
        raise CorpusError("A prior is learnt from the training side, and it is empty.")
    return min(counts, key=lambda target: (-counts[target], target))
