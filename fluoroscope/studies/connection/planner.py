"""What a training needs before it starts: parameters, products, memory, and whether it fits.

Memory is that of one device that does the whole training: the state (weights, gradients and the two
moments of AdamW), what the pass keeps for gradients, the logits with their probabilities, and what
is held for a moment. Nothing is measured on a device; see `dry_run` for how it is found.
"""

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from fluoroscope.studies.connection.dry_run import AS_WRITTEN, Way, Workload, dry_run
from fluoroscope.studies.connection.reasoners import AnyConfig, ParameterCounts, count_parameters

Verdict = Literal["safe", "tight", "does not fit"]
Moments = Literal["float32", "bfloat16", "int8"]

TIGHT = 0.85
"""Share of the free memory above which what fits is called tight, as by `fluoro plan`."""

PROCESS_BYTES = 950_000_000
"""Of a process with torch and a CUDA context, beside its tensors; as for `fluoro plan`."""

_BYTES = {"float32": 4, "bfloat16": 2, "int8": 1}


@dataclass(frozen=True)
class Training:
    """How a training is done, as far as its memory goes."""

    way: Way = AS_WRITTEN

    moments: Moments = "float32"
    """What the two moments of AdamW are kept as; weights and gradients always are float32."""

    @property
    def state_bytes_each(self) -> int:
        """Of a parameter: weight, gradient, two moments; 16 with moments in float32, also where
        the pass is in half precision.
        """
        return 4 + 4 + 2 * _BYTES[self.moments]


PLAIN = Training()


class Needs(NamedTuple):
    """Bytes of memory."""

    state: int
    activations: int

    logits: int
    """And their logarithms of probabilities, in float32."""

    workspace: int
    """Whatever is there for a moment beside the rest when most is there: gradients of activations
    on their way, gradients of a parameter before they are added up, roots of second moments."""

    process: int

    @property
    def total(self) -> int:
        return sum(self)


class Plan(NamedTuple):
    """Of one step of training of a whole batch."""

    parameters: ParameterCounts
    forward_flops: int
    training_flops: int
    needs: Needs

    def verdict(self, free_bytes: float) -> Verdict:
        """`tight` fits, but leaves little for what nobody thought of."""
        return verdict(self.needs.total, free_bytes)

    def says(self, free_bytes: float) -> str:
        """A sentence for people."""
        needs = self.needs
        parts = ", ".join(f"{name} {_gib(amount)}" for name, amount in needs._asdict().items())
        return (
            f"{self.parameters.total:,} parameters need {_gib(needs.total)} ({parts}) of "
            f"{_gib(free_bytes)}: {self.verdict(free_bytes)}."
        )


_PLANNED: dict[tuple[str, str, Workload, Training], Plan] = {}


def plan_training(config: AnyConfig, work: Workload, training: Training = PLAIN) -> Plan:
    """Of any reasoner, however large: nothing of it is ever in memory. Found once in each process,
    as it takes a second and a run that begins asks for it several times.
    """
    asked = (type(config).__name__, config.model_dump_json(), work, training)
    if asked not in _PLANNED:
        _PLANNED[asked] = _planned(config, work, training)
    return _PLANNED[asked]


def _planned(config: AnyConfig, work: Workload, training: Training) -> Plan:
    counts = count_parameters(config)
    run = dry_run(config, work, training.way)
    logits = 2 * 4 * work.batch * work.n_target * config.vocab_size * run.n_answered
    # AdamW takes the roots of all second moments together, when the pass is over.
    roots = _BYTES[training.moments] * counts.total if training.moments != "int8" else 0
    most = max(run.peak_bytes, roots)
    needs = Needs(
        state=training.state_bytes_each * counts.total,
        activations=run.activation_bytes,
        logits=logits,
        workspace=max(0, most - run.activation_bytes - logits),
        process=PROCESS_BYTES,
    )
    return Plan(counts, run.forward_flops, run.training_flops, needs)


def verdict(needed: float, free: float) -> Verdict:
    """As of `fluoro plan`."""
    if needed > free:
        return "does not fit"
    return "tight" if needed > TIGHT * free else "safe"


def largest_batch(
    config: AnyConfig, work: Workload, free_bytes: float, training: Training = PLAIN
) -> int:
    """Texts that fit at once, whatever `work.batch` is; 0 where not even one does."""

    def needed(batch: int) -> int:
        return plan_training(config, replace(work, batch=batch), training).needs.total

    fits, too_many = 0, 1
    while needed(too_many) <= free_bytes:
        fits, too_many = too_many, 2 * too_many
    # At any moment as much is there as a fixed part and one for each text, and the most over all
    # moments bends upwards: what a line between a batch that fits and one that does not says fits
    # surely does.
    while fits and too_many - fits > 1:
        slope = (needed(too_many) - needed(fits)) / (too_many - fits)
        surely = fits + int((free_bytes - needed(fits)) / slope)
        candidate = min(surely + 1, too_many - 1)
        if needed(candidate) > free_bytes:
            return candidate - 1
        fits = candidate
    return fits


def says_why_not(
    config: AnyConfig, work: Workload, free_bytes: float, training: Training = PLAIN
) -> str:
    """Of what does not fit: what it needs, and what would fit."""
    said = plan_training(config, work, training).says(free_bytes)
    most = largest_batch(config, work, free_bytes, training)
    if most == 0:
        return f"{said} Not even a batch of one text fits."
    return f"{said} The largest batch that fits is {most}, of {work.n_source} tokens a text."


def _gib(n_bytes: float) -> str:
    return f"{n_bytes / 2**30:.1f} GiB"
