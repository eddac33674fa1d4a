"""The table of scores, and what each method takes of it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from planted_layers import Twist, planted_features

from fluoroscope.core.errors import ConfigError, NumericsError
from fluoroscope.studies.plugin.selection.gradient_fit import (
    Fitting,
    GradientFitConfig,
    gradient_fit,
)
from fluoroscope.studies.plugin.selection.ilm import ilm_scores
from fluoroscope.studies.plugin.selection.ilm_config import IlmConfig
from fluoroscope.studies.plugin.selection.methods import (
    COLUMNS,
    METHODS,
    LayerScores,
    choose_layer,
    score_table,
    selection_record,
)
from fluoroscope.studies.plugin.selection.plug_side import plug_scores
from fluoroscope.studies.plugin.selection.transferability import text_scores

BEST = 3


@pytest.fixture(scope="module")
def scores() -> LayerScores:
    """All methods on four layers, of which the last is known to be the best, as texts are read
    and as a layer is plugged in."""
    features = planted_features(BEST, n_layers=4)
    config = IlmConfig(depth_bias=0)
    random = torch.Generator().manual_seed(0)
    pooled = torch.randn(240, 5, generator=random)
    along = pooled.square().sum(dim=1)
    labels = (along > along.median()).long().numpy()

    class Lengths(Twist):
        """Writes how long a vector is where others write what is in it already."""

        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.strength * x.norm(dim=-1, keepdim=True) * self.out

    out = torch.ones(8)
    layers = [Lengths(out, out, 3.0 if layer == BEST else 0.0) for layer in range(4)]
    fitting = Fitting(pooled[:160], labels[:160], pooled[160:], labels[160:])
    fit = GradientFitConfig(n_steps=60, learning_rate=1e-2)
    return score_table(
        4,
        ilm=ilm_scores(features, config, 0),
        ilm_manual=ilm_scores(features, config, 0, style="manual"),
        text=text_scores(features),
        plug=plug_scores(pooled, labels, layers, np.ones(4), 8, 0),
        gradient=gradient_fit(fitting, layers, 8, 0, fit),
        method="loo",
    )


@pytest.mark.parametrize("method", METHODS)
def test_every_method_finds_the_planted_layer(scores: LayerScores, method: str):
    assert choose_layer(scores, method) == BEST
    assert scores.by_method()[method].argmax() == BEST


def test_the_table_has_a_row_a_layer_and_all_columns(scores: LayerScores):
    assert scores.table.columns == ["layer", *COLUMNS, "rank"]
    assert scores.table["layer"].to_list() == [0, 1, 2, 3]
    assert scores.table["rank"][BEST] == 1
    assert sorted(scores.table["rank"].to_list()) == [1, 2, 3, 4]
    order = scores.table.sort("rank")["loo_nll"].to_list()
    assert order == sorted(order)


def test_a_table_survives_its_file_and_has_the_same_bytes_twice(
    scores: LayerScores, tmp_path: Path
):
    scores.write(tmp_path / "one.csv")
    again = LayerScores.read(tmp_path / "one.csv")
    again.write(tmp_path / "two.csv")
    assert again.table.equals(scores.table)
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "two.csv").read_bytes()
    assert again.sha256 == scores.sha256


def test_layers_that_were_not_scored_survive_too_and_are_never_taken(tmp_path: Path):
    features = planted_features(1, n_layers=4)
    config = IlmConfig(layer_stride=2)
    manual = ilm_scores(features, config, 0, style="manual")
    table = score_table(4, ilm_manual=manual, method="ilm_manual")
    table.write(tmp_path / "scores.csv")
    again = LayerScores.read(tmp_path / "scores.csv")
    assert again.methods == ("ilm_manual",)
    assert again.by_method()["ilm_manual"][1] == -np.inf
    assert again.table["rank"].to_list().count(None) == 2
    assert choose_layer(again, "ilm_manual") in (0, 2)


def test_last_and_middle_need_no_scores_and_others_are_never_guessed():
    empty = score_table(24)
    assert choose_layer(empty, "last") == 23
    assert choose_layer(empty, "middle") == 12
    with pytest.raises(ConfigError, match="not scored by ilm; there are scores of none"):
        choose_layer(empty, "ilm")
    with pytest.raises(ConfigError, match="decided by trainings"):
        choose_layer(empty, "halving")
    with pytest.raises(ConfigError, match="Did you mean 'logme'"):
        choose_layer(empty, "logm")


def test_scores_that_are_infinite_alone_choose_nothing():
    text = text_scores(planted_features(1, n_layers=2))
    nothing = text._replace(variability=np.full(2, -np.inf))
    with pytest.raises(NumericsError, match="none is taken unseen"):
        choose_layer(score_table(2, text=nothing), "variability")


def test_scores_of_another_number_of_layers_are_refused():
    with pytest.raises(ConfigError, match="has 2 layers, not 3"):
        score_table(3, text=text_scores(planted_features(1, n_layers=2)))


def test_the_record_has_the_keys_of_the_seed_and_no_time(scores: LayerScores):
    names = {"task": "classification", "dataset": "sst2", "slm_type": "bert", "llm_type": "x"}
    record = selection_record(scores, "loo", BEST, IlmConfig(), 2023, **names)
    seed_keys = {*names, "n_samples", "n_pcs", "top_pc", "seed", "effects", "best_llm_layer"}
    assert seed_keys <= set(record)
    assert "timestamp" not in record
    assert record["best_llm_layer"] == BEST
    np.testing.assert_allclose(record["effects"], -scores.table["loo_nll"].to_numpy())
    assert json.loads(json.dumps(record)) == record
