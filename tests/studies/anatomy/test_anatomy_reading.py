import numpy as np
import pytest
import torch
from small_anatomy import small_model, small_saes

from fluoroscope.activations.capture import capture
from fluoroscope.core.errors import NumericsError
from fluoroscope.features.activation_columns import ColumnsWriter, LatentColumns
from fluoroscope.features.naive_statistics import latent_statistics as naive_statistics
from fluoroscope.features.statistics import Layout, latent_statistics
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.sae.evaluation import Window, evaluate_recovery
from fluoroscope.studies.anatomy.explained import explained
from fluoroscope.studies.anatomy.reading import NORM_STREAMS, SequenceReader
from fluoroscope.studies.anatomy.splicing import MEAN, RECONSTRUCTED, ZERO, Splicer

N, P = 4, 12


def sequences(n=N, p=P):
    tokens = torch.randint(3, 259, (n, p), generator=torch.Generator().manual_seed(1))
    tokens[:, 0] = 1
    return tokens


def text(tokens):
    kept = torch.ones(len(tokens), dtype=torch.bool)
    kept[0] = False
    return kept


@pytest.fixture(scope="module")
def model():
    return small_model()


@pytest.fixture(scope="module")
def saes(model):
    return small_saes(model)


def count_passes(model):
    """How often the network is called."""
    calls = []
    handle = model.network.register_forward_pre_hook(lambda *_: calls.append(1))
    return calls, handle


def test_all_layers_and_the_losses_are_read_in_one_pass_of_the_model(model, saes):
    calls, handle = count_passes(model)
    reader = SequenceReader(model, saes, norms=NORM_STREAMS)
    for tokens in sequences():
        found = reader.read(tokens, text(tokens))
        assert set(found.layers) == set(saes)
        assert found.losses is not None
    handle.remove()
    assert len(calls) == N


def test_what_is_read_is_what_the_dense_encoder_says(model, saes):
    tokens = sequences()
    cache = capture(model, tokens, list(saes))
    reader = SequenceReader(model, saes)
    for q, row in enumerate(tokens):
        found = reader.read(row, text(row))
        for point, sae in saes.items():
            x = cache[point][q]
            dense = sae.encode(x)
            torch.testing.assert_close(found.layers[point].latents.dense(), dense)
            error = (x - sae.decode(dense)).square().mean(dim=-1).double()
            torch.testing.assert_close(
                found.layers[point].square_error, error, rtol=1e-4, atol=1e-6
            )
        expected = -model.token_scores(row.unsqueeze(0))[0].double()
        torch.testing.assert_close(found.losses, expected)


def test_statistics_of_a_model_are_those_of_dense_activations(model, saes, tmp_path):
    tokens, point = sequences(), HookPoint("2.resid_post")
    writer = ColumnsWriter(tmp_path, {"sae": saes[point].d_sae})
    dense = []
    for q, row in enumerate(tokens):
        latents = SequenceReader(model, saes).read(row, text(row)).layers[point].latents
        writer.add("sae", latents, q * P)
        dense.append(latents.dense().numpy())
    writer.close()
    layout = Layout(np.ones((N, P), bool), np.arange(P)[None].repeat(N, 0) > 0)
    found = latent_statistics(LatentColumns(sorted((tmp_path / "sae").iterdir())), layout)
    expected = naive_statistics(np.stack(dense), layout)
    for name, value in vars(expected.text).items():
        np.testing.assert_allclose(getattr(found.text, name), value, rtol=1e-12, atol=1e-12)
    assert found.text.count[3] == 0


def test_spliced_in_at_once_each_layer_reads_what_those_before_it_left(model, saes):
    tokens = sequences(1)[0]
    first, second = saes
    found = SequenceReader(model, saes, "reconstructed").read(tokens, text(tokens))
    clean = SequenceReader(model, saes).read(tokens, text(tokens))
    assert torch.equal(found.layers[first].latents.values, clean.layers[first].latents.values)
    sae = saes[first]

    def stand_in(x):
        written = x.clone()
        written[0, 1:] = sae(x[0])[1:]
        return written

    seen = {}
    with torch.no_grad(), model.hooked({first: stand_in, second: lambda x: seen.update(x=x[0])}):
        model.forward(tokens.unsqueeze(0))
    expected = saes[second].encode(seen["x"])
    torch.testing.assert_close(found.layers[second].latents.dense(), expected)


@pytest.mark.parametrize("ablation", ["positions_removed", "positions_shuffled"])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_without_positions_something_else_is_read_and_afterwards_the_same(family, ablation):
    model = small_model(family)
    saes = small_saes(model)
    tokens = sequences(1)[0]
    before = SequenceReader(model, saes).read(tokens, text(tokens))
    ablated = SequenceReader(model, saes, ablation).read(tokens, text(tokens))
    after = SequenceReader(model, saes).read(tokens, text(tokens))
    assert torch.equal(before.losses, after.losses)
    assert not torch.allclose(before.losses, ablated.losses)


def test_norms_are_those_of_the_streams(model, saes):
    tokens = sequences(1)
    found = SequenceReader(model, saes, norms=NORM_STREAMS).read(tokens[0], text(tokens[0]))
    assert len(found.norms) == 4 * model.n_layers
    for point, lengths in found.norms.items():
        expected = capture(model, tokens, [point])[point][0].double().norm(dim=-1)
        torch.testing.assert_close(lengths, expected)


def test_an_activation_that_overflowed_is_named(model, saes):
    tokens = sequences(1)[0]

    def overflow(x):
        x = x.clone()
        x[0, 4] = torch.inf
        return x

    with (
        model.hooked({HookPoint("0.mlp_out"): overflow}),
        pytest.raises(NumericsError, match=r"at 0\.resid_post are not finite at position 4"),
    ):
        SequenceReader(model, saes).read(tokens, text(tokens))


def test_splicing_from_a_layer_on_is_splicing_in_the_whole_model(model, saes):
    """Blocks that are skipped change nothing: as `evaluate_recovery` runs the whole network."""
    tokens = sequences()
    means = {point: torch.randn(model.d_model) for point in saes}
    splicer = Splicer(model, saes, means)
    for point, sae in saes.items():
        sums = dict.fromkeys(("clean", RECONSTRUCTED, MEAN, ZERO), 0.0)
        for row in tokens:
            clean, spliced = splicer.losses(row, text(row))
            sums["clean"] += float(clean.sum())
            for way, losses in spliced[point].items():
                sums[way] += float(losses.sum())
        kept = torch.stack([text(row) for row in tokens])
        window = Window(tokens, torch.zeros_like(tokens), kept)
        found = evaluate_recovery(model, point, sae, [window], means[point])
        n = N * (P - 1)
        assert sums["clean"] / n == pytest.approx(found.ce_clean, rel=1e-5)
        assert sums[RECONSTRUCTED] / n == pytest.approx(found.ce_sae, rel=1e-5)
        assert sums[MEAN] / n == pytest.approx(found.ce_mean_ablated, rel=1e-5)
        assert sums[ZERO] / n == pytest.approx(found.ce_zero_ablated, rel=1e-5)


def test_ways_one_by_one_are_ways_together(model, saes, monkeypatch):
    tokens = sequences(1)[0]
    means = {point: torch.zeros(model.d_model) for point in saes}
    _, together = Splicer(model, saes, means).losses(tokens, text(tokens))
    monkeypatch.setattr("fluoroscope.studies.anatomy.splicing._LOGITS_BYTES", 0)
    _, alone = Splicer(model, saes, means).losses(tokens, text(tokens))
    for point, ways in together.items():
        for way, losses in ways.items():
            torch.testing.assert_close(losses, alone[point][way])


def test_explained_variance_is_that_of_all_rows_together(model, saes):
    tokens = sequences()
    point = HookPoint("0.resid_post")
    sae = saes[point]
    sums, rows = {}, []
    for row in tokens:
        found = SequenceReader(model, saes).read(row, text(row)).layers[point]
        for name, value in found.sums.items():
            sums.setdefault(name, []).append(value.numpy())
        rows.append(capture(model, row.unsqueeze(0), [point])[point][0, 1:])
    x = torch.cat(rows)
    error = (x - sae(x)).double()
    expected = 1 - error.var(dim=0).sum() / x.double().var(dim=0).sum()
    found = explained({name: np.stack(values) for name, values in sums.items()}, seed=0)
    assert found.explained_variance.value == pytest.approx(float(expected), rel=1e-5)
    np.testing.assert_allclose(found.mean, x.double().mean(dim=0), atol=1e-6)
    mean_square = float(error.square().mean())
    assert found.mean_square_error.value == pytest.approx(mean_square, rel=1e-5)
