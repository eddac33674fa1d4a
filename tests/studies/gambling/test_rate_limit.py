import pytest

from fluoroscope.studies.gambling.players.rate_limit import RateLimit


def starts(limit, costs, used=None):
    """When requests leave that follow each other as closely as they may."""
    time, times = 0.0, []
    for i, cost in enumerate(costs):
        time += max(0.0, limit.ready_in(time))
        limit.take(cost, time)
        times.append(time)
        if used is not None:
            limit.correct(cost, used[i])
    return times


def test_no_minute_has_more_requests_than_are_allowed_and_none_is_wasted():
    for per_minute in (1, 30, 60, 600):
        times = starts(RateLimit(per_minute, None), [1] * (3 * per_minute))
        in_a_minute = [sum(t <= s < t + 60 - 1e-6 for s in times) for t in times]
        assert max(in_a_minute) == per_minute
        assert times[-1] == pytest.approx(60 * (3 - 1 / per_minute))


def test_idle_time_is_not_saved_up():
    limit = RateLimit(60, None)
    limit.take(1, 0.0)
    limit.take(1, 1000.0)
    assert limit.ready_in(1000.0) == pytest.approx(1)


def test_tokens_are_paced_by_what_the_server_says_was_used():
    assert starts(RateLimit(None, 6000), [1000] * 4) == pytest.approx([0, 10, 20, 30])
    corrected = starts(RateLimit(None, 6000), [1000] * 4, used=[100] * 4)
    assert corrected == pytest.approx([0, 1, 2, 3])
    # The slower of the two decides.
    assert starts(RateLimit(30, 6000), [100] * 3) == pytest.approx([0, 2, 4])
