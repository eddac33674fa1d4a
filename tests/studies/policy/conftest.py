import pytest
import torch

from fluoroscope.core.seeding import torch_stream
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.tiny import tiny_model
from fluoroscope.sae.jumprelu import JumpReLU, JumpReLUConfig
from fluoroscope.studies.policy.candidates import Candidates
from fluoroscope.studies.policy.heads import PolicyHead

EARLY, LATE = HookPoint("0.resid_post"), HookPoint("1.resid_post")


@pytest.fixture(scope="session")
def double_model():
    model = tiny_model("llama")
    model.network.double()
    return model


@pytest.fixture(scope="session")
def candidates():
    """Five latents of two layers, which are active now and then, at two strengths."""
    saes = {}
    for number, point in enumerate((EARLY, LATE)):
        sae = JumpReLU(JumpReLUConfig(d_model=16, d_sae=40, target_l0=10), seed=number)
        with torch.no_grad():
            sae.threshold.fill_(0.5)
        saes[point] = sae.double().requires_grad_(False)
    chosen = [(EARLY, 3, 4.0), (LATE, 5, -6.0), (EARLY, 7, 5.0), (LATE, 9, 4.0), (EARLY, 11, -4.0)]
    return Candidates.of_latents(saes, chosen, multiples=(1.0, 1.5))


@pytest.fixture(scope="session")
def head(candidates):
    """A head whose choice depends on the state."""
    made = PolicyHead(16, 4, candidates.n_actions, no_op_share=0.3, seed=1)
    with torch.no_grad():
        made.up.copy_(torch.randn(made.up.shape, generator=torch_stream(0, "up")))
    return made
