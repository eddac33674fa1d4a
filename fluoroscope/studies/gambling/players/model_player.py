"""A language model as a player, with all games of a shard in flight at once.

Games advance in waves: each wave is one `generate` over the next decision of every game that
goes on. A game's rows depend on its own seeds alone, so who plays beside it changes nothing.
"""

from collections.abc import Sequence

from fluoroscope.core.errors import ConfigError
from fluoroscope.interventions.positions import Positions
from fluoroscope.interventions.row_edits import EditSet, row_edits
from fluoroscope.models.generation import Generation, Request, generate
from fluoroscope.models.language_model import LanguageModel
from fluoroscope.models.sampling import Sampling
from fluoroscope.studies.gambling.episodes import Ask, Conversation, Episode, Reply
from fluoroscope.studies.gambling.players.base import OnFinish, Player


class ModelPlayer(Player):
    def __init__(
        self,
        model: LanguageModel,
        sampling: Sampling,
        *,
        max_tokens: int,
        max_rows: int = 256,
        chat: bool = False,
        system: str | None = None,
        edits: Sequence[EditSet] | None = None,
        positions: Positions | None = None,
    ) -> None:
        """`chat` puts each prompt into the model's chat template as one turn of the user.
        `edits` are one set for every game, in force whenever it is its turn, at `positions`.
        """
        if chat and not getattr(model.tokenizer, "chat_template", None):
            raise ConfigError(
                f"The tokenizer of {model.name} has no chat template; it is a base model. Use "
                "play.chat=false."
            )
        if (edits is None) != (positions is None):
            raise ConfigError("Edits need positions, and positions edits.")
        self.model, self.sampling, self.max_tokens = model, sampling, max_tokens
        self.max_rows, self.chat, self.system = max_rows, chat, system
        self.edits, self.positions = edits, positions

    def play(
        self, conversations: Sequence[Conversation], on_finish: OnFinish | None = None
    ) -> list[Episode]:
        if self.edits is not None and len(self.edits) != len(conversations):
            raise ConfigError(f"{len(conversations)} games were given {len(self.edits)} edits.")
        n = len(conversations)
        over: dict[int, Episode] = {}
        asks = {i: next(conversation) for i, conversation in enumerate(conversations)}
        while asks:
            going = sorted(asks)
            replies = self._answer(going, [asks[i] for i in going])
            asks = {}
            for i, reply in zip(going, replies, strict=True):
                try:
                    asks[i] = conversations[i].send(reply)
                except StopIteration as end:
                    over[i] = end.value
            if on_finish is not None:
                on_finish(len(over), n)
        return [over[i] for i in range(n)]

    def _answer(self, games: Sequence[int], asks: Sequence[Ask]) -> list[Reply]:
        requests = [self._request(ask) for ask in asks]
        if self.edits is None or self.positions is None:
            return [_reply(one) for one in self._generate(requests)]
        with row_edits(self.model, [self.edits[i] for i in games], self.positions):
            return [_reply(one) for one in self._generate(requests)]

    def _generate(self, requests: Sequence[Request]) -> list[Generation]:
        return generate(self.model, requests, sampling=self.sampling, max_rows=self.max_rows)

    def _request(self, ask: Ask) -> Request:
        return Request(
            prompt=self.prompt(ask.prompt),
            seed=ask.seed,
            max_tokens=self.max_tokens,
            stop=ask.stop,
            may_echo=True,
        )

    def prompt(self, text: str) -> str | tuple[int, ...]:
        """What the model is given: the text, or the tokens of a chat that asks it."""
        return chat_tokens(self.model, text, self.system) if self.chat else text


def chat_tokens(model: LanguageModel, text: str, system: str | None) -> tuple[int, ...]:
    """One turn of the user in the model's chat template, and the beginning of the answer."""
    turns = [{"role": "user", "content": text}]
    if system is not None:
        turns.insert(0, {"role": "system", "content": system})
    rendered = model.tokenizer.apply_chat_template(
        turns, add_generation_prompt=True, tokenize=False
    )
    # The template writes the first token itself; the tokenizer must not add another.
    found = model.tokenizer(str(rendered), add_special_tokens=False)["input_ids"]
    return tuple(int(token) for token in found)


def _reply(one: Generation) -> Reply:
    return Reply(one.text, one.finish, len(one.tokens), one.n_edits)
