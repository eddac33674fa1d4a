"""A judge of stereotypes: TF-IDF of words and characters, and a logistic regression, on EMGSD.

It learns from the training side without whatever has a variant on the test side
(`base_sentences.py`), and is measured on the whole test side; `JudgeRecord` has the result, which
belongs beside every ratio that it gives. On the files of the release, 27,512 of 45,760 training
texts are left, and on the 11,441 test texts F1 is 0.632 (0.620 to 0.644; 0.509 if everything were
called a stereotype), precision 0.597, recall 0.673, macro-F1 0.711. The authors' ALBERT has a
macro-F1 of 0.815 there, from a training side that shares base sentences with the test side.

Settings were chosen on a part of the training side. Classes are weighted equally, so its
probability is not the share of stereotypes among texts. Saved as json (words, record) and
safetensors (weights); nothing is pickled.

Axes: `n` texts, `g` base sentences, `f` words and pieces of words.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float

from fluoroscope.core.errors import CorpusError, DamagedError
from fluoroscope.core.intervals import Interval, jackknife_intervals
from fluoroscope.core.plain_values import with_nan, without_nan
from fluoroscope.core.storage import read_json, write_json
from fluoroscope.core.tensors import read_tensors, write_tensors
from fluoroscope.data.rows import HUB_PREFIX, Hub, Row, UnusableRowError, rows_at
from fluoroscope.data.tasks.base_sentences import Skeletons, base_sentence

if TYPE_CHECKING:
    from scipy.sparse import csr_array
    from sklearn.feature_extraction.text import TfidfVectorizer

TRAIN_FILES = ("train_binary.jsonl", "train.csv", "train*.parquet")
TRAIN_HUB = Hub("holistic-ai/EMGSD", None, "train")
TEST_FILES = ("test.csv", "test*.parquet")
TEST_HUB = TRAIN_HUB._replace(split="test")
TEST_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "text": ("text",),
    "marked": ("text_with_marker",),
    "label": ("category", "label"),
    "type": ("stereotype_type",),
    "source": ("data_source",),
}
_TRAIN_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "text": ("text",),
    "label": ("label", "category"),
}
_PARTS: Mapping[str, Mapping[str, Any]] = {  # Any: settings of scikit-learn.
    "words": {"ngram_range": (1, 2)},
    "pieces": {"analyzer": "char_wb", "ngram_range": (3, 5)},
}
_SHARED: Mapping[str, Any] = {"sublinear_tf": True}  # Any: see `_PARTS`.
_MIN_TEXTS = 3
"""That a word must stand in."""

_C = 4.0
_TABLE, _WEIGHTS = "judge.json", "judge.safetensors"


@dataclass(frozen=True)
class JudgeRecord:
    """How good a judge is, on the test side; intervals are over base sentences."""

    f1: Interval
    precision: Interval
    recall: Interval
    macro_f1: Interval
    accuracy: Interval
    baseline_f1: float
    """Of calling everything a stereotype."""

    baseline_accuracy: float
    """Of calling nothing one."""

    n_train: int
    n_test: int
    left_out: Mapping[str, int]
    """Why training texts were left out -> how many."""

    def describe(self) -> str:
        """A sentence for a report."""
        return (
            f"The judge finds stereotypes with F1 {self.f1.value:.3f} "
            f"({self.f1.low:.3f} to {self.f1.high:.3f}; {self.baseline_f1:.3f} if everything were "
            f"called one), precision {self.precision.value:.3f} and recall "
            f"{self.recall.value:.3f} on {self.n_test:,} held-out texts."
        )


@dataclass(frozen=True)
class StereotypeJudge:
    """Words and pieces of words with their weights."""

    vocabulary: Mapping[str, tuple[str, ...]]
    """Part of the features -> what is counted, in the order of the weights."""

    idf: Float[np.ndarray, " f"]
    weights: Float[np.ndarray, " f"]
    bias: float
    record: JudgeRecord

    def probabilities(self, texts: Sequence[str]) -> Float[np.ndarray, " n"]:
        """Of each text that it is a stereotype; from 1/2 on it counts as one."""
        from scipy.special import expit

        return expit(_features(self._vectorizers, texts) @ self.weights + self.bias)

    @cached_property
    def _vectorizers(self) -> "list[TfidfVectorizer]":
        found, start = [], 0
        for part, words in self.vocabulary.items():
            vectorizer = _vectorizer(part, vocabulary=list(words))
            vectorizer.idf_ = self.idf[start : start + len(words)]
            found.append(vectorizer)
            start += len(words)
        return found


def train_judge(place: Path | str) -> StereotypeJudge:
    """From the folder of EMGSD's two files, or a file beside the other, or the hub."""
    folder = str(place)
    if not folder.startswith(HUB_PREFIX) and Path(folder).is_file():
        folder = str(Path(folder).parent)
    tests = list(rows_at(folder, (TEST_HUB,), TEST_FILES, TEST_COLUMNS, "emgsd"))
    marked = [row.text("marked") for row in tests]
    texts, labels, left_out = _training(folder, Skeletons(marked))
    vectorizers = [_vectorizer(part, min_df=_MIN_TEXTS) for part in _PARTS]
    weights, bias = _fit(vectorizers, texts, labels)
    scored = _features(vectorizers, [row.text("text") for row in tests]) @ weights + bias
    is_stereotype = np.array([_label(row) for row in tests])
    groups = [base_sentence(text) for text in marked]
    record = _record(scored >= 0, is_stereotype, groups, len(texts), left_out)
    return StereotypeJudge(
        {
            part: tuple(one.get_feature_names_out().tolist())
            for part, one in zip(_PARTS, vectorizers, strict=True)
        },
        np.concatenate([one.idf_ for one in vectorizers]),
        weights,
        bias,
        record,
    )


def save_judge(judge: StereotypeJudge, folder: Path) -> None:
    """Two files in the folder."""
    vocabulary = {part: list(words) for part, words in judge.vocabulary.items()}
    write_json(
        folder / _TABLE, {"vocabulary": vocabulary, "record": without_nan(vars(judge.record))}
    )
    tensors = {
        "idf": torch.from_numpy(judge.idf),
        "weights": torch.from_numpy(judge.weights),
        "bias": torch.tensor([judge.bias], dtype=torch.float64),
    }
    write_tensors(folder / _WEIGHTS, tensors)


def load_judge(folder: Path) -> StereotypeJudge:
    if not (folder / _TABLE).is_file():
        raise CorpusError(f"There is no judge in {folder}: {_TABLE} is missing. Train one.")
    table, tensors = read_json(folder / _TABLE), read_tensors(folder / _WEIGHTS)
    vocabulary = {part: tuple(table["vocabulary"][part]) for part in _PARTS}
    n = sum(map(len, vocabulary.values()))
    if {len(tensors["idf"]), len(tensors["weights"])} != {n}:
        raise DamagedError(
            f"{folder / _WEIGHTS} has weights of {len(tensors['weights'])} words and {_TABLE} "
            f"{n}; they are not of one judge. Train it again."
        )
    record = with_nan(table["record"])
    intervals = {
        name: Interval(*value) for name, value in record.items() if isinstance(value, list)
    }
    return StereotypeJudge(
        vocabulary,
        tensors["idf"].numpy(),
        tensors["weights"].numpy(),
        float(tensors["bias"][0]),
        JudgeRecord(**(record | intervals)),
    )


def _training(
    folder: str, skeletons: Skeletons
) -> tuple[list[str], Bool[np.ndarray, " n"], dict[str, int]]:
    """Texts that have no variant on the test side, each once, and why others are not there."""
    left_out: Counter[str] = Counter()
    labels: dict[str, set[bool]] = {}
    for row in rows_at(folder, (TRAIN_HUB,), TRAIN_FILES, _TRAIN_COLUMNS, "emgsd"):
        try:
            text, label = row.text("text"), _label(row)
        except UnusableRowError as error:
            left_out[str(error)] += 1
            continue
        if why := skeletons.variant(text):
            left_out[f"it has a variant in the test side: {why}"] += 1
        elif text in labels:
            left_out["the same text came before"] += 1
            labels[text].add(label)
        else:
            labels[text] = {label}
    texts = [text for text, found in labels.items() if len(found) == 1]
    if len(labels) > len(texts):
        left_out["the same text is labelled both ways"] += len(labels) - len(texts)
    found = np.array([labels[text] == {True} for text in texts], dtype=bool)
    if len(set(found.tolist())) < 2:
        raise CorpusError(
            f"{len(texts)} training texts of {folder} are left, and they are not of both labels; "
            f"a judge cannot be trained. Left out: {dict(left_out)}."
        )
    return texts, found, dict(left_out)


def _label(row: Row) -> bool:
    """Whether it is a stereotype: 1, "stereotype", or "stereotype_gender" and its like."""
    value = row.value("label")
    if value in (0, 1):
        return bool(value)
    if isinstance(value, str) and value.strip():
        return value.startswith("stereotype")
    raise UnusableRowError("it has no label")


def _vectorizer(part: str, **settings: Any) -> "TfidfVectorizer":  # Any: see `_PARTS`.
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(**_PARTS[part], **_SHARED, **settings)


def _features(vectorizers: "list[TfidfVectorizer]", texts: Sequence[str]) -> "csr_array":
    from scipy.sparse import csr_array, hstack

    return csr_array(hstack([one.transform(texts) for one in vectorizers]))


def _fit(
    vectorizers: "list[TfidfVectorizer]", texts: list[str], labels: Bool[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, " f"], float]:
    from scipy.sparse import csr_array, hstack
    from sklearn.linear_model import LogisticRegression

    features = csr_array(hstack([one.fit_transform(texts) for one in vectorizers]))
    # L-BFGS draws nothing, so that the same texts give the same judge.
    model = LogisticRegression(C=_C, class_weight="balanced", max_iter=1000).fit(features, labels)
    return np.asarray(model.coef_[0], float), float(np.asarray(model.intercept_).item())


def _record(
    found: Bool[np.ndarray, " n"],
    true: Bool[np.ndarray, " n"],
    groups: list[str],
    n_train: int,
    left_out: dict[str, int],
) -> JudgeRecord:
    _, group = np.unique(groups, return_inverse=True)
    cells = [found & true, found & ~true, ~found & true, ~found & ~true]
    totals = np.stack([np.bincount(group, cell) for cell in cells], axis=1)
    intervals = jackknife_intervals(_rates, totals)
    share = float(true.mean())
    return JudgeRecord(
        *intervals,
        baseline_f1=2 * share / (1 + share),
        baseline_accuracy=1 - share,
        n_train=n_train,
        n_test=len(true),
        left_out=left_out,
    )


def _rates(totals: Float[np.ndarray, "draws 4"]) -> Float[np.ndarray, "draws 5"]:
    """F1, precision, recall, macro-F1 and accuracy."""
    hits, false_alarms, misses, rejections = totals.T
    wrong = false_alarms + misses
    f1 = _share(2 * hits, 2 * hits + wrong)
    macro = (f1 + _share(2 * rejections, 2 * rejections + wrong)) / 2
    precision, recall = _share(hits, hits + false_alarms), _share(hits, hits + misses)
    accuracy = _share(hits + rejections, totals.sum(1))
    return np.stack([f1, precision, recall, macro, accuracy], axis=1)


def _share(part: Float[np.ndarray, " draws"], whole: Float[np.ndarray, " draws"]) -> np.ndarray:
    return part / np.maximum(whole, 1e-300)
