import torch

from fluoroscope.models.sinks import find_sinks


def test_only_tokens_far_above_the_median_are_sinks():
    activations = torch.ones(2, 5, 4)
    activations[:, 0] *= 50
    activations[1, 3] *= 9
    assert find_sinks(activations).nonzero().tolist() == [[0, 0], [1, 0]]


def test_padding_is_no_sink_and_does_not_move_the_median():
    activations = torch.full((1, 6, 4), 1000.0)
    activations[0, 3:] = 1.0
    mask = torch.tensor([[0, 0, 0, 1, 1, 1]])
    assert not find_sinks(activations, mask).any()
    activations[0, 3] = 20.0
    assert find_sinks(activations, mask).nonzero().tolist() == [[0, 3]]
