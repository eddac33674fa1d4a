"""A latent as a steering vector: its decoder direction, without the SAE that it is of.

Adding it with coefficient c is what setting the latent to its own value plus c does, so the
coefficient is in units of the latent's activation.
"""

from fluoroscope.core.errors import InterventionError
from fluoroscope.interventions.positions import GENERATED, LAST
from fluoroscope.interventions.vectors import SteeringVector
from fluoroscope.models.identity import ModelIdentity, hash_tensors
from fluoroscope.sae.base import SparseAutoencoder
from fluoroscope.sae.latent_edits import check_latent


def latent_vector(
    sae: SparseAutoencoder, latent: int, coefficient: float, model: ModelIdentity
) -> SteeringVector:
    """The decoder direction of one latent, to be added wherever a token is drawn."""
    check_latent(sae, latent)
    if sae.hook_point is None:
        raise InterventionError(
            "The SAE does not say which hook point it is of. Save it with its hook_point, or set "
            "sae.hook_point."
        )
    return SteeringVector(
        directions={sae.hook_point: sae.W_dec[latent].detach().cpu().clone()},
        coefficient=coefficient,
        positions=LAST | GENERATED,
        source=f"latent {latent} of the {sae.architecture} SAE of {sae.hook_point}",
        model=model.to_json(),
        provenance={
            "method": "latent_vector",
            "architecture": sae.architecture,
            "d_sae": sae.d_sae,
            "latent": latent,
            "sae_sha256": hash_tensors(sae.state_dict()),
        },
    )
