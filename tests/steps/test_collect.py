"""What is collected is what scipy says of the same rows, however it was cut into shards."""

import numpy as np
import polars as pl
import pytest
import torch
from collected_runs import collected, spec
from polars.testing import assert_frame_equal
from scipy.sparse import csr_array
from scipy.stats import binom, pearsonr

from fluoroscope.core.errors import ConfigError, RunError
from fluoroscope.core.storage import write_parquet
from fluoroscope.features.correlation_outcomes import Outcomes
from fluoroscope.features.reply_latents import ReplyLatents, load_dense, load_rows
from fluoroscope.sae.topk import TopK, TopKConfig
from fluoroscope.steps.collect import LATENTS, REPLIES, Collected, check_varies
from fluoroscope.steps.replies_table import SCHEMA, replies_of
from fluoroscope.steps.sae_sources import SAEChoice
from fluoroscope.steps.subject import Subject
from fluoroscope.steps.task_data import TASKS
from fluoroscope.steps.task_spec import CollectSpec

POINTS = ["2.resid_post", "3.resid_post"]
POOLS = ("max", "mean", "last")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return collected(tmp_path_factory.mktemp("collect"))


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    return collected(tmp_path_factory.mktemp("shards"), collect={"samples_per_shard": 7})


def dense_rows(run, point, pool):
    shards = sorted((run.step_folder("collect") / "shards").iterdir())
    width = dict(zip(POINTS, run.config.widths, strict=True))[point]
    rows = [load_rows(shard / LATENTS, point, pool, width) for shard in shards]
    return np.concatenate([part.toarray() for part in rows])


def table(run, pool):
    return pl.read_parquet(run.step_folder("collect") / f"latents-{pool}.parquet")


def scores_of(run):
    return pl.read_parquet(run.step_folder("collect") / REPLIES)["score"].to_numpy()


@pytest.mark.parametrize("pool", POOLS)
def test_r_is_that_of_scipy(run, pool):
    y, n_varying = scores_of(run), 0
    for point in POINTS:
        found = table(run, pool).filter(pl.col("hook_point") == point).sort("latent")
        rows = dense_rows(run, point, pool)
        varies = np.ptp(rows, axis=0) > 0
        for latent in np.flatnonzero(varies):
            assert found["r"][int(latent)] == pytest.approx(
                pearsonr(rows[:, latent], y).statistic, abs=1e-9
            )
        assert found["n_active"].to_list() == (rows != 0).sum(axis=0).tolist()
        n_varying += varies.sum()
    assert n_varying > 50


def test_pools_are_in_order_of_size(run):
    for point in POINTS:
        most, mean, last = (dense_rows(run, point, pool) for pool in POOLS)
        assert (most >= mean - 1e-5).all()
        assert (most >= last - 1e-5).all()
        assert (most > mean + 1e-3).any()


def test_the_cut_into_shards_changes_nothing_but_rounding(run, sharded):
    folders = [one.step_folder("collect") for one in (run, sharded)]
    n_shards = -(-len(scores_of(run)) // 7)
    assert [len(list((folder / "shards").iterdir())) for folder in folders] == [1, n_shards]
    replies = [pl.read_parquet(folder / REPLIES) for folder in folders]
    assert_frame_equal(*replies, check_exact=False, abs_tol=1e-4)
    for pool in POOLS:
        ours, theirs = (
            table(one, pool).select("hook_point", "latent", "r", "n_active", "frequency")
            for one in (run, sharded)
        )
        assert_frame_equal(ours, theirs, check_exact=False, abs_tol=1e-4)


def test_the_first_samples_alone_are_what_a_smaller_collection_would_have(run):
    config = run.config
    found = Collected(run.step_folder("collect"), config, config.collect, config.seed)
    part = found.table("max", 20)
    y = scores_of(run)[:20]
    assert len(found.outcomes(20)) == 20
    for point in POINTS:
        own = part.filter(pl.col("hook_point") == point).sort("latent")
        rows = dense_rows(run, point, "max")[:20]
        for latent in np.flatnonzero(np.ptp(rows, axis=0) > 0)[:20]:
            assert own["r"][int(latent)] == pytest.approx(
                pearsonr(rows[:, latent], y).statistic, abs=1e-9
            )
    assert found.dense(POINTS[0], 20).shape[0] == 20


def test_dense_activations_are_kept_row_by_row(run, sharded):
    def of(one):
        shards = sorted((one.step_folder("collect") / "shards").iterdir())
        return np.concatenate([load_dense(shard / LATENTS, POINTS[0]) for shard in shards])

    np.testing.assert_allclose(of(run), of(sharded), rtol=0, atol=1e-4)
    assert len(of(run)) == len(scores_of(run))


def test_only_the_training_side_is_collected(run):
    frame = pl.read_parquet(run.step_folder("collect") / REPLIES)
    task = TASKS.load("organism-bias").read(None, seed=0)
    side = {sample.id: sample.split for sample in task.items}
    assert {side[name] for name in frame["id"]} == {"train"}
    others = {sample.group_id for sample in task.items if sample.split != "train"}
    assert not others & set(frame["group"])
    assert len(replies_of(frame)) == len(frame) <= 60


def test_a_pool_that_was_not_collected_is_named(run):
    config = run.config
    collect = CollectSpec(pools=["max"])
    found = Collected(run.step_folder("collect"), config, collect, config.seed)
    with pytest.raises(ConfigError, match=r"pooled by mean were not collected.*collect.pools"):
        found.table("mean")


def test_an_outcome_that_never_varies_is_refused_with_what_to_do(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"score on some-task is 1 in all 5 training samples"):
        check_varies("some-task", np.ones(5))
    from fluoroscope.data.tasks.samples import Score
    from fluoroscope.data.tasks.scorers import ReplyPairScorer

    monkeypatch.setattr(
        ReplyPairScorer, "score_text", lambda *_: Score(1.0, True, "whatever is said")
    )
    with pytest.raises((ConfigError, RunError), match=r"organism-bias is 1 in all .*task\.way"):
        collected(tmp_path)


def made_up(folder, n_groups=60, of_each=4, d_sae=60):
    """Two shards of latents that groups have in common, at two hook points."""
    random = np.random.default_rng(1)
    n = n_groups * of_each
    saes = {p: TopK(TopKConfig(d_model=4, d_sae=d_sae, k=2), seed=0) for p in POINTS}
    group = np.repeat(np.arange(n_groups), of_each)
    rows = {}
    for point in POINTS:
        is_on = random.random((n_groups, d_sae)) < random.uniform(0.1, 0.6, d_sae)
        rows[point] = is_on[group] * random.gamma(1.5, size=(n, d_sae)).astype(np.float32)
    for shard, places in enumerate(np.array_split(np.arange(n), 2)):
        latents = ReplyLatents(saes, ["max"], len(places))
        for i, place in enumerate(places):
            seen = {f"{p} max": torch.from_numpy(x[place]) for p, x in rows.items()}
            latents.add(i, seen | {f"{p} dense": torch.zeros(4) for p in POINTS})
        (folder / "shards" / str(shard)).mkdir(parents=True)
        latents.save(folder / "shards" / str(shard) / LATENTS)
    y = (random.random(n_groups) < 0.4).astype(float)[group]
    frame = pl.DataFrame(
        {"id": [str(i) for i in range(n)], "group": [f"g{g}" for g in group], "score": y},
    )
    missing = {name: pl.lit(None, dtype=kind) for name, kind in SCHEMA.items()}
    frame = frame.with_columns(**{k: v for k, v in missing.items() if k not in frame.columns})
    write_parquet(folder / REPLIES, frame)
    choices = [SAEChoice.model_construct(hook_point=p, d_sae=d_sae) for p in POINTS]
    return Subject.model_construct(saes=choices, train=None), group, y


def test_on_shuffled_outcomes_latents_are_called_significant_at_the_nominal_rate(tmp_path):
    """Whole groups change outcomes, which single rows would make hundreds of discoveries of."""
    subject, group, y = made_up(tmp_path)
    collect = CollectSpec(shuffles=20, resamples=1)
    found = Collected(tmp_path, subject, collect, 0)
    of_group = y[:: len(y) // (group.max() + 1)]
    n_draws, n_any, small = 40, 0, []
    for draw in range(n_draws):
        shuffled = np.random.default_rng(draw).permutation(of_group)[group]
        outcomes = Outcomes(shuffled, group, 0.5, n_shuffles=100, n_resamples=0, seed=draw)
        described = found.described(found.moments("max", outcomes=outcomes)).filter("is_tested")
        assert len(described) > 100
        n_any += bool(described["is_significant"].any())
        small.append((described["p"].to_numpy() < 0.05).mean())
    assert n_any <= binom.ppf(0.999, n_draws, 0.05)
    assert 0.025 < np.mean(small) < 0.075


def test_a_latent_that_goes_along_is_found_among_them(tmp_path):
    subject, _, y = made_up(tmp_path)
    found = Collected(tmp_path, subject, CollectSpec(shuffles=100, resamples=1), 0)
    rows = load_rows(tmp_path / "shards" / "0" / LATENTS, POINTS[0], "max", 60)
    planted = csr_array(np.outer(y[: rows.shape[0]], np.eye(60)[7]))
    moments = found.moments("max")
    assert not found.described(moments)["is_significant"].any()
    from fluoroscope.features.correlation import OutcomeMoments

    other = OutcomeMoments(60, found.outcomes())
    other.add(np.arange(rows.shape[0]), rows + planted * 5)
    described = found.described({POINTS[0]: other})
    assert described.filter("is_significant")["latent"].to_list() == [7]


def test_what_is_asked_of_a_pool_is_checked_before_anything_is_collected():
    from fluoroscope.studies.steering.study import SteeringStudy

    with pytest.raises(ConfigError, match=r"needs latents pooled by mean.*collect.pools"):
        SteeringStudy().resolve(spec(steer={"pool": "mean"}, collect={"pools": ["max"]}))
