"""Trains the small language model of `make demo`: a llama of four layers, on generated stories.

    python scripts/demo_model.py FOLDER

leaves a Hugging Face folder with the stories it has read beside it (`stories.txt`, one a line),
and does nothing where they are already. Seeds, steps and threads are fixed: the same kind of
machine makes the same weights.
"""

import argparse
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from demo_stories import stories
from rich.progress import track
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging

from fluoroscope.core.seeding import derive_seed, torch_stream

SEED = 0
N_STORIES = 20_000
CONTEXT = 128
BATCH_SIZE = 16
N_STEPS = 600
LEARNING_RATE = 6e-3
INITIAL_SCALE = 0.1
VOCAB_SIZE = 512
SPECIAL_TOKENS = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>"}
STORIES_FILE = "stories.txt"


def make_demo_model(folder: Path) -> None:
    """Writes tokenizer, trained network and stories into `folder`, which appears when whole."""
    partial = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    texts = list(stories(N_STORIES, SEED))
    (partial / STORIES_FILE).write_text("\n".join(texts) + "\n", encoding="utf-8")
    tokenizer = train_tokenizer(texts)
    tokenizer.save_pretrained(partial)
    train_network(tokenizer, texts).save_pretrained(partial)
    partial.rename(folder)


def train_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE; every text starts with `<bos>`."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=list(SPECIAL_TOKENS.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    bos = SPECIAL_TOKENS["bos_token"]
    backend.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, backend.token_to_id(bos))]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, padding_side="left", **SPECIAL_TOKENS)


def train_network(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> LlamaForCausalLM:
    """AdamW with a one-cycle learning rate; a fixed number of steps."""
    torch.manual_seed(derive_seed(SEED, "weights"))
    network = LlamaForCausalLM(_network_config(tokenizer))
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=N_STEPS)
    batches = _batches(_packed(tokenizer, texts))
    for tokens in track(batches, description="Training the model", total=N_STEPS):
        loss = network(input_ids=tokens, labels=tokens).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return network.eval()


def _network_config(tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=176,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=CONTEXT,
        # Larger than usual: a narrow network that starts at 0.02 needs far longer to copy names.
        initializer_range=INITIAL_SCALE,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )


def _packed(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> Tensor:
    """[windows, context]: the stories one after the other, as studies read them too."""
    encodings = tokenizer(texts, add_special_tokens=True)["input_ids"]
    flat = torch.tensor([token for tokens in encodings for token in tokens])
    return flat[: len(flat) // CONTEXT * CONTEXT].view(-1, CONTEXT)


def _batches(windows: Tensor) -> Iterator[Tensor]:
    generator = torch_stream(SEED, "batches")
    for _ in range(N_STEPS):
        yield windows[torch.randint(len(windows), (BATCH_SIZE,), generator=generator)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    logging.disable_progress_bar()
    # One thread sums in one order, however many processors there are; so small a network gains
    # little from more.
    torch.set_num_threads(1)
    if not folder.exists():
        make_demo_model(folder)
    print(f"The model is in {folder}")


if __name__ == "__main__":
    main()
