"""Pooled latents of replies are those of every step, encoded one by one."""

import numpy as np
import pytest
import torch

from fluoroscope import organism
from fluoroscope.core.errors import NumericsError
from fluoroscope.features.reply_latents import ReplyLatents, load_dense, load_rows
from fluoroscope.interventions.replies.answering import Asking, reply_all
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.steps.task_data import read_task
from fluoroscope.steps.task_spec import TaskSpec

POINTS = ("2.resid_post", "3.resid_post")
POOLS = ("max", "mean", "last")


@pytest.fixture(scope="module")
def saes():
    found = organism.load().saes
    return {point: found[(HookPoint(point).layer, "batch_topk")] for point in POINTS}


@pytest.fixture(scope="module")
def data(organism_model):
    spec = TaskSpec(name="organism-bias", limit=24, way="texts", max_tokens=4)
    return read_task(organism_model, spec, None, 0)


def collected(model, saes, samples, asking: Asking):
    latents = ReplyLatents(saes, list(POOLS), len(samples))
    replies = reply_all(
        model, samples, asking, None, latents.captures, lambda i, _, seen: latents.add(i, seen)
    )
    return latents, replies


def steps_of(model, sample, n_steps):
    """Activations where each token is drawn, a whole pass for each token."""
    tokens = list(model.tokenizer(sample.prompt)["input_ids"])
    steps = {point: [] for point in POINTS}

    def look(point):
        def hook(value):
            steps[point].append(value[0, -1].clone())

        return hook

    with torch.no_grad(), model.hooked({HookPoint(point): look(point) for point in POINTS}):
        for _ in range(n_steps):
            tokens.append(int(model.forward(torch.tensor([tokens]))[0, -1].argmax()))
    return {point: torch.stack(found) for point, found in steps.items()}


def naive(x, how):
    return {"max": x.amax(0), "mean": x.mean(0), "last": x[-1]}[how]


def test_latents_are_those_of_every_step_encoded_and_pooled(organism_model, saes, data):
    samples = data.sides["train"][:8]
    latents, replies = collected(organism_model, saes, samples, data.asking)
    dense = {point: np.zeros((len(samples), sae.d_model)) for point, sae in saes.items()}
    n_read = []
    for place, (sample, reply) in enumerate(zip(samples, replies, strict=True)):
        # What ends a text is drawn at a step that does not count.
        n = reply.n_tokens if reply.n_tokens == data.asking.max_tokens else reply.n_tokens - 1
        n_read.append(n)
        steps = steps_of(organism_model, sample, n)
        for point, sae in saes.items():
            for pool in POOLS:
                row = latents.rows(point, pool)[[place]].toarray()[0]
                expected = naive(sae.encode(steps[point]), pool).detach().double().numpy()
                np.testing.assert_allclose(row, expected, rtol=0, atol=2e-4)
                assert (row > 0).any()
            dense[point][place] = steps[point].mean(0).numpy()
    assert max(n_read) > 1
    for point in POINTS:
        found = np.stack([latents._dense[point][i] for i in range(len(samples))])
        np.testing.assert_allclose(found, dense[point], rtol=0, atol=1e-4)


def test_what_is_saved_is_what_is_loaded(organism_model, saes, data, tmp_path):
    samples = data.sides["train"][:8]
    latents, _ = collected(organism_model, saes, samples, data.asking)
    latents.save(tmp_path / "latents.safetensors")
    for point, sae in saes.items():
        for pool in POOLS:
            loaded = load_rows(tmp_path / "latents.safetensors", point, pool, sae.d_sae)
            kept = latents.rows(point, pool)
            assert loaded.shape == kept.shape == (8, sae.d_sae)
            assert (loaded != kept).nnz == 0
        assert load_dense(tmp_path / "latents.safetensors", point).shape == (8, sae.d_model)


def seen(saes, value=0.0):
    found = {f"{p} {pool}": torch.zeros(sae.d_sae) for p, sae in saes.items() for pool in POOLS}
    found |= {f"{p} dense": torch.zeros(sae.d_model) for p, sae in saes.items()}
    found[f"{POINTS[0]} max"][3] = value
    return found


def test_rows_without_an_active_latent_are_rows_all_the_same(saes, tmp_path):
    latents = ReplyLatents(saes, list(POOLS), 3)
    for place, value in ((2, 1.5), (0, 0.0), (1, 0.0)):
        latents.add(place, seen(saes, value))
    latents.save(tmp_path / "x.safetensors")
    rows = load_rows(tmp_path / "x.safetensors", POINTS[0], "max", saes[POINTS[0]].d_sae)
    assert rows.toarray()[:, 3].tolist() == [0, 0, 1.5]
    empty = load_rows(tmp_path / "x.safetensors", POINTS[1], "last", saes[POINTS[1]].d_sae)
    assert empty.shape[0] == 3
    assert empty.nnz == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_latent_that_is_no_number_is_named(saes, value):
    with pytest.raises(NumericsError, match=r"2.resid_post max is a NaN or an infinity"):
        ReplyLatents(saes, list(POOLS), 1).add(0, seen(saes, value))
