"""What an anatomy run reads and compares, under which names.

A *reading* is one pass over a slice of the corpus: clean (`first`, `last`), or with something
taken away (`first-positions_removed`). A *set* is one SAE for each of some hook points: the set
that is looked at comes first, others are matched with it and judged beside it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fluoroscope.core.errors import ConfigError
from fluoroscope.data.corpus_config import CorpusConfig, Split
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.steps.sae_sources import SAEChoice
from fluoroscope.steps.subject import Subject
from fluoroscope.steps.train_saes import SAEPlan
from fluoroscope.studies.anatomy.settings import Ablation, AnatomySettings, Slice

NAMED = "given"
"""The name of the set that a user named by `saes`."""

MAIN_TEXT = "corpus"
"""What a report calls the main text beside others."""

TRAINED = "trained"
"""The name of the set that is trained here, where nothing is varied."""


class Reading(NamedTuple):
    slice: Slice
    ablation: Ablation | None = None

    @property
    def key(self) -> str:
        return self.slice if self.ablation is None else f"{self.slice}-{self.ablation}"


class AnatomyConfig(AnatomySettings, Subject):
    """An `AnatomySpec` with everything filled in."""

    others: dict[str, list[SAEChoice]]
    """The SAEs of `match.others`."""

    @property
    def readings(self) -> list[Reading]:
        """The first is what the others are compared with."""
        clean = [Reading(one) for one in self.slices]
        return clean + [Reading(self.slices[0], ablation) for ablation in self.ablations]

    @property
    def trained_sets(self) -> dict[str, dict[str, tuple[str, SAEPlan]]]:
        """Set -> hook point -> the loop that trains its SAE, and how."""
        found: dict[str, dict[str, tuple[str, SAEPlan]]] = {}
        for group, plans in self.train.groups.items() if self.train else ():
            for plan in plans:
                name = plan.key.removeprefix(plan.hook_point).removeprefix("-") or TRAINED
                found.setdefault(name, {})[plan.hook_point] = (group, plan)
        return found

    @property
    def set_names(self) -> list[str]:
        """The set that is looked at, and those that it is compared with."""
        return [*(self.trained_sets or [NAMED]), *self.others]

    @property
    def set_widths(self) -> dict[str, list[int]]:
        """Latents of the SAEs of each set."""
        own = {NAMED: [sae.d_sae for sae in self.saes]} if self.saes else {}
        for name, plans in self.trained_sets.items():
            own[name] = [int(plan.settings["d_sae"]) for _, plan in plans.values()]
        return own | {name: [sae.d_sae for sae in saes] for name, saes in self.others.items()}

    def corpora(self) -> dict[str, CorpusConfig]:
        """Every text that is read, by name; the main one has none."""
        given = {"": self.corpus, **self.cross.corpora}
        return {
            name: corpus.model_copy(
                update={
                    "context": self.corpus.context,
                    # What is held out is decided where SAEs are trained.
                    "held_out": self.train.corpus.held_out
                    if self.train and self._is_trained_on(corpus)
                    else 0.0,
                }
            )
            for name, corpus in given.items()
        }

    def split_of(self, corpus: str) -> Split:
        """Of a text by its name, what is read: where SAEs are trained here on the same text, the
        documents that they never saw; else all.
        """
        given = self.cross.corpora[corpus] if corpus else self.corpus
        return "test" if self._is_trained_on(given) else "train"

    def _is_trained_on(self, corpus: CorpusConfig) -> bool:
        return self.train is not None and same_source(self.train.corpus, corpus)


def same_source(one: CorpusConfig, other: CorpusConfig) -> bool:
    """Whether two settings name one text, by whatever path."""
    return _place(one) == _place(other)


def _place(corpus: CorpusConfig) -> str:
    path = Path(corpus.source).expanduser()
    return str(path.resolve()) if path.exists() else corpus.source


def layer_names(points: Sequence[HookPoint]) -> list[str]:
    """`Layer 3`; with its stream, where a layer has several."""
    streams = {point.stream for point in points}
    if len(streams) == 1:
        return [f"Layer {point.layer}" for point in points]
    return [f"Layer {point.layer}, {point.stream}" for point in points]


def check_plan(config: AnatomyConfig) -> None:
    """What later steps would refuse is refused before the first text is read."""
    if config.train:
        for name, corpus in {"": config.corpus, **config.cross.corpora}.items():
            if config.split_of(name) == "test":
                _check_cut_alike(corpus, config.train.corpus)
    if MAIN_TEXT in config.cross.corpora:
        raise ConfigError(f"cross.corpora.{MAIN_TEXT} is how the report calls corpus; rename it.")
    points = set(map(str, config.points))
    for name, saes in config.others.items():
        if not points & {sae.hook_point for sae in saes}:
            raise ConfigError(
                f"match.others.{name} has SAEs of {', '.join(sae.hook_point for sae in saes)}, and "
                f"looked at are those of {', '.join(sorted(points))}: there is nothing to match. "
                "Name hook points that both have (saes.hook_points)."
            )
    names = config.set_names
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigError(f"match.others names {twice!r}, which is a set already; rename it.")
    known = {str(point) for point in config.points}
    for point, latents in config.shown.latents.items():
        if point not in known:
            raise ConfigError(
                f"shown.latents names {point}, where no SAE is looked at; there are those of "
                f"{', '.join(sorted(known))}."
            )
        width = dict(zip(map(str, config.points), config.widths, strict=True))[point]
        if max(latents, default=0) >= width:
            raise ConfigError(
                f"shown.latents.{point} names latent {max(latents)}; the SAE has 0 to {width - 1}."
            )
    if config.corpus.context > config.shape.context_length:
        raise ConfigError(
            f"corpus.context={config.corpus.context} is longer than the "
            f"{config.shape.context_length} positions that {config.model.name} reads."
        )


_CUT_BY = ("text_field", "split_documents_on", "hub_subset", "hub_split")


def _check_cut_alike(corpus: CorpusConfig, trained_on: CorpusConfig) -> None:
    """Documents are held out by their text, so they must be the same documents."""
    for name in _CUT_BY:
        one, other = getattr(corpus, name), getattr(trained_on, name)
        if one != other:
            raise ConfigError(
                f"corpus.{name}={one} and train.corpus.{name}={other} make other documents of the "
                f"same text, so that what SAEs were trained on could not be left out. Make them "
                "equal, or read another text."
            )
