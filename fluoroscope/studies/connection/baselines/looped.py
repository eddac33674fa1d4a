"""A Transformer whose few layers are done again and again on the text's own tokens.

As in Yang et al. 2023 (arXiv:2311.12424) the text is added anew before every step, and behind it
comes a norm: without both, loops have no fixed point that depends on what was read.
"""

from fluoroscope.studies.connection.baselines.baseline_config import LoopedConfig
from fluoroscope.studies.connection.baselines.decoded import RepeatingReasoner, States, Text
from fluoroscope.studies.connection.network.reasoner import Mask


class LoopedTransformer(RepeatingReasoner):
    """`S_0 = X`, `S_t = norm(blocks(S_(t-1) + X))`, where `X` is the text, normed."""

    def __init__(self, config: LoopedConfig) -> None:
        super().__init__(config)
        self.config = config

    def start(self, text: Text, mask: Mask) -> States:
        return text

    def step(self, states: States, text: Text, mask: Mask) -> States:
        x = states + text
        for block in self.blocks:
            x = block(x, mask)
        return self.norm(x)

    def read(self, states: States) -> States:
        return states
