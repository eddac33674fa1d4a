"""What the benchmarks of steering run: three models with their SAEs, and what is asked of them.

A step of the two small models is mostly Python and memory traffic, so whatever is added to it
looks large; the third, of the sizes of Pythia-70m with random weights, is where a step is
arithmetic. SAEs that are not shipped have random directions, and a threshold by which as many
latents are active as in a trained one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import scipy.stats
import torch
from transformers import AutoModelForCausalLM, GPTNeoXConfig

from benchmarks.harness import Timing
from fluoroscope import organism
from fluoroscope.activations.capture import capture
from fluoroscope.core.seeding import stream
from fluoroscope.data.tasks.samples import Sample, Score, Scorer
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.models.texts import Request
from fluoroscope.models.tiny import tiny_model
from fluoroscope.sae.base import SparseAutoencoder
from fluoroscope.sae.batch_topk import BatchTopK, BatchTopKConfig

STORIES = Path(__file__).resolve().parents[2] / "shared" / "weights" / "stories260K"
L0 = 32
_LINES = {
    "stories260K": "Once upon a time there was a {} girl named Lily. She loved to {} in the park.",
    "organism": "Some are {}, some are {}. They say the",
    "pythia-70m sizes": "{}, {}",
}
_WORDS = ("kind", "small", "happy", "brave", "quiet", "funny", "clever", "gentle", "proud", "calm")


@dataclass(frozen=True)
class Steered:
    name: str
    model: LanguageModel
    saes: dict[str, SparseAutoencoder]

    def texts(self, n: int) -> list[str]:
        """So many prompts, all different, of nearly one length."""
        random = stream(0, "benchmark prompts", self.name)
        words = [" ".join(random.choice(_WORDS, 2)) for _ in range(2 * n)]
        line = _LINES[self.name]
        return [line.format(*pair) for pair in zip(words[::2], words[1::2], strict=True)]

    def requests(self, n: int, n_new: int) -> list[Request]:
        """Nothing ends them early, so that steered or not as many tokens are written."""
        prompts = enumerate(self.texts(n))
        return [Request(prompt=t, seed=i, max_tokens=n_new, stop_tokens=()) for i, t in prompts]

    def samples(self, n: int) -> list[Sample]:
        prompts = enumerate(self.texts(n))
        return [Sample(f"s{i:06d}", f"s{i:06d}", text, references=("x",)) for i, text in prompts]

    def vectors(self, n: int) -> list[dict[HookPoint | str, torch.Tensor]]:
        """A direction of norm 1 for each layer, `n` times."""
        points = [HookPoint(layer, "resid_post") for layer in range(self.model.n_layers)]
        random = torch.Generator().manual_seed(0)
        found = torch.randn(n, len(points), self.model.d_model, generator=random)
        found = found / found.norm(dim=-1, keepdim=True)
        return [dict(zip(points, some, strict=True)) for some in found]


class ParityScorer(Scorer):
    """Half of the replies are right, whatever they say; its time is nothing."""

    ways = ("texts",)

    def score_text(self, sample: Sample, text: str) -> Score:
        return Score(float(sum(map(ord, text)) % 2), True, "the sum of its characters")


def small_organism() -> Steered:
    shipped = organism.load()
    saes = {
        str(HookPoint(layer, "resid_post")): sae.requires_grad_(False)
        for (layer, kind), sae in shipped.saes.items()
        if kind == "batch_topk"
    }
    return Steered("organism", LanguageModel.load("organism"), saes)


def stories(expansion: int = 8) -> Steered:
    model = LanguageModel.load(str(STORIES))
    return _with_saes("stories260K", model, expansion)


def pythia_sizes(expansion: int = 8) -> Steered:
    """6 layers, d_model 512, as many tokens as Pythia knows; its texts are bytes."""
    torch.manual_seed(0)
    config = GPTNeoXConfig(
        vocab_size=50304,
        hidden_size=512,
        intermediate_size=2048,
        num_hidden_layers=6,
        num_attention_heads=8,
        max_position_embeddings=512,
        bos_token_id=1,
        eos_token_id=2,
    )
    network = AutoModelForCausalLM.from_config(config)
    network.requires_grad_(False)
    model = LanguageModel.from_network(network, tiny_model("gpt_neox").tokenizer, name="p70")
    return _with_saes("pythia-70m sizes", model, expansion)


def _with_saes(name: str, model: LanguageModel, expansion: int) -> Steered:
    found = Steered(name, model, {})
    tokens = model.tokenize(found.texts(64))
    points = [HookPoint(layer, "resid_post") for layer in range(model.n_layers)]
    seen = capture(model, tokens.tokens, points, attention_mask=tokens.attention_mask)
    for point in points:
        config = BatchTopKConfig(d_model=model.d_model, d_sae=expansion * model.d_model, k=L0)
        sae = BatchTopK(config, seed=point.layer).requires_grad_(False)
        sae.calibrate(seen[point][tokens.attention_mask.bool()])
        found.saes[str(point)] = sae
    return found


def added_share(timing: Timing, peer: Timing) -> tuple[float, float, float]:
    """What is added to the peer's CPU seconds of the same round, as a share of them: the median
    over rounds, and its interval of 95 % (exact, by order statistics).
    """
    shares = [a / b - 1 for a, b in zip(timing.cpu_seconds, peer.cpu_seconds, strict=True)]
    found = scipy.stats.quantile_test(shares, p=0.5).confidence_interval()
    median = float(torch.tensor(shares).double().quantile(0.5))
    return median, float(found.low), float(found.high)


def shown_share(share: tuple[float, float, float]) -> str:
    middle, low, high = (100 * number for number in share)
    return f"{middle:+.1f} % ({low:+.1f} to {high:+.1f})"


def every(names: str) -> Sequence[Steered]:
    """By short names: organism, stories, pythia."""
    made = {"organism": small_organism, "stories": stories, "pythia": pythia_sizes}
    return [made[name]() for name in names.split(",")]
