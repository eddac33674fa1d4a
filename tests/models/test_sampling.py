import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fluoroscope.models.sampling import Sampling, row_luck

# Probabilities 0.4, 0.3, 0.2, 0.1 at temperature 1, not in this order.
LOGITS = torch.tensor([0.2, 0.4, 0.1, 0.3]).log()


def shares(logits=LOGITS, **settings):
    return Sampling(**settings).probabilities(logits)


def uniform(*luck):
    return torch.tensor(luck, dtype=torch.float64)


def test_the_default_is_the_softmax_in_float64():
    assert shares().dtype == torch.float64
    torch.testing.assert_close(shares(), torch.tensor([0.2, 0.4, 0.1, 0.3]).double())


def test_a_temperature_of_a_half_squares_the_odds():
    # 0.04, 0.16, 0.01, 0.09 over their sum 0.3.
    expected = torch.tensor([4, 16, 1, 9]).double() / 30
    torch.testing.assert_close(shares(temperature=0.5), expected, atol=1e-7, rtol=0)


@pytest.mark.parametrize("temperature", [1e-3, 1e-300, 5e-324])
def test_the_smallest_temperatures_are_greedy_and_not_nan(temperature):
    logits = torch.tensor([3.0, 800.0, -40.0, 799.0])
    assert shares(logits, temperature=temperature).tolist() == [0, 1, 0, 0]


@pytest.mark.parametrize(
    ("top_k", "expected"),
    [(1, [0, 1, 0, 0]), (2, [0, 4 / 7, 0, 3 / 7]), (3, [2 / 9, 4 / 9, 0, 3 / 9])],
)
def test_top_k_keeps_the_likeliest_and_their_odds(top_k, expected):
    assert shares(top_k=top_k).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("top_k", [4, 5, 10**6])
def test_a_top_k_of_the_whole_vocabulary_or_more_changes_nothing(top_k):
    assert torch.equal(shares(top_k=top_k), shares())


def test_top_k_keeps_exactly_k_of_many_equal_tokens_and_those_are_the_first():
    logits = torch.tensor([1.0, 2, 1, 1, 3, 1])
    assert shares(logits, top_k=4).nonzero().flatten().tolist() == [0, 1, 2, 4]
    assert shares(torch.zeros(5000), top_k=7).nonzero().flatten().tolist() == list(range(7))


@pytest.mark.parametrize(
    ("top_p", "kept"), [(0.39, [1]), (0.41, [1, 3]), (0.69, [1, 3]), (0.71, [0, 1, 3])]
)
def test_top_p_keeps_the_fewest_tokens_that_reach_it(top_p, kept):
    found = shares(top_p=top_p)
    assert found.nonzero().flatten().tolist() == kept
    expected = shares()[kept] / shares()[kept].sum()
    torch.testing.assert_close(found[kept], expected)


def test_the_likeliest_token_stays_whatever_the_top_p():
    assert shares(top_p=1e-300).tolist() == [0, 1, 0, 0]


def test_a_top_p_of_one_changes_nothing():
    assert torch.equal(shares(top_p=1.0), shares())


def test_top_p_looks_at_what_top_k_and_the_temperature_left():
    # Of 16 and 9 over 25, the first alone reaches 0.6; of all four it would not.
    assert shares(temperature=0.5, top_k=2, top_p=0.6).tolist() == [0, 1, 0, 0]
    assert shares(temperature=0.5, top_p=0.6).nonzero().flatten().tolist() == [1, 3]


@pytest.mark.parametrize("top_p", [0.05, 0.3, 0.9, 0.999])
def test_a_nucleus_of_a_large_vocabulary_is_that_of_sorting_it_all(top_p):
    generator = torch.Generator().manual_seed(0)
    # The first row is flat, so that its nucleus needs far more than 1024 tokens; the second not.
    logits = torch.randn(2, 5000, generator=generator) * torch.tensor([[0.1], [6.0]])
    found = shares(logits, top_p=top_p)
    for row, whole in zip(found, logits.double().softmax(-1), strict=True):
        order = whole.argsort(descending=True)
        n = int(np.searchsorted(whole[order].cumsum(0).numpy(), top_p)) + 1
        assert row.nonzero().flatten().tolist() == sorted(order[:n].tolist())
        torch.testing.assert_close(row[order[:n]], whole[order[:n]] / whole[order[:n]].sum())
    assert (found[0] > 0).sum() > (found[1] > 0).sum()


def test_a_nucleus_does_not_depend_on_batch_mates_even_where_tokens_are_equally_likely():
    # Logits in bfloat16 take few values, so that the edge of a nucleus falls among equal ones.
    generator = torch.Generator().manual_seed(1)
    peaked = (4 * torch.randn(3000, generator=generator)).bfloat16()
    flat = torch.zeros(3000).bfloat16()
    together = shares(torch.stack([peaked, flat]), top_p=0.7001)
    assert torch.equal(together[0], shares(peaked, top_p=0.7001))
    assert torch.equal(together[1], shares(flat, top_p=0.7001))
    edge = peaked == peaked[together[0] > 0].min()
    inside = edge & (together[0] > 0)
    assert 0 < int(inside.sum()) < int(edge.sum())
    assert edge.nonzero()[: int(inside.sum())].tolist() == inside.nonzero().tolist()
    assert together[1].nonzero().flatten().tolist() == list(range(2101))


@given(
    # What differs by less than rounding is equal to a softmax, and not to argmax.
    logits=st.lists(st.floats(-50, 50).map(lambda x: round(x, 6)), min_size=1, max_size=12),
    temperature=st.floats(0.1, 5),
    top_k=st.none() | st.integers(1, 14),
    top_p=st.none() | st.floats(0.01, 1),
)
def test_probabilities_sum_to_one_and_keep_the_order_of_the_logits(
    logits, temperature, top_k, top_p
):
    given_logits = torch.tensor(logits, dtype=torch.float64)
    found = shares(given_logits, temperature=temperature, top_k=top_k, top_p=top_p)
    assert float(found.sum()) == pytest.approx(1)
    order = given_logits.argsort(stable=True)
    # Equal logits may differ, as one is the last that is kept.
    assert found[given_logits.argmax()] == found.max()
    kept = found[order][found[order] > 0]
    assert bool((kept.diff() >= 0).all())
    if top_k is not None:
        assert int((found > 0).sum()) <= top_k


def test_greedy_is_the_first_of_the_largest_logits_whatever_the_luck():
    logits = torch.tensor([[1.0, 5.0, 5.0, 2.0]] * 3)
    greedy = Sampling(temperature=0)
    assert greedy.choose(logits, uniform(0.0, 0.5, 1 - 2**-53)).tolist() == [1, 1, 1]
    assert greedy.probabilities(logits).tolist() == [[0, 1, 0, 0]] * 3
    one_of_them = Sampling(top_k=1)
    assert one_of_them.choose(logits, uniform(0.0, 0.5, 1 - 2**-53)).tolist() == [1, 1, 1]


def test_luck_cuts_the_unit_interval_into_the_probabilities():
    # Cumulative: 0.2, 0.6, 0.7, 1.
    luck = uniform(0.0, 0.19, 0.21, 0.59, 0.61, 0.69, 0.71, 0.99)
    found = Sampling().choose(LOGITS.expand(8, -1), luck)
    assert found.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


@given(
    holes=st.lists(st.booleans(), min_size=1, max_size=40).filter(lambda holes: not all(holes)),
    luck=st.sampled_from([0.0, 5e-324, 2**-53, 0.5, 1 - 2**-52, 1 - 2**-53]),
    seed=st.integers(0, 9),
)
def test_a_token_of_probability_0_is_never_drawn(holes, luck, seed):
    logits = torch.randn(len(holes), generator=torch.Generator().manual_seed(seed))
    logits = logits.masked_fill(torch.tensor(holes), -torch.inf)
    token = int(Sampling().choose(logits[None], uniform(luck))[0])
    assert not holes[token]


@pytest.mark.parametrize("seed", range(5))
def test_luck_just_below_one_draws_the_last_token_that_can_be_drawn(seed):
    logits = torch.randn(7, 5000, generator=torch.Generator().manual_seed(seed))
    logits[:, 4321:] = -torch.inf
    highest, lowest = uniform(*[1 - 2**-53] * 7), uniform(*[0.0] * 7)
    logits[:, :13] = -torch.inf
    assert Sampling().choose(logits, highest).tolist() == [4320] * 7
    assert Sampling().choose(logits, lowest).tolist() == [13] * 7


@pytest.mark.parametrize(
    "settings",
    [{}, {"temperature": 0.7}, {"top_k": 3}, {"top_p": 0.8}, {"top_k": 5, "top_p": 0.9}],
    ids=str,
)
def test_draws_have_the_stated_distribution(settings):
    logits = torch.randn(8, generator=torch.Generator().manual_seed(3))
    n = 20_000
    luck = torch.from_numpy(row_luck(11, n))
    drawn = Sampling(**settings).choose(logits.expand(n, -1), luck).bincount(minlength=8)
    expected = Sampling(**settings).probabilities(logits)
    possible = expected > 0
    assert int(drawn[~possible].sum()) == 0
    if possible.sum() > 1:
        counts = drawn[possible].numpy()
        test = stats.power_divergence(
            counts, (expected[possible] * n).numpy(), lambda_="log-likelihood"
        )
        assert test.pvalue > 0.001


def test_more_tokens_only_add_to_the_luck_of_a_row():
    few, many = row_luck(5, 3), row_luck(5, 300)
    assert many[:3].tolist() == few.tolist()
    assert ((many >= 0) & (many < 1)).all()


def test_the_luck_of_two_seeds_is_independent():
    many = np.stack([row_luck(seed, 500) for seed in range(40)])
    assert len(np.unique(many)) == many.size
    correlation = np.corrcoef(many)[~np.eye(40, dtype=bool)]
    assert abs(correlation).max() < 5 / math.sqrt(500)


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": -0.1},
        {"temperature": math.inf},
        {"temperature": math.nan},
        {"top_k": 0},
        {"top_p": 0},
        {"top_p": 1.01},
        {"top_p": math.nan},
    ],
    ids=str,
)
def test_settings_without_a_distribution_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        Sampling(**settings)
