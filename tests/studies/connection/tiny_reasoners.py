"""Reasoners of a few thousand weights, one a form, for the laws that all of them obey.

A new kind of reasoner is a line in `REASONERS`: what makes one of `SIZES`, the same each time.
"""

from collections.abc import Callable, Mapping

import torch

from fluoroscope.core.config import build
from fluoroscope.core.seeding import torch_stream
from fluoroscope.studies.connection.baselines.baseline_config import (
    BaselineConfig,
    LoopedConfig,
    PerceiverConfig,
    TransformerConfig,
)
from fluoroscope.studies.connection.baselines.decoded import DecodedReasoner
from fluoroscope.studies.connection.baselines.new_baseline import new_baseline
from fluoroscope.studies.connection.network.network_config import NetworkConfig
from fluoroscope.studies.connection.network.reasoner import Reasoner
from fluoroscope.studies.connection.network.slot_network import SlotNetwork, new_network

SIZES = {
    "vocab_size": 17,
    "d_model": 8,
    "max_source": 12,
    "max_target": 6,
    "dropout": 0.0,
    "pad_id": 0,
}
EOS = 1
DECODER = {"name": "decoder", "n_layers": 2, "n_heads": 2}


def tiny_config(**settings) -> NetworkConfig:
    small = {"n_slots": 5, "max_steps": 4, "connection": {"name": "bilinear", "rank": 2}}
    return build(NetworkConfig, {**SIZES, **small, "output": {"n_heads": 2}, **settings})


def tiny_network(seed: int = 0, **settings) -> SlotNetwork:
    """In evaluation mode; its texts differ from each other more than those of 0.02 would."""
    network = new_network(tiny_config(**settings), seed).eval()
    with torch.no_grad():
        for embedding in (network.embedding.tokens, network.embedding.places):
            embedding.weight.mul_(50)
    return network


REASONERS: Mapping[str, Callable[[], Reasoner]] = {
    "the plan's": tiny_network,
    "stops by its updates": lambda: stops_apart("threshold"),
    "with a decoder": lambda: tiny_network(
        connection={"name": "scalar", "rank": 1}, output=DECODER, halting={"name": "fixed"}
    ),
    "reads tokens too": lambda: tiny_network(
        output={**DECODER, "reads_tokens": True}, n_source_layers=1, step="gated"
    ),
    "stops by its change": lambda: stops_apart(
        "relative", output=DECODER, step="gated", connection={"name": "gated", "n_heads": 2}
    ),
    "reads in every step": lambda: stops_apart(
        "relative",
        step="gated",
        n_slots=11,
        routing={"every_step": True, "learns_slots": True, "n_heads": 2},
    ),
    "learned when to stop": lambda: learned_to_stop(),
    "hears neighbours": lambda: tiny_network(neighbours=2, n_source_layers=1, output=DECODER),
    "a Transformer that hears neighbours": lambda: tiny_baseline(
        TransformerConfig, n_encoder_layers=1, neighbours=1
    ),
    "does not think": lambda: tiny_network(max_steps=0, output=DECODER),
    "a Transformer": lambda: tiny_baseline(TransformerConfig, n_encoder_layers=2),
    "latents": lambda: tiny_baseline(PerceiverConfig, n_latents=5, max_steps=4),
    "latents that read again": lambda: tiny_baseline(
        PerceiverConfig, n_latents=5, max_steps=4, n_layers=2, every_step=True
    ),
    "a looped Transformer": lambda: tiny_baseline(LoopedConfig, max_steps=4, n_layers=2),
}


def tiny_baseline(kind: type[BaselineConfig], seed: int = 0, **settings) -> DecodedReasoner:
    """In evaluation mode, with texts that differ from each other as those of `tiny_network` do."""
    small = {"n_heads": 2, "d_hidden": 12, "n_decoder_layers": 2}
    baseline = new_baseline(build(kind, {**SIZES, **small, **settings}), seed).eval()
    with torch.no_grad():
        for table in (baseline.source.tokens, baseline.source.places):
            table.weight.mul_(50)
    return baseline


def stops_apart(name: str, **settings) -> SlotNetwork:
    """With the threshold by which half of the texts stop before the last step."""
    network = tiny_network(halting={"name": name}, **settings)
    sizes = []

    def keep(_, given, __):
        moved, change = given
        longest = moved.update.norm(dim=-1).amax(dim=-1)
        sizes.append(longest if name == "threshold" else change)

    with torch.no_grad(), network.halting.register_forward_hook(keep):
        network.think(*some_texts(40), network.max_steps)
    network.halting.threshold = float(torch.stack(sizes[:-1]).amin(dim=0).median())
    return network


def learned_to_stop() -> SlotNetwork:
    """With a halting head that looks at the states, by which half of the texts stop early."""
    network = tiny_network(output=DECODER, step="gated", halting={"name": "learned"})
    head = network.get_submodule("halting.head")
    stream = torch_stream(0, "halting head")
    with torch.no_grad():
        head.weight.copy_(torch.randn(head.weight.shape, generator=stream))
        logits = network.think(*some_texts(40), network.max_steps).halt_logits
        head.bias.sub_(logits[:-1].amax(dim=0).median())
    return network


def some_texts(n: int = 6, longest: int = 9, seed: int = 0):
    """Ids and mask of texts of 2 and more tokens; there are random ids where padding is."""
    stream = torch_stream(seed, "texts")
    ids = torch.randint(2, SIZES["vocab_size"], (n, longest), generator=stream)
    lengths = torch.randint(2, longest + 1, (n,), generator=stream)
    lengths[0] = longest
    return ids, torch.arange(longest) < lengths[:, None]


def some_answers(n: int = 6, n_tokens: int = 4, seed: int = 1):
    """What a decoder is given of answers of `n_tokens`: padding, then all but the last token."""
    stream = torch_stream(seed, "answers")
    tokens = torch.randint(2, SIZES["vocab_size"], (n, n_tokens), generator=stream)
    return torch.cat([torch.zeros_like(tokens[:, :1]), tokens[:, :-1]], dim=1)
