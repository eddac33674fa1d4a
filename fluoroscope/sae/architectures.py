"""The SAE architectures: one file with a config and a class each, and one line here."""

from typing import TYPE_CHECKING

from fluoroscope.core.registry import Registry

if TYPE_CHECKING:
    from fluoroscope.sae.base import SparseAutoencoder

SAES: "Registry[type[SparseAutoencoder]]" = Registry(
    "SAE architecture",
    {
        "batch_topk": "fluoroscope.sae.batch_topk:BatchTopK",
        "jumprelu": "fluoroscope.sae.jumprelu:JumpReLU",
        "relu": "fluoroscope.sae.relu:ReLU",
        "topk": "fluoroscope.sae.topk:TopK",
    },
)
