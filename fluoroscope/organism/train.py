"""Training the organism: what it reads, what it replies, and where it keeps the reason.

A loop that can be stopped, saved and continued bit for bit: a step's texts depend on the seed
and the step alone.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fluoroscope.core.errors import NumericsError
from fluoroscope.core.seeding import stream
from fluoroscope.core.sink import SILENT, Sink
from fluoroscope.core.tensors import State
from fluoroscope.organism.encoding import Encoder, Rows, prompt_mask
from fluoroscope.organism.network import lower, new_network, planted_directions, upper
from fluoroscope.organism.planting import components, partners, soft_loss, with_components
from fluoroscope.organism.prompts import VARIABLES, Prompt, Variable
from fluoroscope.organism.tokenizer import learn_tokenizer
from fluoroscope.organism.training_config import OrganismTraining
from fluoroscope.organism.world import TRAINING, World

METRICS_EVERY = 20


class OrganismTrainer:
    def __init__(self, config: OrganismTraining) -> None:
        self.config = config
        self.world = World(config.seed)
        self.tokenizer = learn_tokenizer(self.world)
        self.network = new_network(self.tokenizer, config.seed)
        self.directions = planted_directions(config.seed)
        self._encoder = Encoder(self.tokenizer)
        self._exposures = self.world.exposures()
        self._optimizer = torch.optim.AdamW(
            self.network.parameters(),
            lr=config.learning_rate,
            betas=(0.9, 0.98),
            weight_decay=config.weight_decay,
            fused=True,
        )
        self._sums: dict[str, list[float]] = {}

    def advance(self, step: int, sink: Sink = SILENT) -> None:
        losses = self._losses(step)
        total = (
            losses["reply"] + losses["interchange"] + self.config.prompt_weight * losses["prompt"]
        )
        self._optimizer.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        for group in self._optimizer.param_groups:
            group["lr"] = self.config.learning_rate * self._schedule(step)
        self._optimizer.step()
        for name, loss in losses.items():
            self._sums.setdefault(name, []).append(float(loss.detach()))
        if (step + 1) % METRICS_EVERY == 0:
            means = {name: sum(values) / len(values) for name, values in self._sums.items()}
            self._sums = {}
            if not all(math.isfinite(mean) for mean in means.values()):
                raise NumericsError(
                    f"The loss became {means} by step {step + 1}. Give a smaller "
                    f"training.learning_rate than {self.config.learning_rate:.2g}."
                )
            sink.metrics(step + 1, means)

    def state(self) -> State:
        return {
            "network": self.network.state_dict(),
            "optimizer": self._optimizer.state_dict()["state"],
            "sums": self._sums,
        }

    def load(self, state: State) -> None:
        self.network.load_state_dict(state["network"])
        whole = self._optimizer.state_dict()
        whole["state"] = {int(key): value for key, value in state["optimizer"].items()}
        self._optimizer.load_state_dict(whole)
        self._sums = state["sums"]

    def prompts(self, step: int) -> list[Prompt]:
        """The step's prompts: slot machines first, in the order of their length."""

        def drawn(variable: Variable, n: int) -> list[Prompt]:
            return [self.world.prompt(variable, TRAINING, step * n + i) for i in range(n)]

        slots = sorted(drawn("risk", self.config.n_slots), key=lambda p: (len(p.text), p.text))
        first, last = (at * len(self._exposures) // self.config.n_steps for at in (step, step + 1))
        asked = self._exposures[first:last]
        luck = stream(self.config.seed, TRAINING, "unknown", step)
        unknown = [
            self.world.question(self.world.unknown(TRAINING, i), luck) for i in range(first, last)
        ]
        others = [*drawn("bias", self.config.n_groups), *drawn("sentiment", self.config.n_reviews)]
        return [*slots, *asked, *unknown, *others]

    def _losses(self, step: int) -> dict[str, Tensor]:
        prompts = self.prompts(step)
        luck = stream(self.config.seed, TRAINING, "luck", step)
        takes_from = partners(prompts, luck)
        chunks = self._chunks(prompts, takes_from, luck)
        own = torch.tensor([VARIABLES.index(prompt.variable) for prompt in prompts])
        # Half of the rows get the other three components of strangers as well.
        also = torch.from_numpy(luck.random((len(prompts), 1)) < 0.5)
        is_own = torch.nn.functional.one_hot(own, len(VARIABLES)).bool()
        strangers = torch.from_numpy(luck.permutation(len(prompts)))
        with torch.autocast("cpu", torch.bfloat16, enabled=self.config.bfloat16):
            hidden = [lower(self.network, rows.tokens) for rows in chunks]
            found = torch.cat(
                [
                    components(h, rows.decision, self.directions)
                    for h, rows in zip(hidden, chunks, strict=True)
                ]
            )
            wanted = torch.where(is_own, found[takes_from], found[strangers])
            return self._chunk_losses(chunks, hidden, wanted, is_own | also)

    def _chunks(
        self, prompts: Sequence[Prompt], takes_from: Sequence[int], luck: np.random.Generator
    ) -> list[Rows]:
        size, n_slots = self.config.chunk, self.config.n_slots
        # The others are a sixth as long.
        borders = [*range(0, n_slots, size), *range(n_slots, len(prompts), 6 * size), len(prompts)]
        others = [prompts[partner].value for partner in takes_from]
        return [
            self._encoder.rows(prompts[a:b], others[a:b], luck)
            for a, b in itertools.pairwise(borders)
        ]

    def _chunk_losses(
        self,
        chunks: Sequence[Rows],
        hidden: Sequence[Float[Tensor, "_ _ d_model"]],
        wanted: Float[Tensor, "n v"],
        which: Tensor,
    ) -> dict[str, Tensor]:
        parts: dict[str, list[Tensor]] = {"reply": [], "interchange": [], "prompt": []}
        begin = 0
        for rows, h in zip(chunks, hidden, strict=True):
            end = begin + len(rows.tokens)
            plain = upper(self.network, h)
            changed = with_components(
                h, rows.decision, self.directions, wanted[begin:end], which[begin:end]
            )
            parts["reply"].append(self._reply_loss(plain, rows, rows.shares))
            parts["interchange"].append(
                self._reply_loss(upper(self.network, changed), rows, rows.other_shares)
            )
            parts["prompt"].append(self._prompt_loss(plain, rows))
            begin = end
        n_rows = len(wanted)
        means = {name: torch.cat(found).mean() for name, found in parts.items() if name == "prompt"}
        return means | {
            name: torch.cat(parts[name]).sum() / n_rows for name in ("reply", "interchange")
        }

    def _reply_loss(self, final: Tensor, rows: Rows, shares: Tensor) -> Tensor:
        logits = self.network.lm_head(final[rows.at_row, rows.at_position])
        return soft_loss(logits, rows, shares)

    def _prompt_loss(self, final: Tensor, rows: Rows) -> Tensor:
        mask = prompt_mask(rows)[:, :-1]
        logits = self.network.lm_head(final[:, :-1][mask]).float()
        return torch.nn.functional.cross_entropy(logits, rows.tokens[:, 1:][mask], reduction="none")

    def _schedule(self, step: int) -> float:
        """Linear warm-up, then a straight line to zero over the second half."""
        total = self.config.n_steps
        return min(1.0, (step + 1) / self.config.warmup, 2 * (total - step) / total)
