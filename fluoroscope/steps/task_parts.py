"""Parts of a task: by what tables tell its samples apart."""

from collections.abc import Sequence

from fluoroscope.core.errors import ConfigError
from fluoroscope.data.tasks.samples import Sample


def part_of(sample: Sample, within: str | None) -> str:
    """A fact of the sample, or its category."""
    if within is None:
        return sample.category or "none"
    check_within([sample], within)
    return f"{within} {sample.facts[within]}"


def check_within(samples: Sequence[Sample], within: str | None) -> None:
    """Refuses a fact that samples do not have."""
    without = next((one for one in samples if within and within not in one.facts), None)
    if without is not None:
        known = ", ".join(without.facts) or "none"
        raise ConfigError(
            f"evaluate.within={within}: the sample {without.id!r} has no such fact; there are: "
            f"{known}. Leave it out to tell samples apart by category."
        )
