"""What the benchmark of interventions runs: two models, their SAEs, and the peers' ways."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig

from fluoroscope.models.hook_points import HookPoint
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.models.tiny import tiny_model
from fluoroscope.sae.jumprelu import JumpReLU, JumpReLUConfig

N_PROMPT, N_NEW = 100, 20
STORIES = Path(__file__).resolve().parents[2] / "shared" / "weights" / "stories260K"


@dataclass(frozen=True)
class Patched:
    """A model, a prompt of it, and an SAE for every layer."""

    name: str
    model: LanguageModel
    prompt: tuple[int, ...]
    saes: dict[HookPoint, JumpReLU]

    def cell(self, number: int) -> tuple[HookPoint, int, float]:
        """Hook point, latent and value of cell `number`: all layers in turn, all different."""
        points = list(self.saes)
        sae = self.saes[points[0]]
        return points[number % len(points)], number % sae.d_sae, 1.0 + number % 7


def stories() -> Patched:
    model = LanguageModel.load(str(STORIES))
    text = (
        "Once upon a time there was a girl named Lily. She loved to play in the park with a dog. "
    )
    prompt = tuple(model.tokenizer(3 * text)["input_ids"][:N_PROMPT])
    return Patched("stories260K", model, prompt, _saes(model, 512))


def wide() -> Patched:
    """A Llama of random weights at which a step is arithmetic, not Python."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=8192,
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=6,
        num_attention_heads=16,
        num_key_value_heads=16,
        max_position_embeddings=512,
    )
    network = AutoModelForCausalLM.from_config(config)
    model = LanguageModel.from_network(network, tiny_model("llama").tokenizer, name="d1024")
    network.requires_grad_(False)
    prompt = tuple(torch.randint(3, 8192, (N_PROMPT,)).tolist())
    return Patched("d_model 1024, 6 layers", model, prompt, _saes(model, 8192))


def _saes(model: LanguageModel, d_sae: int) -> dict[HookPoint, JumpReLU]:
    config = JumpReLUConfig(d_model=model.d_model, d_sae=d_sae)
    points = [HookPoint(layer, "resid_post") for layer in range(model.n_layers)]
    return {point: JumpReLU(config, seed=point.layer).requires_grad_(False) for point in points}


@contextmanager
def small_hook(patched: Patched, number: int) -> Iterator[None]:
    """The same edit as ours by a plain hook: one latent, at the newest position of each pass."""
    point, latent, value = patched.cell(number)
    sae = patched.saes[point]
    read, write = sae.W_enc_T[latent], sae.W_dec[latent]
    bias, threshold = sae.b_enc[latent] - sae.b_dec @ read, sae.threshold[latent]

    def hook(_module: object, _arguments: object, output: Tensor) -> Tensor:
        last = output[:, -1]
        pre = last @ read + bias
        change = (value - pre * (pre > threshold))[:, None] * write
        return torch.cat([output[:, :-1], (last + change)[:, None]], dim=1)

    with _hooked(patched, point, hook):
        yield


@contextmanager
def literal_hook(patched: Patched, number: int) -> Iterator[None]:
    """As the seed's scripts do: the whole SAE forth and back, its reconstruction put in place."""
    point, latent, value = patched.cell(number)
    sae = patched.saes[point]

    def hook(_module: object, _arguments: object, output: Tensor) -> Tensor:
        latents = sae.encode(output[:, -1].float())
        latents[:, latent] = value
        output = output.clone()
        output[:, -1] = sae.decode(latents).to(output.dtype)
        return output

    with _hooked(patched, point, hook):
        yield


@contextmanager
def _hooked(patched: Patched, point: HookPoint, hook: object) -> Iterator[None]:
    handle = patched.model.blocks[point.layer].register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@torch.no_grad()
def transformers_generate(patched: Patched, n_returned: int = 1, use_cache: bool = True) -> None:
    """20 tokens by transformers; stop tokens are held off, so that all write as many."""
    tokens = torch.tensor([patched.prompt])
    patched.model.network.generate(
        tokens,
        attention_mask=torch.ones_like(tokens),
        max_new_tokens=N_NEW,
        min_new_tokens=N_NEW,
        do_sample=True,
        num_return_sequences=n_returned,
        use_cache=use_cache,
        pad_token_id=0,
    )
