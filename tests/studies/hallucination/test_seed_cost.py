import numpy as np
from some_links import tracks_of

from fluoroscope.studies.hallucination.settings import SeedCostSettings
from fluoroscope.studies.hallucination.tracking.detections import Detections
from fluoroscope.studies.hallucination.tracking.seed_cost import (
    SeedCost,
    SeedCosts,
    association_costs,
    cost_links,
)


def detections(*rows):
    """Rows of layer, latent, activation."""
    layers, latents, activations = zip(*rows, strict=True)
    values = np.array(activations, float)
    return Detections(np.array(layers, np.int32), np.array(latents, np.int32), values, values)


def tracked(found, directions, n_layers, **settings):
    given = SeedCostSettings(**settings)
    return SeedCost(given).track(cost_links(found, directions, n_layers, given))


def at(*degrees):
    radians = np.radians(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1)


def test_costs_are_those_of_the_formula():
    costs = association_costs(at(0), 5 * at(0, 90, 180, 60), np.array([1.0]), np.full(4, 3.0))
    np.testing.assert_allclose(costs, [[0.1, 0.6 + 0.1, 1.2 + 0.1, 0.3 + 0.1]])


def test_a_silent_track_pays_for_a_loud_detection_and_no_direction_has_the_cosine_0():
    costs = association_costs(at(0), at(0, 0), np.array([1e-7]), np.array([0.05, 0.2]))
    np.testing.assert_allclose(costs, [[0, 0.2]])
    nowhere = association_costs(np.zeros((1, 2)), at(0), np.array([1.0]), np.array([1.0]))
    np.testing.assert_allclose(nowhere, [[0.6]])


def test_the_assignment_comes_first_and_the_threshold_after():
    # Track 0 is nearest to the first detection, at 0.08; the other one is far from both tracks,
    # at 0.6 and 1.2. The least sum leaves that to track 0, which then loses it to the threshold.
    found = detections((0, 0, 1.0), (0, 1, 1.0), (1, 2, 1.0), (1, 3, 1.0))
    directions = at(0, 90, 30, -90)
    costs = association_costs(directions[:2], directions[2:], np.ones(2), np.ones(2))
    np.testing.assert_allclose(costs, [[0.6 * (1 - 0.75**0.5), 0.6], [0.3, 1.2]])
    assert tracks_of(tracked(found, directions, 2)) == [[0], [1, 2], [3]]
    assert tracks_of(tracked(found, directions, 2, assignment="greedy")) == [[0, 2], [1], [3]]


def test_tracks_die_at_once_and_are_born_above_the_threshold():
    found = detections((0, 0, 1.0), (0, 1, 0.5), (2, 0, 1.0), (2, 1, 0.6), (3, 0, 0.1))
    directions = at(0, 90, 0, 90, 10)
    result = tracked(found, directions, 4)
    # The second is not above 0.5; nothing is there in layer 1; the last joins however weak.
    assert tracks_of(result) == [[0], [2, 4], [3]]
    assert result.existence.tolist() == [1, 1, 1]
    assert result.parents.tolist() == [-1, -1, -1]
    sensitive = tracked(found, directions, 4, birth=0.3)
    assert tracks_of(sensitive) == [[0], [1], [2, 4], [3]]


def test_the_latest_direction_and_activation_are_what_is_compared():
    found = detections((0, 0, 1.0), (1, 0, 1.0), (2, 0, 1.0), (3, 0, 9.0))
    # 60 degrees cost 0.3 and nine times the activation 0.16; 120 degrees alone would cost 0.9.
    assert tracks_of(tracked(found, at(0, 60, 120, 120), 4)) == [[0, 1, 2, 3]]
    assert tracks_of(tracked(found, at(0, 60, 120, 180), 4)) == [[0, 1, 2, 3]]
    assert tracks_of(tracked(found, at(0, 60, 120, 190), 4)) == [[0, 1, 2], [3]]


def test_greedy_lets_the_loudest_track_choose_first():
    found = detections((0, 0, 1.0), (0, 1, 2.0), (1, 2, 2.0))
    directions = at(0, 20, 5)
    assert tracks_of(tracked(found, directions, 2, assignment="greedy")) == [[0], [1, 2]]


def test_a_feature_id_goes_on_whatever_the_cost_and_nothing_where_disabled():
    found = detections((0, 7, 1.0), (0, 3, 1.0), (1, 3, 0.6), (1, 5, 0.6))
    directions = at(0, 0, 180, 0)
    assert tracks_of(tracked(found, directions, 2, assignment="feature_id")) == [[0], [1, 2], [3]]
    assert tracks_of(tracked(found, directions, 2, assignment="disabled")) == [[0], [1], [2], [3]]


def test_no_detections_give_no_tracks():
    none = np.zeros(0)
    empty = Detections(none.astype(np.int32), none.astype(np.int32), none, none)
    result = tracked(empty, np.zeros((0, 2)), 3)
    assert len(result) == 0
    assert result.n_layers == 3


def test_links_by_the_decoders_of_layers_are_those_by_the_directions_of_detections():
    settings = SeedCostSettings()
    decoders = [np.random.default_rng(layer).normal(size=(5, 3)) for layer in range(3)]
    found = detections((0, 4, 1.0), (0, 1, 2.0), (1, 3, 1.5), (2, 0, 0.2), (2, 2, 0.9))
    directions = np.stack(
        [decoders[layer][latent] for layer, latent in zip(found.layers, found.latents, strict=True)]
    )
    one, other = (
        SeedCosts(decoders, settings).links(found),
        cost_links(found, directions, 3, settings),
    )
    np.testing.assert_array_equal(one.targets, [2, 2, 3, 4])
    np.testing.assert_allclose(one.scores, other.scores)
    np.testing.assert_allclose(one.births, found.activations - 0.5)
