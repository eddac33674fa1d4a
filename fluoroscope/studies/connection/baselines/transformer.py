"""An encoder-decoder Transformer, pre-norm with learned places; what the plan compares with."""

from jaxtyping import Int
from torch import Tensor, nn

from fluoroscope.core.errors import ModelError
from fluoroscope.studies.connection.baselines.baseline_config import TransformerConfig
from fluoroscope.studies.connection.baselines.decoded import DecodedReasoner, encoder_blocks
from fluoroscope.studies.connection.network.reasoner import Ids, Mask, Thought


class Transformer(DecodedReasoner):
    """Its states are the text's tokens, behind all layers; nothing is repeated."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config)
        self.config = config
        self.blocks = nn.ModuleList(encoder_blocks(config, config.n_encoder_layers))
        self.norm = nn.LayerNorm(config.d_model) if config.final_norm else nn.Identity()

    def think(
        self, ids: Ids, mask: Mask, n_steps: int | Int[Tensor, " b"] | None = None
    ) -> Thought:
        if n_steps is not None and (n_steps.any() if isinstance(n_steps, Tensor) else n_steps):
            raise ModelError(
                f"A Transformer repeats nothing: n_steps must be None or 0, got {n_steps}."
            )
        x = self.text(ids, mask)
        for block in self.blocks:
            x = block(x, mask)
        return Thought(
            states=[self.norm(x)],
            mask=mask,
            n_steps=ids.new_zeros(len(ids)),
            changes=x.new_zeros(0, len(ids)),
        )
