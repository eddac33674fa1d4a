import pytest
import torch

from fluoroscope.core.config import build
from fluoroscope.core.errors import NumericsError
from fluoroscope.core.sink import Sink
from fluoroscope.core.tensors import read_state, write_state
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.sae.architectures import SAES
from fluoroscope.sae.evaluation import match_dictionary
from fluoroscope.sae.synthetic import SyntheticActivations
from fluoroscope.sae.training import Rows, SAETrainer, SAEVariant, geometric_median
from fluoroscope.sae.training_config import TrainingConfig

POINT, OTHER = HookPoint("0.resid_post"), HookPoint("1.resid_post")
WORLD = SyntheticActivations(d_model=24, n_features=32, mean_l0=3)
SETTINGS = {"topk": {"k": 3}, "batch_topk": {"k": 3}, "jumprelu": {"target_l0": 3}, "relu": {}}


class Batches:
    def __init__(self, size):
        self.size, self.place = size, 0

    def next_batch(self):
        self.place += 1
        batch = WORLD.batch(self.place, self.size)
        return {POINT: batch, OTHER: 2 * batch + 1}

    def state(self):
        return {"place": self.place}

    def load(self, state):
        self.place = state["place"]


def trainer(names=("batch_topk",), n_iterations=30, points=(POINT,), **settings):
    config = TrainingConfig(batch_size=256, validate_every=10, **settings)
    variants = []
    for name in names:
        kind = SAES.load(name)
        own = build(kind.config_type, {"d_model": 24, "d_sae": 48, **SETTINGS[name]})
        variants += [SAEVariant(f"{p}-{name}", p, name, own, 0) for p in points]
    held = WORLD.batch(10_000, 1024)
    rows = {POINT: Rows(WORLD.batch(0, 2048), held)}
    rows[OTHER] = Rows(2 * rows[POINT].training + 1, 2 * held + 1)
    return SAETrainer(variants, Batches(256), rows, config, n_iterations)


def weights(trained):
    return {key: result.best.state_dict() for key, result in trained.results()}


def assert_same(a, b):
    assert a.keys() == b.keys()
    for key in a:
        for name in a[key]:
            assert torch.equal(a[key][name], b[key][name]), (key, name)


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_a_resumed_training_ends_with_the_same_bits(name, tmp_path):
    whole = trainer([name])
    for i in range(30):
        whole.advance(i)
    first = trainer([name])
    for i in range(17):
        first.advance(i)
    write_state(tmp_path / "state.safetensors", first.state())
    second = trainer([name])
    second.load(read_state(tmp_path / "state.safetensors"))
    for i in range(17, 30):
        second.advance(i)
    assert_same(weights(whole), weights(second))
    assert whole.curves == second.curves


def test_training_together_is_training_alone():
    together = trainer(("topk", "jumprelu"), points=(POINT, OTHER))
    together.train()
    for name in ("topk", "jumprelu"):
        for point in (POINT, OTHER):
            alone = trainer((name,), points=(point,))
            alone.train()
            key = f"{point}-{name}"
            assert_same(weights(alone), {key: weights(together)[key]})


@pytest.mark.parametrize("name", ["topk", "batch_topk", "jumprelu"])
def test_a_known_dictionary_is_found(name):
    result = trainer((name,), n_iterations=600).train()[f"{POINT}-{name}"]
    match = match_dictionary(result.best.W_dec, WORLD.directions)
    assert float((match.cosine > 0.9).float().mean()) > 0.8


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_saved_saes_take_raw_activations_and_have_unit_decoder_rows(name):
    results = trainer((name,), n_iterations=300, points=(POINT, OTHER)).train()
    x = WORLD.batch(77, 2000)
    fvu = {}
    for point, data in ((POINT, x), (OTHER, 2 * x + 1)):
        sae = results[f"{point}-{name}"].best
        torch.testing.assert_close(sae.W_dec.norm(dim=-1), torch.ones(48), atol=1e-5, rtol=0)
        error = (sae(data) - data).detach().square().sum()
        fvu[point] = float(error / (data - data.mean(dim=0)).square().sum())
    assert fvu[POINT] < 0.5
    # The same data in other units is the same problem, from another start.
    assert fvu[OTHER] == pytest.approx(fvu[POINT], rel=0.3)


@pytest.mark.parametrize("n_iterations", [5, 100])
def test_the_batch_topk_threshold_is_right_after_short_training_too(n_iterations):
    result = trainer(n_iterations=n_iterations).train()[f"{POINT}-batch_topk"]
    l0 = float((result.best.encode(WORLD.batch(99, 4000)) > 0).sum(dim=-1).float().mean())
    assert l0 == pytest.approx(3, rel=0.05)


def test_jumprelu_thresholds_learn_each_its_own_and_l0_nears_its_target():
    run = trainer(("jumprelu",), n_iterations=600)
    start = run._learners[f"{POINT}-jumprelu"]._sae.threshold.detach().clone()
    result = run.train()[f"{POINT}-jumprelu"]
    end = run._learners[f"{POINT}-jumprelu"]._sae.threshold.detach()
    assert float((end - start).abs().median()) > 0.05
    assert float(end.std()) > 0.01
    l0 = float((result.last.encode(WORLD.batch(99, 4000)) > 0).sum(dim=-1).float().mean())
    assert l0 == pytest.approx(3, rel=0.2)


def test_a_wide_jumprelu_is_not_left_behind_by_its_encoder():
    config = build(
        SAES.load("jumprelu").config_type, {"d_model": 24, "d_sae": 384, "target_l0": 12}
    )
    variant = SAEVariant("wide", POINT, "jumprelu", config, 0)
    rows = {POINT: Rows(WORLD.batch(0, 2048), WORLD.batch(10_000, 1024))}
    run = SAETrainer([variant], Batches(256), rows, TrainingConfig(batch_size=256), 60)
    run.train()
    # Without a scaled start l0 fell to a sixth of its target within the first ten steps.
    assert min(run.curves["wide"]["l0"]) > 6
    assert run.curves["wide"]["fvu"][-1] < 0.3


def test_auxk_revives_dead_latents():
    def dead(coefficient):
        run = trainer(n_iterations=400, auxk_coefficient=coefficient, auxk_every=1, dead_after=2048)
        learner = run._learners[f"{POINT}-batch_topk"]
        with torch.no_grad():
            learner._sae.b_enc[:24] -= 3
        run.train()
        return run.curves[f"{POINT}-batch_topk"]["dead_fraction"][-1]

    assert dead(0.0) >= 0.5
    assert dead(1 / 32) < 0.5


def test_the_best_weights_are_those_with_the_lowest_validation_loss():
    run = trainer(n_iterations=100)
    result = run.train()[f"{POINT}-batch_topk"]
    curve = run.curves[f"{POINT}-batch_topk"]
    lowest = min(range(len(curve["loss"])), key=curve["loss"].__getitem__)
    assert result.best_step == curve["step"][lowest]
    assert result.best_loss == curve["loss"][lowest]


@pytest.mark.parametrize("name", ["relu", "jumprelu"])
def test_weights_from_before_the_penalty_warmed_up_are_not_the_best(name):
    learner = trainer([name])._learners[f"{POINT}-{name}"]
    # The same weights are as good, or bad, at whatever moment they are looked at.
    assert learner.validate(0)["loss"] == learner.validate(29)["loss"]
    assert learner.validate(0)["loss"] > learner.validate(0)["fvu"]


def test_b_dec_starts_at_the_geometric_median():
    points = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [100.0, 100.0]])
    median = geometric_median(points)
    cost = (points - median).norm(dim=-1).sum()
    for step in torch.randn(50, 2, generator=torch.Generator().manual_seed(0)) * 0.05:
        assert (points - median - step).norm(dim=-1).sum() >= cost - 1e-6
    start = trainer()._learners[f"{POINT}-batch_topk"]
    torch.testing.assert_close(
        start._sae.b_dec.detach() / start._scale, geometric_median(WORLD.batch(0, 2048))
    )


def test_saes_of_other_layers_and_architectures_begin_elsewhere():
    learners = trainer(["batch_topk", "topk"], points=(POINT, OTHER))._learners
    rows = torch.stack([one._sae.W_dec[0].detach() for one in learners.values()])
    assert (rows @ rows.T).fill_diagonal_(0).abs().max() < 0.9
    again = trainer(["topk"])._learners[f"{POINT}-topk"]
    assert torch.equal(again._sae.W_dec, learners[f"{POINT}-topk"]._sae.W_dec)


@pytest.mark.parametrize("start", ["mean", "zero"])
def test_b_dec_starts_where_it_is_told_to_in_the_same_units(start):
    rows = WORLD.batch(0, 2048)
    usual, other = (
        trainer(start=one)._learners[f"{POINT}-batch_topk"] for one in ("geometric_median", start)
    )
    assert other._scale == usual._scale
    expected = rows.mean(dim=0) if start == "mean" else torch.zeros(rows.shape[1])
    torch.testing.assert_close(other._sae.b_dec.detach() / other._scale, expected)


def test_activations_that_do_not_vary_are_refused():
    config = TrainingConfig()
    kind = SAES.load("topk")
    own = build(kind.config_type, {"d_model": 24, "d_sae": 48, "k": 3})
    constant = torch.ones(100, 24)
    for rows in (constant, constant * float("nan")):
        with pytest.raises(NumericsError, match=r"0\.resid_post"):
            SAETrainer(
                [SAEVariant("a", POINT, "topk", own, 0)],
                Batches(256),
                {POINT: Rows(rows, rows)},
                config,
                10,
            )


def test_metrics_and_progress_reach_the_sink():
    class Recorder(Sink):
        def __init__(self):
            self.steps, self.done = [], []

        def metrics(self, step, values):
            self.steps.append((step, set(values)))

        def progress(self, done, total, unit="items"):
            self.done.append((done, total))

    recorder = Recorder()
    trainer(n_iterations=25).train(recorder)
    names = {f"{POINT}-batch_topk/{n}" for n in ("loss", "fvu", "l0", "dead_fraction")}
    assert recorder.steps == [(10, names), (20, names), (25, names)]
    assert recorder.done[-1] == (25, 25)
