"""The organism's tokenizer: byte-level BPE learned on its world, with every digit a token."""

from collections.abc import Iterator
from functools import cache

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from fluoroscope.core.seeding import stream
from fluoroscope.organism.prompts import VARIABLES, draw
from fluoroscope.organism.world import World

MAX_VOCAB_SIZE = 1024
MIN_FREQUENCY = 60
"""Answers are oftener in the texts that are learned from, whole names are not: so an answer is
one token, and a name is composed of syllables that many names share."""

N_TEXTS_OF_A_KIND = 6_000
_SPECIAL = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>"}


def learn_tokenizer(world: World) -> PreTrainedTokenizerFast:
    """The same tokens for the same world. Every text starts with `<bos>`."""
    backend = Tokenizer.from_str(_rules(world.seed))
    return PreTrainedTokenizerFast(tokenizer_object=backend, padding_side="left", **_SPECIAL)


@cache
def _rules(seed: int) -> str:
    """What is learned, once a process: the texts take seconds to make."""
    backend = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(r"\d"), behavior="isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=MAX_VOCAB_SIZE,
        min_frequency=MIN_FREQUENCY,
        special_tokens=list(_SPECIAL.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(_texts(World(seed)), trainer)
    bos = _SPECIAL["bos_token"]
    backend.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, backend.token_to_id(bos))]
    )
    return backend.to_str()


def _texts(world: World) -> Iterator[str]:
    for variable in VARIABLES:
        for i in range(N_TEXTS_OF_A_KIND):
            # Odd questions are about unknown people: no name is more frequent than another.
            prompt = world.prompt(variable, "tokenizer", 2 * i + 1)
            yield prompt.text + draw(prompt.replies(), stream(world.seed, "tokenizer", i))
