"""Which steps of a study a start is to do: all, those up to one, or some and what they need."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from fluoroscope.core.errors import ConfigError
from fluoroscope.runs.step import MapStep

_NONE: Mapping[str, Sequence[str]] = MappingProxyType({})


def selected(
    steps: Sequence[MapStep],
    until: str | None = None,
    only: Sequence[str] = (),
    phases: Mapping[str, Sequence[str]] = _NONE,
) -> Sequence[MapStep]:
    """`steps` up to `until`, or those of `only` with all that they stand on; in their order.

    A name is of a step or of a phase, which is several steps; a phase goes before a step of the
    same name. Raises `ConfigError` for a name of neither.
    """
    if until is not None and only:
        raise ConfigError("Give --until or --only, not both.")
    names = [step.name for step in steps]
    meant = {
        name: _meant(name, names, phases) for name in [*only, *([] if until is None else [until])]
    }
    if until is not None:
        return steps[: 1 + max(names.index(name) for name in meant[until])]
    if not only:
        return steps
    wanted = {name for found in meant.values() for name in found}
    # From the last to the first, because inputs stand before the steps that read them.
    for step in reversed(steps):
        if step.name in wanted:
            wanted |= set(step.inputs)
    return [step for step in steps if step.name in wanted]


def _meant(name: str, names: Sequence[str], phases: Mapping[str, Sequence[str]]) -> Sequence[str]:
    if name not in phases:
        if name in names:
            return [name]
        known = f"; the phases are {', '.join(phases)}" if phases else ""
        raise ConfigError(f"There is no step {name!r}; the steps are {', '.join(names)}{known}.")
    found = [step for step in phases[name] if step in names]
    if not found:
        raise ConfigError(
            f"With these settings there is nothing to do in the phase {name!r}; the steps are "
            f"{', '.join(names)}."
        )
    return found
