"""What the benchmark of games runs: the full design on the organism, and three ways to play it."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers.generation.stopping_criteria import StoppingCriteriaList, StopStringCriteria

from fluoroscope.models.language_model import LanguageModel
from fluoroscope.models.sampling import Sampling
from fluoroscope.models.shape import ModelShape
from fluoroscope.studies.gambling.episodes import Ask, Conversation, Episode, Reply, Seat, converse
from fluoroscope.studies.gambling.games.base import luck_tape
from fluoroscope.studies.gambling.games.slot_machine import SlotMachine, SlotRules
from fluoroscope.studies.gambling.players.model_player import ModelPlayer
from fluoroscope.studies.gambling.settings import PlaySettings
from fluoroscope.studies.gambling.spec import GamblingSpec
from fluoroscope.studies.settings import study_spec

SEED_TOKENS = 100
"""Tokens that the seed writes for every decision, whatever it says."""

Answer = Callable[[Ask], Reply]
Tokens = list[int]


@dataclass(frozen=True)
class Casino:
    """A preset's model, settings, and games."""

    model: LanguageModel
    games: dict[str, SlotMachine]
    """Condition -> the game in it."""

    play: PlaySettings
    seed: int

    @classmethod
    def open(cls, preset: str = "gambling/organism") -> "Casino":
        spec = study_spec("gambling", preset, None, [])
        assert isinstance(spec, GamblingSpec)
        assert spec.model is not None
        rules = SlotRules(**spec.game.rules)
        factors = SlotMachine.conditions(rules)
        games = {name: SlotMachine(rules, levels) for name, levels in factors.items()}
        model = LanguageModel.load(spec.model.source, dtype=spec.model.dtype)
        return cls(model, games, spec.play, spec.seed)

    def spread(self, n: int) -> list[str]:
        """`n` conditions, evenly chosen."""
        names = list(self.games)
        return [names[len(names) * i // n] for i in range(n)]

    def seats(self, repetitions: Sequence[int], conditions: Sequence[str]) -> list[Seat]:
        """Games on the luck that the study would give them."""
        n_rounds = next(iter(self.games.values())).rules.max_rounds
        tapes = {r: luck_tape(SlotMachine, self.seed, r, n_rounds) for r in repetitions}
        return [
            Seat(f"{name}-{r:05d}", name, r, self.games[name], tapes[r], self.seed)
            for r in repetitions
            for name in conditions
        ]


@dataclass
class Way:
    """One way to play; keeps the games that were played, so that they can be compared."""

    name: str
    play: Callable[[Sequence[Conversation]], list[Episode]]
    casino: Casino
    rounds: Sequence[Sequence[Seat]]
    """What each round plays, in turn."""

    episodes: dict[str, Episode] = field(default_factory=dict)
    n_runs: int = 0

    @property
    def note(self) -> str:
        return f"{len(self.rounds[0])} games"

    def run(self) -> float:
        """CPU seconds a decision of the next round."""
        seats = self.rounds[self.n_runs % len(self.rounds)]
        self.n_runs += 1
        begin = time.process_time()
        played = self.play([converse(seat, self.casino.play.retries) for seat in seats])
        spent = time.process_time() - begin
        self.episodes |= {one.seat.key: one for one in played}
        return spent / sum(len(one.attempts) for one in played)


def ours(casino: Casino, name: str, repetitions: Sequence[int]) -> Way:
    """`ModelPlayer` with a shard of all conditions of some repetitions."""
    player = ModelPlayer(
        casino.model,
        Sampling(**casino.play.sampling.model_dump()),
        max_tokens=casino.play.max_tokens,
        max_rows=casino.play.rows,
    )
    return Way(name, player.play, casino, [casino.seats(repetitions, list(casino.games))])


def one_by_one(
    casino: Casino, name: str, answer: Answer, repetitions: Sequence[int], n: int
) -> Way:
    """One game after another by `answer`, in `n` conditions; every round another repetition."""
    conditions = casino.spread(n)

    def play(conversations: Sequence[Conversation]) -> list[Episode]:
        return [_play_alone(conversation, answer) for conversation in conversations]

    return Way(name, play, casino, [casino.seats([r], conditions) for r in repetitions])


def _play_alone(conversation: Conversation, answer: Answer) -> Episode:
    ask = next(conversation)
    while True:
        try:
            ask = conversation.send(answer(ask))
        except StopIteration as end:
            return end.value


def cached(casino: Casino) -> Answer:
    """What a user of transformers would call, under the settings of ours."""

    def answer(ask: Ask) -> Reply:
        stops = {"stop_strings": list(ask.stop), "tokenizer": casino.model.tokenizer}
        return _generated(casino, ask, max_new_tokens=casino.play.max_tokens, **stops)

    return answer


def cached_quicker(casino: Casino) -> Answer:
    """The same as quick as it can be had: `stop_strings=` looks through the vocabulary at every
    call, which here is done once.
    """
    (stop,) = {game.echoes for game in casino.games.values()}
    stops = StoppingCriteriaList([StopStringCriteria(casino.model.tokenizer, list(stop))])

    def answer(ask: Ask) -> Reply:
        limit = casino.play.max_tokens
        return _generated(casino, ask, max_new_tokens=limit, stopping_criteria=stops)

    return answer


def seeds_way(casino: Casino) -> Answer:
    """Every pass reads everything again, and 100 tokens are written, whatever they say."""

    def answer(ask: Ask) -> Reply:
        room = casino.model.context_length - len(_tokens(casino, ask.prompt))
        n = min(SEED_TOKENS, room)
        return _generated(casino, ask, max_new_tokens=n, min_new_tokens=n, use_cache=False)

    return answer


@torch.no_grad()
def _generated(casino: Casino, ask: Ask, **settings: object) -> Reply:
    tokenizer, sampling = casino.model.tokenizer, casino.play.sampling
    tokens = torch.tensor([_tokens(casino, ask.prompt)])
    torch.manual_seed(ask.seed)
    generate: Callable[..., Tensor] = casino.model.network.generate  # pyright: ignore[reportAssignmentType]  # a module's attributes look like tensors to it
    found = generate(
        tokens,
        attention_mask=torch.ones_like(tokens),
        do_sample=True,
        temperature=sampling.temperature,
        top_k=sampling.top_k or 0,
        top_p=sampling.top_p or 1.0,
        pad_token_id=tokenizer.pad_token_id,
        **settings,
    )
    new = found[0, tokens.shape[1] :]
    text = str(tokenizer.decode(new, skip_special_tokens=True))
    ends = [place for stop in ask.stop if (place := text.find(stop)) >= 0]
    return Reply(text[: min(ends)] if ends else text, n_tokens=len(new))


def _tokens(casino: Casino, prompt: str) -> Tokens:
    return list(casino.model.tokenizer(prompt)["input_ids"])


@dataclass(frozen=True)
class Tally:
    """Tokens of a way's decisions."""

    decisions: int
    prompt: float
    """Tokens of a prompt, on average."""

    longest: int
    apart: float
    """Tokens a decision that are left to read, where what the prompts of decisions that are made
    at once have in common is read once."""

    written: float


def tally(way: Way) -> Tally:
    waves: dict[int, list[Tokens]] = {}
    n_written = 0
    for episode in way.episodes.values():
        for number, row in enumerate(episode.attempts):
            waves.setdefault(number, []).append(_tokens(way.casino, str(row["prompt"])))
            assert isinstance(row["n_tokens"], int)
            n_written += row["n_tokens"]
    lengths = [len(prompt) for wave in waves.values() for prompt in wave]
    n = len(lengths)
    apart = sum(_n_apart(wave) for wave in waves.values())
    return Tally(n, sum(lengths) / n, max(lengths), apart / n, n_written / n)


def _n_apart(prompts: list[Tokens]) -> int:
    # Sorted, a prompt has nothing in common with any before it but what the last one has too.
    before: Tokens = []
    found = 0
    for prompt in sorted(prompts):
        pairs = enumerate(zip(before, prompt, strict=False))
        agreed = next((i for i, (a, b) in pairs if a != b), min(len(before), len(prompt)))
        found, before = found + len(prompt) - agreed, prompt
    return found


def decision_flops(model: LanguageModel, n_read: float, n_written: float, n_prompt: float) -> float:
    """Of a decision for which `n_read` of the prompt's tokens are read: a token sees those before
    it, and logits are made of those that draw one. The last that is drawn is not read.
    """
    shape = ModelShape.from_network(model.network)
    head = 2.0 * shape.vocab_size * shape.d_model
    a_token = shape.forward_flops_per_token(0) - head
    attention = shape.forward_flops_per_token(1) - shape.forward_flops_per_token(0)
    reading = n_read * (a_token + attention * n_prompt / 2)
    writing = (n_written - 1) * (a_token + attention * (n_prompt + n_written / 2))
    return reading + writing + n_written * head
