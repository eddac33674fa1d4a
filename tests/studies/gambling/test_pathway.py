"""The pathway: probes, lens, what goes together and what moves what, each against its control."""

import math

import numpy as np
import polars as pl
import pytest
import torch
from scipy.stats import pearsonr
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from fluoroscope.activations.last_positions import last_activations
from fluoroscope.core.seeding import torch_stream
from fluoroscope.interventions.positions import LAST
from fluoroscope.interventions.steering import steer
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.sampling import Sampling
from fluoroscope.models.tiny import tiny_model
from fluoroscope.sae.jumprelu import JumpReLU, JumpReLUConfig
from fluoroscope.sae.latent_edits import SetLatent
from fluoroscope.studies.gambling.decision_screen import DecisionScreen, Situation
from fluoroscope.studies.gambling.pathway import (
    CHOSEN,
    chosen_latents,
    exchange_strata,
    exchanged,
    followed_decisions,
)
from fluoroscope.studies.gambling.pathway_edges import (
    CORRELATIONS,
    EDGES,
    Moved,
    correlations,
    edge_table,
    node_table,
    path_table,
)
from fluoroscope.studies.gambling.pathway_lens import Lens, Openings, first_tokens, lens_table
from fluoroscope.studies.gambling.pathway_probes import (
    STRENGTH,
    Decisions,
    GameWins,
    auroc_interval,
    game_folds,
    out_of_fold,
    probe_table,
)
from fluoroscope.studies.gambling.pathway_reading import moved, places, random_directions

PROMPT = "Balance 90. Choice:"


def states(n_games=40, n_conditions=4, n_decisions=3):
    rows = [
        {
            "game": f"g{game:03d}",
            "condition": f"c{game % n_conditions}",
            "bet_type": f"b{game % 2}",
            "decision": decision,
            "action": "stop" if decision == n_decisions - 1 else "bet",
            "is_discovery": game >= n_games // 2,
        }
        for game in range(n_games)
        for decision in range(n_decisions)
    ]
    return pl.DataFrame(rows)


def test_no_game_that_latents_were_chosen_on_is_followed():
    found = followed_decisions(states(), 100, 0)
    assert not found["is_discovery"].any()
    assert found["game"].n_unique() == 20
    assert found.group_by("game").len()["len"].unique().to_list() == [3]


def test_every_condition_is_followed_before_one_is_followed_twice():
    few = followed_decisions(states(), 4, 0)
    assert few["condition"].n_unique() == few["game"].n_unique() == 4
    more = followed_decisions(states(), 9, 0)
    assert set(few["game"]) < set(more["game"])


def test_decisions_that_could_not_be_read_are_not_followed():
    mumbled = states().with_columns(pl.lit(None, pl.String).alias("action"))
    assert len(followed_decisions(mumbled, 10, 0)) == 0


def test_rows_are_exchanged_within_their_stratum_only():
    strata = np.array([2, 0, 1, 0, 2, 2, 1, 0, 0, 2])
    order = exchanged(strata, 0, "x", 1)
    assert sorted(order) == list(range(10))
    np.testing.assert_array_equal(strata[order], strata)
    assert any((exchanged(strata, 0, "x", i) != order).any() for i in range(5))


def test_strata_are_conditions_only_where_these_have_several_games():
    assert exchange_strata(states(40, 4), ["bet_type"])[0] == "condition"
    assert exchange_strata(states(40, 20), ["bet_type"])[0] == "bet_type"
    assert exchange_strata(states(4, 4), ["bet_type"])[0] == "all games"


def contrast_rows(**changes):
    row = {
        "hook_point": "0.resid_post", "latent": 3, "n_in": 1, "n_out": 3, "mean_in": 4.0,
        "mean_out": 1.0, "std_in": 0.0, "std_out": 2.0, "cohen_d": 1.5, "is_tested": True,
    }  # fmt: skip
    return pl.DataFrame([{**row, **changes}])


def test_a_latent_is_set_to_the_means_of_stops_and_bets_whichever_contrast_it_is_of():
    of_decisions = chosen_latents(contrast_rows(), 5, "cohen_d", is_decision=True)
    assert of_decisions.select("stop_mean", "bet_mean", "d").row(0) == (4.0, 1.0, 1.5)
    of_games = chosen_latents(contrast_rows(), 5, "cohen_d", is_decision=False)
    # Bankrupt games (in) are those of the many bets.
    assert of_games.select("stop_mean", "bet_mean", "d").row(0) == (1.0, 4.0, -1.5)


def test_the_standard_deviation_of_a_latent_is_over_all_rows():
    rows = [4.0, 1 - 6**0.5, 1.0, 1 + 6**0.5]  # In: 4; out: mean 1, standard deviation 2.
    chosen = chosen_latents(contrast_rows(), 5, "cohen_d", is_decision=True)
    assert chosen["sd"][0] == pytest.approx(np.std(rows))


def test_nothing_is_chosen_of_an_empty_contrast():
    nothing = pl.DataFrame(schema={"hook_point": pl.String, "cohen_d": pl.Float64})
    assert len(chosen_latents(nothing, 5, "cohen_d", is_decision=True)) == 0


def decisions(n_games=60, size=4, seed=0, strata=1):
    luck = np.random.default_rng(seed)
    game = np.repeat(np.arange(n_games), size)
    is_stop = luck.random(len(game)) < 0.4
    return Decisions(is_stop, game, game % strata, "condition")


def test_folds_never_split_a_game():
    game = np.random.default_rng(0).integers(40, size=300)
    fold = game_folds(game)
    assert set(fold) == {0, 1, 2, 3, 4}
    assert all(len(set(fold[game == one])) == 1 for one in range(40))


@pytest.mark.parametrize("width", [6, 90])
def test_a_probe_is_a_ridge_logistic_regression_on_the_other_folds(width):
    x = np.random.default_rng(0).normal(3, 2, size=(50, width))
    labels, fold = x[:, :1].T > 3, np.arange(50) % 5
    found = out_of_fold(x, labels, fold)[0]
    scaler = StandardScaler().fit(x[fold != 2])
    model = LogisticRegression(C=STRENGTH, tol=1e-10, max_iter=9999)
    model.fit(scaler.transform(x[fold != 2]) / width**0.5, labels[0][fold != 2])
    expected = model.decision_function(scaler.transform(x[fold == 2]) / width**0.5)
    np.testing.assert_allclose(found[fold == 2], expected, atol=5e-3)


def test_auroc_is_that_of_sklearn_and_counts_pairs_within_folds_only():
    luck = np.random.default_rng(0)
    scores, is_stop = luck.integers(5, size=80).astype(float), luck.random(80) < 0.4
    game, one_fold = np.arange(80) // 4, np.zeros(80, int)
    wins = GameWins.of(scores, is_stop, game, one_fold)
    assert wins.auroc(np.ones(20)) == pytest.approx(roc_auc_score(is_stop, scores))
    # Two folds whose scores have different zeros: 3 of the 4 pairs within them are won.
    scores = np.array([0.0, 1.0, 2.0, 10.0, 12.0, 11.0])
    is_stop = np.array([False, True, False, False, True, False])
    found = GameWins.of(scores, is_stop, np.zeros(6, int), np.array([0, 0, 0, 1, 1, 1]))
    assert found.auroc(np.ones(1)) == 0.75
    assert math.isnan(
        GameWins.of(scores, is_stop, np.zeros(6, int), np.arange(6)).auroc(np.ones(1))
    )


def test_an_auroc_of_one_decision_in_all_games_has_its_interval_over_games():
    found = auroc_interval(np.arange(40.0), np.arange(40) >= 20, np.arange(40) // 2, 0)
    assert found == (1.0, 1.0, 1.0)


def probed(x, given, shuffles=10):
    nothing = np.random.default_rng(9).normal(size=(len(x), 3))
    return probe_table(nothing, {"2.resid_post": lambda: x}, given, shuffles=shuffles, seed=0).row(
        1, named=True
    )


def test_a_probe_of_labels_that_activations_know_nothing_of_is_at_chance():
    given = decisions()
    row = probed(np.random.default_rng(5).normal(size=(len(given.game), 12)), given)
    assert row["auroc_low"] < 0.5 < row["auroc_high"]
    assert row["gain_low"] < 0 < row["gain_high"]
    assert (row["layer"], row["decisions"], row["games"]) == (2, 240, 60)


def test_a_probe_finds_a_planted_decision_and_not_its_shuffled_labels():
    given = decisions(strata=3)
    x = np.random.default_rng(5).normal(size=(len(given.game), 12))
    x[:, 4] += 3 * given.is_stop
    row = probed(x, given)
    assert row["auroc_low"] > 0.9
    assert row["gain_low"] > 0.2
    assert row["accuracy_low"] > row["majority"]
    assert abs(row["shuffled_auroc"] - 0.5) < 0.06
    assert row["shuffled_auroc_95"] < row["auroc_low"]


def test_a_probe_that_knows_each_game_gains_nothing_from_it():
    # Activations that name the game, and labels that are the same throughout it.
    game = np.repeat(np.arange(60), 4)
    is_stop = np.random.default_rng(1).random(60)[game] < 0.4
    names = np.random.default_rng(2).normal(size=(60, 80))[game]
    row = probed(names, Decisions(is_stop, game, np.zeros(240, int), "condition"))
    assert row["auroc_low"] < 0.5 < row["auroc_high"]


def test_one_kind_of_decision_has_no_probes():
    given = decisions()
    same = given._replace(is_stop=np.zeros_like(given.is_stop))
    table = probe_table(np.zeros((240, 1)), {"0.resid_post": pytest.fail}, same, shuffles=2, seed=0)
    assert len(table) == 0


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "opt", "falcon", "gpt_neox"])
def test_the_lens_at_the_last_layer_is_the_models_own_distribution(family):
    model = tiny_model(family)
    model.network.double()
    batch, seen = model.tokenize([PROMPT]), {}
    points = [HookPoint(layer, "resid_post") for layer in range(model.n_layers)]
    hooks = {point: lambda x, p=point: seen.update({p: x[:, -1].clone()}) for point in points}
    with torch.no_grad(), model.hooked(hooks):
        own = model.forward(batch.tokens)[:, -1]
    lens = Lens(model)
    torch.testing.assert_close(lens.logits(seen[points[-1]]), own, rtol=0, atol=1e-9)
    assert (lens.logits(seen[points[0]]) - own).abs().max() > 1e-3
    # And the model is as it was.
    with torch.no_grad():
        torch.testing.assert_close(model.forward(batch.tokens)[:, -1], own, rtol=0, atol=0)


def test_the_lens_gives_each_row_the_probability_of_its_own_openings():
    model = tiny_model("llama")
    rows = torch.randn(3, 16, generator=torch_stream(0, "rows"))
    sampling = Sampling(temperature=0.7)
    kinds = [Openings((5, 6), (7,)), Openings((8,), (9, 10)), Openings((5, 6), (7,))]
    lens = Lens(model)
    found = lens.decisions(rows, kinds, sampling)
    shares = sampling.probabilities(lens.logits(rows))
    for i, kind in enumerate(kinds):
        for j, tokens in enumerate(kind):
            assert float(found[i, j]) == pytest.approx(
                float(shares[i, list(tokens)].sum()), rel=1e-5
            )


def test_openings_that_begin_with_the_same_token_are_not_told_at_once():
    model = tiny_model("llama")
    told = first_tokens(model, Situation(PROMPT, {"stop": ("Stop",), "bet": ("Bet", "All")}, {}))
    assert told.is_told_at_once
    assert len(told.bet) == 2
    both = first_tokens(model, Situation(PROMPT, {"stop": (" Stop",), "bet": (" Bet",)}, {}))
    assert not both.is_told_at_once


def test_means_of_the_lens_are_by_the_decision_that_came():
    shares = np.zeros((1, 40, 2))
    is_stop = np.arange(40) % 2 == 0
    shares[0, is_stop], shares[0, ~is_stop] = (0.6, 0.2), (0.1, 0.3)
    table = lens_table(shares, is_stop, np.arange(40) // 2, 0)
    by_coming = {row["coming"]: row for row in table.iter_rows(named=True)}
    assert by_coming["stop"]["stop_share"] == pytest.approx(0.75)
    assert by_coming["bet"]["legible"] == pytest.approx(0.4)
    assert by_coming["all"]["p_stop"] == pytest.approx(0.35)
    assert by_coming["all"]["auroc"] == 1
    assert by_coming["stop"]["auroc"] is None


def some_latents(per_layer=2, layers=3):
    """A table of chosen latents, with a swing of two standard deviations each."""
    rows = [
        (f"{layer}.resid_post", layer, latent, 1.0, 1.0, 5.0, 2.0)
        for layer in range(layers)
        for latent in range(per_layer)
    ]
    return pl.DataFrame(rows, schema=CHOSEN, orient="row")


def chain_of_rows(n=60):
    luck = np.random.default_rng(3)
    latents = luck.normal(size=(n, 6))
    latents[:, 2] = latents[:, 0] + 0.3 * luck.normal(size=n)
    latents[:, 4] = -latents[:, 2] + 0.3 * luck.normal(size=n)
    return latents


CHAIN = {(0, 0, 1, 0), (1, 0, 2, 0), (0, 0, 2, 0)}


def ends(table, first, second):
    columns = [f"{first}_hook_point", f"{first}_latent", f"{second}_hook_point", f"{second}_latent"]
    return {
        (int(a.split(".")[0]), b, int(c.split(".")[0]), d)
        for a, b, c, d in table.select(columns).iter_rows()
    }


def test_a_planted_chain_is_correlated_and_what_is_shuffled_is_not():
    strata = np.arange(60) % 2
    table, null = correlations(chain_of_rows(), some_latents(), strata, shuffles=20, seed=0)
    assert len(table) == 3 * 4
    assert ends(table.filter("is_correlated"), "earlier", "later") == CHAIN
    assert len(null) == 20
    assert null["n_correlated"].mean() < 0.5
    assert (table["shuffled_r_95"] < 0.45).all()


def test_correlations_are_pearsons():
    latents = chain_of_rows(25)
    table, _ = correlations(latents, some_latents(), np.zeros(25, int), shuffles=2, seed=0)
    row = table.filter(pl.col("earlier_latent") == 1, pl.col("later_latent") == 0).row(
        0, named=True
    )
    expected = pearsonr(latents[:, 1], latents[:, 2])
    assert row["r"] == pytest.approx(expected.statistic)
    assert row["p"] == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval(0.95)
    assert (row["r_low"], row["r_high"]) == pytest.approx((interval.low, interval.high))


def test_a_latent_that_never_varies_goes_with_nothing():
    latents = chain_of_rows()
    latents[:, 2] = 0.1
    table, _ = correlations(latents, some_latents(), np.zeros(60, int), shuffles=3, seed=0)
    row = table.filter(pl.col("later_hook_point") == "1.resid_post", pl.col("later_latent") == 0)
    assert row["r"].is_null().all()
    assert not row["is_correlated"].any()
    assert ends(table.filter("is_correlated"), "earlier", "later") == {(0, 0, 2, 0)}


def test_exchange_within_strata_keeps_what_the_strata_explain():
    # Both latents are the stratum and nothing else: shuffling within it changes nothing.
    strata = np.arange(60) % 2
    luck = np.random.default_rng(0)
    latents = strata[:, None] + 0.01 * luck.normal(size=(60, 6))
    table, null = correlations(latents, some_latents(), strata, shuffles=10, seed=0)
    assert (table["r"] > 0.99).all()
    assert (null["n_correlated"] == len(table)).all()


def test_correlations_are_not_called_causal():
    # Defect of the seed: what correlates was reported as a pathway.
    assert not set(CORRELATIONS) & set(EDGES) - {"p", "q"}
    assert not any(word in name for name in CORRELATIONS for word in ("caus", "effect", "source"))
    assert "is_causal" in EDGES
    assert "r" not in EDGES


def moved_chain(luck, *, shuffled=False):
    """Latent 0 of layer 0 moves 0 of 1 by 2, that moves 0 of 2 by 3; 0 to the end by 1.5."""
    noise = luck.normal(size=(24, 6, 6))
    latents = 0.2 * noise * np.triu(np.ones((6, 6)), 2)
    sign = luck.permutation(np.repeat([-1.0, 1.0], 12)) if shuffled else np.ones(24)
    for source, target, by in ((0, 2, 2.0), (2, 4, 3.0), (0, 4, 1.5)):
        latents[:, source, target] += sign * by
    stop = 0.001 * luck.normal(size=(24, 6))
    stop[:, 4] += 0.1
    return Moved(
        latents, stop, 0.1 * luck.normal(size=(6, 20, 6)), 0.001 * luck.normal(size=(6, 20))
    )


def test_a_planted_chain_of_edges_is_found_and_its_shuffled_version_is_not():
    chosen = some_latents()
    found = moved_chain(np.random.default_rng(1))
    edges = edge_table(chosen, found)
    nodes = node_table(chosen, found, is_legible=True)
    assert ends(edges.filter("is_causal"), "source", "target") == CHAIN
    assert nodes.filter("is_causal").select("layer", "latent").rows() == [(2, 0)]
    paths = path_table(edges, nodes)
    assert len(paths) == 1
    row = paths.row(0, named=True)
    # Standard deviations are 2 and a source is moved by two of them: 2 / 2 / 2, 3 / 2 / 2.
    assert row["to_mid"] == pytest.approx(0.5, abs=0.05)
    assert row["to_target"] == pytest.approx(0.75, abs=0.05)
    assert row["product"] == pytest.approx(row["to_mid"] * row["to_target"])
    assert row["whole"] == pytest.approx(0.375, abs=0.05)
    assert row["through"] == pytest.approx(row["product"] * 0.1 / 2, rel=0.1)
    shuffled = edge_table(chosen, moved_chain(np.random.default_rng(1), shuffled=True))
    assert not shuffled["is_causal"].any()
    assert len(path_table(shuffled, nodes)) == 0


def test_an_edge_that_controls_have_as_well_is_not_causal():
    found = moved_chain(np.random.default_rng(1))
    found.control_latents[0, :, 2] = 2.5
    edges = edge_table(some_latents(), found)
    assert ends(edges.filter("is_causal"), "source", "target") == CHAIN - {(0, 0, 1, 0)}
    without = found._replace(control_latents=np.zeros((6, 0, 6)), control_stop=np.zeros((6, 0)))
    assert not edge_table(some_latents(), without)["is_causal"].any()


def test_no_latent_moves_a_decision_that_the_model_does_not_say():
    found = moved_chain(np.random.default_rng(1))
    assert not node_table(some_latents(), found, is_legible=False)["is_causal"].any()


@pytest.fixture(scope="module")
def model():
    made = tiny_model("llama")
    made.network.double()
    return made


@pytest.fixture(scope="module")
def saes():
    """Of three layers, active now and then."""
    found = {}
    for layer in range(3):
        sae = JumpReLU(JumpReLUConfig(d_model=16, d_sae=40, target_l0=10), seed=layer)
        with torch.no_grad():
            sae.b_enc.copy_(0.1 * torch.randn(40, generator=torch_stream(layer, "b_enc")))
            sae.threshold.fill_(0.2)
        sae.hook_point = HookPoint(layer, "resid_post")
        found[str(sae.hook_point)] = sae.double().requires_grad_(False)
    return found


def chosen_of(saes):
    rows = [
        (f"{layer}.resid_post", layer, latent, 1.0, 0.5 * latent, 2.0 + latent, 1.0)
        for layer in range(len(saes))
        for latent in (1, 4, 9)
    ]
    return pl.DataFrame(rows, schema=CHOSEN, orient="row")


def controls(chosen, saes):
    density = torch.full((40,), 0.5)
    return {place.point: random_directions(place, 3, 0, density) for place in places(chosen, saes)}


def read_by_hand(model, saes, chosen, edit):
    """All chosen latents at the last position, and the next token's distribution, from a whole
    forward pass.
    """
    batch, seen = model.tokenize([PROMPT]), {}
    hooks = {HookPoint(name): lambda x, n=name: seen.update({n: x[0, -1].clone()}) for name in saes}
    with torch.no_grad(), edit, model.hooked(hooks):
        logits = model.forward(batch.tokens)[0, -1]
    latents = [
        saes[row["hook_point"]].encode(seen[row["hook_point"]])[row["latent"]]
        for row in chosen.iter_rows(named=True)
    ]
    return torch.stack(latents), logits.softmax(-1)


@pytest.mark.parametrize("space", ["", " "], ids=["first tokens differ", "first tokens agree"])
def test_an_edge_is_what_two_forward_passes_with_the_latent_set_by_hand_give(model, saes, space):
    chosen = chosen_of(saes)
    openings = {"stop": (f"{space}S",), "bet": (f"{space}B",)}
    screen = DecisionScreen(model, Situation(PROMPT, openings, {}), Sampling(), LAST)
    found = moved(screen, places(chosen, saes), controls(chosen, saes))
    points = [HookPoint(name) for name in chosen["hook_point"]]
    for i in (0, 4, 8):
        row = chosen.row(i, named=True)
        by_hand = [
            read_by_hand(
                model,
                saes,
                chosen,
                steer(model, {points[i]: SetLatent(saes[str(points[i])], row["latent"], v)}, LAST),
            )
            for v in (row["bet_mean"], row["stop_mean"])
        ]
        change = by_hand[1][0] - by_hand[0][0]
        for j, point in enumerate(points):
            expected = float(change[j]) if points[i] < point else 0.0
            assert float(found["latents"][i, j]) == pytest.approx(expected, abs=1e-9)
        if space == "":
            shares = [_share(model, shares) for _, shares in by_hand]
            assert float(found["stop"][i]) == pytest.approx(shares[1] - shares[0], abs=1e-9)
    assert found["latents"].abs().max() > 0.01
    assert found["stop"].abs().max() > 1e-6


def _share(model, shares):
    stop, bet = (int(model.tokenizer(text)["input_ids"][-1]) for text in "SB")
    return float(shares[stop] / (shares[stop] + shares[bet]))


def test_the_last_layer_of_the_lens_is_what_a_screen_computes(model):
    situation = Situation(PROMPT, {"stop": ("S",), "bet": ("B", "A")}, {})
    sampling, last = Sampling(temperature=0.6), HookPoint(2, "resid_post")
    read = last_activations(model, [PROMPT, PROMPT], [last])[last]
    found = Lens(model).decisions(read, [first_tokens(model, situation)] * 2, sampling)
    baseline = DecisionScreen(model, situation, sampling, LAST).baseline()
    torch.testing.assert_close(found, baseline.expand(2, -1), rtol=0, atol=1e-9)


def test_a_control_adds_as_much_along_another_latents_decoder(model, saes):
    chosen = chosen_of(saes)
    situation = Situation(PROMPT, {"stop": ("S",), "bet": ("B",)}, {})
    screen, others = DecisionScreen(model, situation, Sampling(), LAST), controls(chosen, saes)
    found = moved(screen, places(chosen, saes), others)
    assert found["control_latents"].shape == (9, 3, 9)
    largest = 0.0
    for i in range(6):
        row = chosen.row(i, named=True)
        direction = others[HookPoint(row["hook_point"])][i % 3, 1]
        assert not torch.equal(direction, saes[row["hook_point"]].W_dec[row["latent"]])
        low, high = (
            read_by_hand(model, saes, chosen, along(model, saes, row, direction, row[value]))[0]
            for value in ("bet_mean", "stop_mean")
        )
        later = slice(3 * (i // 3 + 1), 9)
        measured = found["control_latents"][i, 1]
        torch.testing.assert_close(measured[later], (high - low)[later], rtol=0, atol=1e-9)
        assert not measured[: later.start].any()
        largest = max(largest, float(measured.abs().max()))
    assert largest > 1e-2


def along(model, saes, row, direction, value):
    """As much as setting a latent to `value` adds, along another direction."""
    sae, latent = saes[row["hook_point"]], row["latent"]

    def add(x):
        size = (value - sae.encode(x[:, -1:])[..., latent]) * sae.W_dec[latent].norm()
        moved_last = x[:, -1:] + size[..., None] * direction / direction.norm()
        return torch.cat([x[:, :-1], moved_last], dim=1)

    return model.hooked({HookPoint(row["hook_point"]): add})
