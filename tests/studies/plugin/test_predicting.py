"""A prediction is its row's own: order, batches and padding change nothing but rounding."""

import numpy as np
import pytest
import torch
from plug_toys import toy_classifier, toy_side

from fluoroscope.core.errors import ConfigError, CorpusError
from fluoroscope.data.labelled.encoding import Encoded
from fluoroscope.studies.plugin.predicting import predict

HOW = {"device": "cpu", "precision": "float32"}


def some_of(side, rows):
    pieces = [side.tokens[side.starts[row] : side.starts[row + 1]] for row in rows]
    return Encoded(
        tokens=np.concatenate([np.empty(0, np.int32), *pieces]).astype(np.int32),
        starts=np.concatenate([[0], np.cumsum([len(piece) for piece in pieces])]).astype(np.int64),
        segments=None,
        labels=side.labels[rows],
        ids=tuple(side.ids[row] for row in rows),
    )


def test_logits_are_in_the_order_of_the_rows_whatever_the_batches():
    classifier, side = toy_classifier(), toy_side(13)
    wanted = torch.cat(
        [
            classifier(side.batch(np.array([row]), pad_id=0, pad_to=None)).detach()
            for row in range(13)
        ]
    )
    for batch_size in (1, 4, 32):
        found = predict(classifier, side, batch_size=batch_size, **HOW)
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)


def test_another_order_of_rows_gives_the_same_logits():
    classifier, side = toy_classifier(), toy_side(13)
    order = np.random.default_rng(0).permutation(13)
    found = predict(classifier, some_of(side, order), batch_size=4, **HOW)
    wanted = predict(classifier, side, batch_size=4, **HOW)[torch.from_numpy(order)]
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)


def test_padding_to_the_full_length_gives_the_logits_of_buckets():
    classifier, side = toy_classifier(), toy_side(13)
    found = predict(classifier, side, batch_size=4, pad_to=40, **HOW)
    wanted = predict(classifier, side, batch_size=4, **HOW)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


def test_a_pooling_that_counts_padding_sees_the_full_length():
    classifier, side = toy_classifier(pooling="mean"), toy_side(13)
    found = [predict(classifier, side, batch_size=4, pad_to=n, **HOW) for n in (9, 40)]
    assert (found[0] - found[1]).abs().max() > 1e-3


def test_nothing_is_dropped_or_learnt_and_the_mode_is_as_it_was():
    classifier, side = toy_classifier(dropout=0.5), toy_side(13)
    wanted = predict(classifier, side, batch_size=4, **HOW)
    classifier.train()
    found = predict(classifier, side, batch_size=4, **HOW)
    assert torch.equal(found, wanted)
    assert classifier.training
    assert not found.requires_grad
    classifier.eval()
    predict(classifier, side, batch_size=4, **HOW)
    assert not classifier.training


def test_half_precision_is_used_where_asked_for_and_never_decided_here():
    classifier, side = toy_classifier(), toy_side(13)
    full = predict(classifier, side, batch_size=4, **HOW)
    half = predict(classifier, side, batch_size=4, device="cpu", precision="bfloat16")
    assert half.dtype == torch.float32
    assert not torch.equal(full, half)
    torch.testing.assert_close(half, full, rtol=0.05, atol=0.05)
    with pytest.raises(ConfigError, match="got auto"):
        predict(classifier, side, batch_size=4, device="cpu", precision="auto")


def test_a_side_without_examples_is_refused():
    with pytest.raises(CorpusError, match="without examples"):
        predict(toy_classifier(), some_of(toy_side(3), np.arange(0)), batch_size=4, **HOW)
