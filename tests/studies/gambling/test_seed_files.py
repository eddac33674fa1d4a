"""Features and results in the seed's forms: the numbers, the names, and what is refused."""

import json

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal
from scipy.sparse import csr_array
from scipy.stats import ttest_ind

from fluoroscope.core.errors import ConfigError, CorpusError, MismatchError
from fluoroscope.steps.sae_sources import SAEChoice
from fluoroscope.studies.gambling.seed_files.features import (
    FEATURES_SCHEMA,
    features_json,
    import_features,
    rescaled,
)
from fluoroscope.studies.gambling.seed_files.patching import (
    BASELINE,
    TO_BANKRUPT,
    TO_SAFE,
    bet_statistics,
    patching_json,
    seed_trials,
)
from fluoroscope.studies.gambling.seed_files.words_and_paths import pathway_json, word_json
from fluoroscope.studies.gambling.seed_files.writing import (
    features_name,
    patching_name,
    write_seed_files,
)

D_MODEL, D_SAE = 64, 512
STATISTICS = {"safe_mean", "baseline_mean", "bankrupt_mean", "safe_effect", "bankrupt_effect",
              "p_safe", "p_bankrupt"}  # fmt: skip


def sae(layer, **changes):
    point, content = f"{layer}.resid_post", {"weights_sha256": f"{layer:064d}"}
    return SAEChoice(
        **{"hook_point": point, "d_model": D_MODEL, "d_sae": D_SAE, **content, **changes}
    )


def feature(index, **changes):
    return {
        "feature_idx": index,
        "cohen_d": 0.567,
        "p_value": 0.001,
        "bankrupt_mean": 1.23,
        "safe_mean": 0.45,
        "bankrupt_std": 0.12,
        "safe_std": 0.08,
        **changes,
    }


def seed_file(folder, layers, **header):
    results = {str(layer): {"significant_features": list(own)} for layer, own in layers.items()}
    path = folder / "L1_31_features_FINAL.json"
    path.write_text(json.dumps({**header, "layer_results": results}))
    return path


def contrast_table(points=("1.resid_post", "2.resid_post"), n=6, seed=0):
    random = np.random.default_rng(seed)
    size = n * len(points)
    return pl.DataFrame(
        {
            "hook_point": np.repeat(points, n),
            "latent": np.concatenate([random.permutation(D_SAE)[:n] for _ in points]),
            "cohen_d": random.normal(size=size),
            "p_welch": random.random(size),
            "q_welch": random.random(size),
            "mean_in": random.random(size),
            "mean_out": random.random(size),
            "std_in": random.random(size),
            "std_out": random.random(size),
        }
    )


def written(folder, content):
    return write_seed_files(folder, {"features.json": json.loads(json.dumps(content))})[0]


def test_features_of_the_seed_have_its_fields_and_the_largest_d_first():
    found = contrast_table().with_columns(
        q_welch=pl.when(pl.col("cohen_d") > 0).then(pl.col("q_welch")).otherwise(float("nan"))
    )
    content = features_json(found, [sae(1), sae(2)], "all")
    for layer in ("1", "2"):
        listed = content["layer_results"][layer]["significant_features"]
        assert set(listed[0]) == {*feature(0), "p_corrected"}
        sizes = [abs(one["cohen_d"]) for one in listed]
        assert sizes == sorted(sizes, reverse=True)
        assert all(one["p_corrected"] is None for one in listed if one["cohen_d"] < 0)
    first = found.row(0, named=True)
    own = next(
        one
        for one in content["layer_results"]["1"]["significant_features"]
        if one["feature_idx"] == first["latent"]
    )
    assert own["bankrupt_mean"] == first["mean_in"]
    assert own["safe_std"] == first["std_out"]
    assert own["p_value"] == first["p_welch"]


def test_features_come_back_as_they_went(tmp_path):
    saes = [sae(1), sae(2)]
    content = features_json(contrast_table(), saes, "all")
    found = import_features(written(tmp_path, content), saes)
    assert found.schema == pl.Schema(FEATURES_SCHEMA)
    again = features_json(found, saes, "all")
    assert again == content
    assert_frame_equal(import_features(written(tmp_path, again), saes), found)


def test_features_without_a_d_are_left_out():
    found = contrast_table().with_columns(
        cohen_d=pl.when(pl.col("hook_point") == "1.resid_post").then(float("nan")).otherwise(1.0)
    )
    content = features_json(found, [sae(1), sae(2)], "all")
    assert content["layer_results"]["1"]["significant_features"] == []
    assert content["total_significant_features"] == 6


def test_features_are_refused_for_another_sae_than_theirs(tmp_path):
    saes = [sae(1), sae(2)]
    path = written(tmp_path, features_json(contrast_table(), saes, "all"))
    for other in (sae(1, weights_sha256="f" * 64), sae(1, d_sae=1024)):
        with pytest.raises(MismatchError, match=r"features\.json at 1\.resid_post has"):
            import_features(path, [other])
    with pytest.raises(MismatchError, match="hidden_states' is wrong"):
        import_features(path, saes, "hidden_states")


def test_a_file_of_others_must_be_answered_for(tmp_path):
    path = seed_file(tmp_path, {3: [feature(400), feature(7)]})
    with pytest.raises(ConfigError, match="does not say what its layers count"):
        import_features(path, [sae(3)])
    found = import_features(path, [sae(3)], "block_output")
    assert found["hook_point"].to_list() == ["3.resid_post"] * 2
    assert found["latent"].to_list() == [400, 7]
    assert found["bankrupt_mean"].to_list() == [1.23, 1.23]
    assert found["p_corrected"].to_list() == [None, None]
    with pytest.raises(MismatchError, match=r"layers 3.*SAEs are of 9\.resid_post"):
        import_features(path, [sae(9)], "block_output")


@pytest.mark.parametrize(
    ("one", "said"),
    [
        ({"feature_idx": -1}, "feature_idx"),
        ({"feature_idx": 1.5}, "feature_idx"),
        ({"cohen_d": None}, "cohen_d must be a finite number"),
        ({"cohen_d": float("nan")}, "cohen_d must be a finite number"),
        ({"p_value": 2.0}, "p_value cannot be 2.0"),
        ({"safe_std": -0.1}, "safe_std cannot be -0.1"),
    ],
)
def test_a_feature_that_is_none_is_named(tmp_path, one, said):
    path = seed_file(tmp_path, {1: [feature(0), feature(1, **one)]})
    with pytest.raises(CorpusError, match=rf"significant_features\[1\]: {said}"):
        import_features(path, [sae(1)], "block_output")


def test_arrays_of_layers_are_read_as_the_json_is(tmp_path):
    table = contrast_table(("25.resid_post",))
    arrays = {
        "layer_25_indices": table["latent"].to_numpy(),
        "layer_25_cohen_d": table["cohen_d"].to_numpy(),
        "layer_25_p_values": table["p_welch"].to_numpy(),
        "layer_25_bankrupt_mean": table["mean_in"].to_numpy(),
        "layer_25_safe_mean": table["mean_out"].to_numpy(),
        "layer_25_bankrupt_std": table["std_in"].to_numpy(),
        "layer_25_safe_std": table["std_out"].to_numpy(),
    }
    np.savez(tmp_path / "features.npz", **arrays)
    found = import_features(tmp_path / "features.npz", [sae(25)], "block_output")
    assert found["latent"].to_list() == table["latent"].to_list()
    assert found["p_value"].to_list() == table["p_welch"].to_list()
    assert found["safe_mean"].to_list() == table["mean_out"].to_list()


def test_pickled_arrays_are_not_read(tmp_path):
    np.savez(tmp_path / "features.npz", layer_25_indices=np.array([{"a": 1}], dtype=object))
    with pytest.raises(CorpusError, match="Pickled objects are not read"):
        import_features(tmp_path / "features.npz", [sae(25)], "block_output")
    (tmp_path / "other.npz").write_text("no archive")
    with pytest.raises(CorpusError, match="cannot be read"):
        import_features(tmp_path / "other.npz", [sae(25)], "block_output")


def test_means_of_another_loader_are_brought_to_our_units(tmp_path):
    path = seed_file(tmp_path, {1: [feature(3), feature(500)]})
    found = import_features(path, [sae(1)], "block_output")
    scales = np.ones(D_SAE)
    scales[500] = 2.5
    scaled = rescaled(found, {"1.resid_post": scales})
    assert scaled["bankrupt_mean"].to_list() == [1.23, 1.23 * 2.5]
    assert scaled["safe_std"].to_list() == [0.08, 0.08 * 2.5]
    assert scaled["cohen_d"].to_list() == found["cohen_d"].to_list()


def trials(safe, baseline, bankrupt, point="1.resid_post", latent=5):
    rows = []
    for condition, bets in ((TO_SAFE, safe), (BASELINE, baseline), (TO_BANKRUPT, bankrupt)):
        is_base = condition == BASELINE
        own = (None, None) if is_base else (point, latent)
        rows += [(*own, condition, "000", i, bet, "...") for i, bet in enumerate(bets)]
    texts = dict.fromkeys(("hook_point", "condition", "prompt", "response"), pl.String)
    names = ("hook_point", "latent", "condition", "prompt", "trial", "bet", "response")
    schema = {name: texts.get(name, pl.Int64) for name in names}
    return pl.DataFrame(rows, schema=schema, orient="row")


def test_bet_statistics_are_those_of_the_seeds_code():
    safe, baseline, bankrupt = [0, 10, 0, 20], [10, 10, 30, 0, 5], [100, 30, 0]
    found = bet_statistics(trials(safe, baseline, bankrupt))
    assert found["safe_mean"] == 7.5
    assert found["safe_effect"] == 7.5 - 11
    assert found["bankrupt_effect"] == pytest.approx(130 / 3 - 11)
    assert found["p_safe"] == pytest.approx(ttest_ind(safe, baseline).pvalue)
    assert found["p_bankrupt"] == pytest.approx(ttest_ind(bankrupt, baseline).pvalue)
    assert [found[f"n_{name}"] for name in ("safe", "baseline", "bankrupt")] == [4, 5, 3]


def test_a_text_that_could_not_be_read_is_no_bet_and_no_stop():
    found = bet_statistics(trials([10, None, 20], [10, 0], [5, 0]))
    assert (found["safe_mean"], found["n_safe"], found["n_unread"]) == (15.0, 2, 1)


def test_a_test_of_what_does_not_vary_has_no_p():
    found = bet_statistics(trials([10, 10], [10, 10], []))
    assert (found["p_safe"], found["bankrupt_mean"], found["p_bankrupt"]) == (None, None, None)


def test_replies_are_the_trials_of_the_seed():
    replies = pl.DataFrame(
        {
            "kind": ["baseline", "set", "set", "random_latent", "set"],
            "condition": ["baseline", "safe_mean", "bankrupt_mean", "safe_mean", "safe_mean"],
            "hook_point": [None, "1.resid_post", "1.resid_post", "1.resid_post", "1.resid_post"],
            "latent": [None, 5, 5, 5, 5],
            "prompt": ["000"] * 5,
            "trial": [0, 0, 0, 0, 1],
            "text": ["a", "b", "c", "d", "e"],
            "is_read": [True, True, True, True, False],
            "is_stop": [True, False, False, False, False],
            "bet": [0, 10, 30, 40, None],
        }
    )
    found = seed_trials(replies)
    assert found["condition"].to_list() == [BASELINE, TO_SAFE, TO_BANKRUPT, TO_SAFE]
    assert found["bet"].to_list() == [0, 10, 30, None]
    assert found["response"].to_list() == ["a", "b", "c", "e"]


def test_patching_has_the_seeds_statistics_beside_the_verdict():
    causal = contrast_table(("1.resid_post",), n=2).with_columns(
        latent=pl.Series([5, 6]),
        is_causal=pl.Series([True, False]),
        effect=pl.Series([0.2, float("nan")]),
    )
    curves = pl.DataFrame(
        {"hook_point": ["1.resid_post"] * 2, "latent": [5, 5], "dose": [0, 1], "effect": [0.1, 0.2]}
    )
    content = patching_json(causal, curves, trials([0, 10], [10, 20], [30, 20]), [sae(1), sae(2)])
    sampled, other = content["results"]
    assert sampled["feature"]["feature"] == "L1-5"
    assert (sampled["feature"]["layer"], sampled["feature"]["feature_id"]) == (1, 5)
    assert set(sampled["statistics"]) >= STATISTICS
    assert len(sampled["results"]) == 6
    assert sampled["verdict"] == {"effect": 0.2, "is_causal": True}
    assert sampled["dose_response"] == [{"dose": 0, "effect": 0.1}, {"dose": 1, "effect": 0.2}]
    # The other was screened, and not sampled.
    assert (other["results"], other["statistics"]["p_safe"]) == ([], None)
    assert other["verdict"] == {"effect": None, "is_causal": False}
    assert list(content["provenance"]["saes"]) == ["1.resid_post"]
    json.dumps(content, allow_nan=False)


def test_trials_that_lack_a_column_are_refused():
    with pytest.raises(ConfigError, match="bet is not there"):
        patching_json(contrast_table(), pl.DataFrame(), trials([], [], []).drop("bet"), [])


def test_words_stand_on_the_side_on_which_they_are_said_more():
    observed = pl.DataFrame(
        {
            "hook_point": ["1.resid_post"] * 4,
            "latent": [5] * 4,
            "word": ["chase", "stop", "win", "rare"],
            "texts_high": [40] * 4,
            "texts_low": [60] * 4,
            "rate_high": [0.6, 0.1, 0.7, 0.9],
            "rate_low": [0.2, 0.5, 0.2, 0.1],
            "difference": [0.4, -0.4, 0.5, 0.8],
            "q": [0.01, 0.01, 0.01, 0.2],
        }
    )
    causal = contrast_table(("1.resid_post",), n=2).with_columns(
        latent=pl.Series([5, 6]), cohen_d=pl.Series([1.0, -1.0]), is_causal=pl.Series([True, False])
    )
    first, second = word_json(observed, causal, [sae(1)])["results"]
    assert [one["word"] for one in first["high_activation_words"]] == ["win", "chase"]
    (low,) = first["low_activation_words"]
    assert low == {"word": "stop", "high_freq": 0.1, "low_freq": 0.5, "diff": 0.4, "q": 0.01}
    assert (first["type"], first["n_responses"], second["type"]) == ("risky", 100, "safe")
    assert (second["high_activation_words"], second["n_responses"]) == ([], None)


def test_a_pathway_has_the_largest_latents_of_each_decision():
    games = pl.DataFrame(
        {"arm": ["baseline"] * 2, "game": ["g1", "g2"], "condition": ["fixed-G"] * 2,
         "repetition": [0, 1], "outcome": ["voluntary_stop", "bankruptcy"], "n_bets": [1, 9],
         "final_balance": [90, 0], "bet_type": ["fixed"] * 2, "components": ["G"] * 2}
    )  # fmt: skip
    states = pl.DataFrame(
        {"arm": ["baseline"] * 2, "game": ["g1"] * 2, "decision": [2, 1], "round": [2, 1],
         "balance": [90, 100], "action": ["stop", "bet"], "amount": [0, 10], "row": [1, 0]}
    )  # fmt: skip
    dense = np.zeros((2, D_SAE), np.float32)
    dense[0, [3, 9, 500]] = [1.0, 4.0, 2.0]
    content = pathway_json(states, games, {"1.resid_post": csr_array(dense)}, [sae(1)], top=2)
    # The second game was not recorded.
    (game,) = content["games"]
    assert (game["outcome"], game["final_balance"], game["total_rounds"]) == (
        "voluntary_stop",
        90,
        1,
    )
    first, second = game["rounds"]
    assert first["decision"] == {"action": "bet", "bet": 10, "valid": True}
    assert first["features"] == {"L1": {"indices": [9, 500], "values": [4.0, 2.0]}}
    assert second["features"] == {"L1": {"indices": [], "values": []}}


def test_files_have_the_names_of_the_seed(tmp_path):
    assert patching_name("2") == "multilayer_final_gpu2.json"
    assert patching_name("2,4") == "multilayer_final_gpu2_4.json"
    assert features_name(1, 31) == "L1_31_features_FINAL.json"
    with pytest.raises(ConfigError, match="gpu_id is a number"):
        patching_name("two")
    (path,) = write_seed_files(tmp_path / "out", {patching_name("7"): {"results": []}})
    assert json.loads(path.read_text()) == {"results": []}
    with pytest.raises(ConfigError, match="no name of a file"):
        write_seed_files(tmp_path, {"../up.json": {}})


def test_what_has_no_layer_in_the_seeds_numbering_is_refused():
    with pytest.raises(ConfigError, match="resid_post"):
        features_json(contrast_table(("1.mlp_out",)), [sae(1, hook_point="1.mlp_out")], "all")
