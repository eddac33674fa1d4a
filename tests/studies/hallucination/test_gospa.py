from functools import cache
from itertools import permutations

import numpy as np
import pytest

from fluoroscope.core.errors import ConfigError
from fluoroscope.studies.hallucination.tracking.gospa import (
    Continuity,
    continuity,
    is_real,
    layer_gospa,
    set_gospa,
    trajectory_gospa,
)
from fluoroscope.studies.hallucination.tracking.synthetic import WORLDS, World, scene
from fluoroscope.studies.hallucination.tracking.trackers import TRACKERS
from fluoroscope.studies.hallucination.tracking.tracks import TrackSet
from fluoroscope.studies.hallucination.tracking.validation import (
    calibration_error,
    on_links,
    paired_difference,
    scene_scores,
    validate,
)

PER_LAYER = 3


def tracks_of(tracks, n_layers=4):
    tracks = sorted(tracks)
    return TrackSet(
        n_layers=n_layers,
        offsets=np.cumsum([0, *map(len, tracks)]).astype(np.int64),
        points=np.array([point for track in tracks for point in track], np.int32),
        existence=np.full(len(tracks), 0.9),
        parents=np.full(len(tracks), -1, np.int32),
        entropy=np.zeros(n_layers),
        margin=np.full(n_layers, np.inf),
    )


def layers_of(n_layers=4):
    """Detections 3 l to 3 l + 2 are in layer l."""
    return np.repeat(np.arange(n_layers), PER_LAYER).astype(np.int32)


def random_tracks(random, n_layers=4):
    """Up to three tracks, with misses."""
    tracks = [[] for _ in range(PER_LAYER)]
    for layer in range(n_layers):
        for track, place in zip(tracks, random.permutation(PER_LAYER), strict=True):
            if random.random() < 0.6:
                track.append(PER_LAYER * layer + int(place))
    return tracks_of([track for track in tracks if track], n_layers)


def brute_force(truth, found, layers, switch):
    """Over all assignments of tracks to tracks in every layer."""
    n_true, n_found, n_layers = len(truth), len(found), truth.n_layers
    partners = {
        tuple(order[:n_true]) for order in permutations([*range(n_found), *[None] * n_true], n_true)
    }
    at = [
        [{layers[p]: p for p in tracks.track(number)} for number in range(len(tracks))]
        for tracks in (truth, found)
    ]

    def cost(layer, assigned):
        states = [[track.get(layer) for track in side] for side in at]
        total = 0.0
        for state, partner in zip(states[0], assigned, strict=True):
            other = None if partner is None else states[1][partner]
            if state is not None and other is not None:
                total += 0.0 if state == other else 1.0
            elif state is not None or other is not None:
                total += 0.5
        taken = set(assigned)
        return total + 0.5 * sum(
            state is not None and number not in taken for number, state in enumerate(states[1])
        )

    def change(one, other):
        return sum(
            0.0 if a == b else 0.5 if None in (a, b) else 1.0
            for a, b in zip(one, other, strict=True)
        )

    @cache
    def best(layer, assigned):
        here = cost(layer, assigned)
        if layer == n_layers - 1:
            return here
        return here + min(
            switch * change(assigned, after) + best(layer + 1, after) for after in partners
        )

    return min(best(0, assigned) for assigned in partners)


def test_parts_of_gospa_are_those_worked_out_by_hand():
    # The first two pair up at 0.2 and 0.5, the third true one is too far from anything.
    distances = np.array([[0.2, 0.9], [0.3, 0.5], [3.0, 1.5]])
    found = set_gospa(distances, cutoff=1.0, order=2.0)
    np.testing.assert_allclose(found[:3], [0.2**2 + 0.5**2, 0.5, 0.0])
    np.testing.assert_allclose(found.distance, (0.04 + 0.25 + 0.5) ** 0.5)
    alone = set_gospa(np.full((2, 1), 1.0), cutoff=1.0)
    assert alone[:3] == (0.0, 1.0, 0.5)
    assert set_gospa(np.empty((0, 3)), cutoff=2.0)[:3] == (0.0, 0.0, 3.0)


def test_a_lost_tail_a_false_point_and_a_switch_cost_what_they_cost():
    layers = layers_of()
    truth = tracks_of([[0, 3, 6, 9], [1, 4, 7, 10]])
    lost = trajectory_gospa(truth, tracks_of([[0, 3], [1, 4, 7, 10]]), layers)
    assert lost[:4] == (0.0, 1.0, 0.0, 0.0)
    false = trajectory_gospa(truth, tracks_of([[0, 3, 6, 9], [1, 4, 7, 10], [2]]), layers)
    assert false[:4] == (0.0, 0.0, 0.5, 0.0)
    # Two tracks that exchange their partners: two switches.
    crossed = trajectory_gospa(truth, tracks_of([[0, 3, 7, 10], [1, 4, 6, 9]]), layers)
    assert crossed[:4] == (0.0, 0.0, 0.0, 2 * 0.25)
    # A track in two pieces, and the other way round two tracks in one: one switch.
    broken = trajectory_gospa(truth, tracks_of([[0, 3], [6, 9], [1, 4, 7, 10]]), layers)
    assert broken.distance == 0.25
    # A missed point between costs itself, and no switch.
    missed = trajectory_gospa(truth, tracks_of([[0, 3, 9], [1, 4, 7, 10]]), layers)
    assert missed[:4] == (0.0, 0.5, 0.0, 0.0)


def test_trajectory_gospa_is_the_best_over_all_assignments():
    random, layers = np.random.default_rng(0), layers_of()
    for _ in range(60):
        truth, found = random_tracks(random), random_tracks(random)
        expected = brute_force(truth, found, layers.tolist(), 0.3)
        mine = trajectory_gospa(truth, found, layers, switch=0.3)
        np.testing.assert_allclose(mine.distance, expected)


def test_trajectory_gospa_is_a_metric():
    random, layers = np.random.default_rng(1), layers_of()
    for order in (1.0, 2.0):
        for _ in range(100):
            sets = [random_tracks(random) for _ in range(3)]
            one, two, three = (
                trajectory_gospa(sets[a], sets[b], layers, order=order, switch=0.3)
                for a, b in [(0, 1), (1, 2), (0, 2)]
            )
            back = trajectory_gospa(sets[1], sets[0], layers, order=order, switch=0.3)
            assert (back.missed, back.false) == (one.false, one.missed)
            np.testing.assert_allclose(back.distance, one.distance)
            assert three.distance <= one.distance + two.distance + 1e-12
            is_same = np.array_equal(sets[0].points, sets[1].points) and np.array_equal(
                sets[0].offsets, sets[1].offsets
            )
            assert (one.distance == 0) == is_same
            assert trajectory_gospa(sets[0], sets[0], layers, order=order).distance == 0


def test_layers_add_up_to_the_whole_but_for_switches():
    random, layers = np.random.default_rng(2), layers_of()
    directions = random.normal(size=(len(layers), 4))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    for given in (None, directions):
        truth, found = random_tracks(random), random_tracks(random)
        parts = np.sum([part[:3] for part in layer_gospa(truth, found, layers, given)], axis=0)
        whole = trajectory_gospa(truth, found, layers, given)
        np.testing.assert_allclose(whole[:3], parts)
        np.testing.assert_allclose(whole.distance, parts.sum() + whole.switching)


def test_by_angle_a_wrong_detection_nearby_costs_its_angle():
    layers = np.array([0, 0], np.int32)
    directions = np.array([[1.0, 0.0], [np.cos(0.3), np.sin(0.3)]])
    truth, found = tracks_of([[0]], 1), tracks_of([[1]], 1)
    near = trajectory_gospa(truth, found, layers, directions)
    np.testing.assert_allclose(near[:4], [0.3, 0.0, 0.0, 0.0])
    assert trajectory_gospa(truth, found, layers)[:4] == (0.0, 0.5, 0.5, 0.0)
    assert trajectory_gospa(truth, truth, layers, directions).distance == 0


def test_a_switch_that_costs_more_than_points_is_refused():
    truth = tracks_of([[0]])
    with pytest.raises(ConfigError, match="worth making"):
        trajectory_gospa(truth, truth, layers_of(), switch=0.5)


def test_continuity_counts_what_clear_mot_counts():
    truth = tracks_of([[0, 3, 6, 9], [1, 4, 7]])
    assert continuity(truth, truth) == Continuity(7, 0, 0, 0, 0)
    assert continuity(truth, truth).mota == 1
    # The first changes its track, the second is missed for a layer; 11 is clutter.
    found = tracks_of([[0, 3], [6, 9], [1, 7, 11]])
    counts = continuity(truth, found)
    assert counts == Continuity(n_points=7, n_missed=1, n_false=1, n_switches=1, n_fragmentations=1)
    np.testing.assert_allclose(counts.mota, 1 - 3 / 7)
    nothing = continuity(truth, tracks_of([]))
    assert nothing == Continuity(7, 7, 0, 0, 0)
    # Missed at an end only is no fragmentation, and a switch across a miss is both.
    assert continuity(truth, tracks_of([[3, 6], [1, 4]])) == Continuity(7, 3, 0, 0, 0)
    assert continuity(truth, tracks_of([[0, 3], [9], [1, 4, 7]])) == Continuity(7, 1, 0, 1, 1)


def test_a_track_is_real_by_the_majority_of_its_points():
    truth = tracks_of([[0, 3, 6, 9], [1, 4, 7]])
    found = tracks_of([[0, 3, 7], [1, 6], [2], [4]])
    assert is_real(truth, found).tolist() == [True, False, False, True]
    assert is_real(truth, tracks_of([])).tolist() == []


def test_calibration_error_is_that_worked_out_by_hand():
    existence = np.array([0.95, 0.95, 0.05, 1.0])
    is_so = np.array([True, False, False, True])
    # The top bin holds three with mean 0.9667 and share 2/3.
    np.testing.assert_allclose(calibration_error(existence, is_so), 0.25 * 0.05 + 0.75 * 0.3)
    assert calibration_error(np.empty(0), np.empty(0, bool)) == 0


def everything(links):
    """Each detection is a track of its own."""
    return tracks_of([[number] for number in range(len(links))], links.n_layers)


def nothing(links):
    return tracks_of([], links.n_layers)


def test_validation_says_by_how_much_each_tracker_leads_the_next():
    worlds = {"few": World(n_layers=6, clutter=1.0), "much": World(n_layers=6, clutter=40.0)}
    trackers = {"everything": on_links(everything), "nothing": on_links(nothing)}
    table = validate(trackers, worlds, range(12))
    assert table.select("world", "tracker", "than").rows() == [
        ("few", "everything", "nothing"),
        ("few", "nothing", None),
        ("much", "everything", "nothing"),
        ("much", "nothing", None),
    ]
    rows = {(row["world"], row["tracker"]): row for row in table.rows(named=True)}
    few = rows["few", "everything"]
    assert few["less_gospa_low"] > 0
    assert rows["much", "everything"]["less_gospa_high"] < 0
    np.testing.assert_allclose(few["less_gospa"], rows["few", "nothing"]["gospa"] - few["gospa"])
    np.testing.assert_allclose(few["gospa"], few["missed"] + few["false"] + few["switching"])
    assert few["missed"] == 0
    assert rows["few", "nothing"]["overconfidence"] != rows["few", "nothing"]["overconfidence"]
    # With that much clutter almost nothing is real, and existence is 0.9.
    assert 0.5 < rows["much", "everything"]["overconfidence_low"] < 0.9


def test_rows_of_scenes_carry_what_the_summary_is_made_of():
    worlds = {"few": World(n_layers=4)}
    scenes = scene_scores(
        {"everything": on_links(everything), "nothing": on_links(nothing)}, worlds, [5, 7]
    )
    assert scenes.select("tracker", "seed").rows() == [
        ("everything", 5),
        ("nothing", 5),
        ("everything", 7),
        ("nothing", 7),
    ]
    made = scene(worlds["few"], 5)
    row = scenes.row(0, named=True)
    assert row["n_tracks"] == len(made.links) == len(row["existence"])
    assert sum(row["is_real"]) == len(made.truth.points)
    same = paired_difference(scenes, "few", "nothing", "nothing")
    assert same.value == 0
    assert np.isnan(same.low)
    with pytest.raises(ConfigError, match="at least one tracker"):
        validate({}, worlds, [0])


def test_where_features_crowd_the_best_tracks_beat_the_best_assignments_and_these_greed():
    names = ("optimum", "nearest", "greedy")
    trackers = {name: on_links(TRACKERS.load(name)().track) for name in names}
    table = validate(trackers, {"crowded": WORLDS["crowded"]}, range(40))
    first, second, _ = table.rows(named=True)
    for row in (first, second):
        assert row["less_gospa_low"] > 0
        assert row["less_n_switches_low"] > 0
