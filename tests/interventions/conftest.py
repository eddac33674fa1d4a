import pytest
import torch

from fluoroscope.core.seeding import torch_stream
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.tiny import tiny_model
from fluoroscope.sae.jumprelu import JumpReLU, JumpReLUConfig
from fluoroscope.sae.topk import TopK, TopKConfig


@pytest.fixture(scope="session")
def double_model():
    """Makes tiny models in float64, where rounding is far below what laws allow."""

    def make(family: str, **changes: object):
        model = tiny_model(family, **changes)
        model.network.double()
        return model

    return make


@pytest.fixture(scope="session")
def double_sae():
    """Makes an SAE whose latents are active now and then on activations of a tiny model."""

    def make(architecture: str = "jumprelu", d_model: int = 16, point: str | None = None):
        sae = (
            JumpReLU(JumpReLUConfig(d_model=d_model, d_sae=40, target_l0=10), seed=3)
            if architecture == "jumprelu"
            else TopK(TopKConfig(d_model=d_model, d_sae=40, k=10), seed=3)
        )
        with torch.no_grad():
            for name in ("b_enc", "b_dec"):
                values = getattr(sae, name)
                noise = torch.randn(values.shape, generator=torch_stream(0, name))
                values.copy_(0.1 * noise)
            if architecture == "jumprelu":
                sae.threshold.fill_(0.3)
        sae.hook_point = None if point is None else HookPoint(point)
        return sae.double().requires_grad_(False)

    return make


@pytest.fixture(scope="session")
def direction():
    """Makes vectors of a tiny model's width."""

    def make(seed: int, d_model: int = 16) -> torch.Tensor:
        return torch.randn(d_model, generator=torch_stream(seed, "direction")).double()

    return make
