"""Scores are those of the whole side, by hand and by the confusion matrix."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fluoroscope.core.errors import CorpusError, NumericsError
from fluoroscope.studies.plugin.metrics import SCORES, scores_of


def sure_of(predicted, n_classes):
    return 10.0 * torch.nn.functional.one_hot(torch.tensor(predicted), n_classes).float()


def naive(predicted, labels):
    """Macro means and the coefficient of Matthews (Gorodkin 2004), by counting."""
    classes = sorted({*predicted, *labels})
    pairs = list(zip(predicted, labels, strict=True))
    precision, recall, f1 = [], [], []
    for c in classes:
        both = pairs.count((c, c))
        precision.append(both / max(predicted.count(c), 1))
        recall.append(both / max(labels.count(c), 1))
        f1.append(2 * both / (predicted.count(c) + labels.count(c)))
    n, right = len(pairs), sum(a == b for a, b in pairs)
    mixed = right * n - sum(predicted.count(c) * labels.count(c) for c in classes)
    sides = [n**2 - sum(side.count(c) ** 2 for c in classes) for side in (predicted, labels)]
    return {
        "accuracy": right / n,
        "macro_f1": sum(f1) / len(classes),
        "macro_precision": sum(precision) / len(classes),
        "macro_recall": sum(recall) / len(classes),
        "mcc": mixed / math.sqrt(math.prod(sides)) if all(sides) else 0.0,
    }


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30))
def test_scores_are_what_counting_says(pairs):
    predicted, labels = (list(side) for side in zip(*pairs, strict=True))
    found = scores_of(sure_of(predicted, 4), torch.tensor(labels))
    assert tuple(found) == SCORES
    assert {name: found[name] for name in found if name != "loss"} == pytest.approx(
        naive(predicted, labels)
    )


def test_scores_by_hand():
    # Two of four are right, and each class is once taken for the other: every ratio is a half.
    found = scores_of(sure_of([0, 1, 1, 0], 2), torch.tensor([0, 0, 1, 1]))
    assert [found[name] for name in SCORES[1:]] == [0.5, 0.5, 0.5, 0.5, 0.0]
    even = torch.zeros(3, 4)
    assert scores_of(even, torch.tensor([0, 1, 2]))["loss"] == pytest.approx(math.log(4))


def test_a_constant_prediction_has_a_correlation_of_nothing():
    assert scores_of(sure_of([1, 1, 1], 2), torch.tensor([0, 1, 1]))["mcc"] == 0.0
    assert scores_of(sure_of([1, 1, 1], 2), torch.tensor([1, 1, 1]))["mcc"] == 0.0


def test_a_class_that_is_neither_there_nor_predicted_has_no_say():
    labels, predicted = torch.tensor([0, 1, 1]), [0, 1, 0]
    with_third = scores_of(sure_of(predicted, 3), labels)
    assert with_third["macro_f1"] == scores_of(sure_of(predicted, 2), labels)["macro_f1"]
    # Predicted without being there, it counts 0.
    assert scores_of(sure_of([0, 2], 3), torch.tensor([0, 0]))["macro_precision"] == 0.5


def test_the_whole_side_is_not_the_mean_of_its_batches():
    predicted, labels = [0, 0, 1, 1], torch.tensor([0, 0, 0, 1])
    logits = sure_of(predicted, 2)
    halves = [scores_of(logits[at], labels[at])["macro_f1"] for at in ([0, 1], [2, 3])]
    assert scores_of(logits, labels)["macro_f1"] != pytest.approx(sum(halves) / 2)


def test_what_cannot_be_scored_is_refused():
    with pytest.raises(NumericsError, match="1 of 2 examples"):
        scores_of(torch.tensor([[0.0, 1.0], [float("nan"), 0.0]]), torch.tensor([0, 1]))
    with pytest.raises(CorpusError, match="at least one"):
        scores_of(torch.zeros(0, 2), torch.zeros(0, dtype=torch.long))
