"""The gambling study as steps: play -> record -> latents -> contrast -> patch -> report."""

from collections.abc import Mapping, Sequence

from fluoroscope.core.config import build
from fluoroscope.core.errors import ConfigError
from fluoroscope.core.registry import nearest
from fluoroscope.core.sink import Sink
from fluoroscope.models.hub import model_fingerprint
from fluoroscope.models.loading import load_tokenizer
from fluoroscope.models.shape import ModelShape
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import MapStep
from fluoroscope.runs.study import Study
from fluoroscope.steps.models import resolve_model
from fluoroscope.steps.sae_sources import find_saes
from fluoroscope.studies.gambling.config import GamblingConfig, Subject, Table
from fluoroscope.studies.gambling.games import GAMES
from fluoroscope.studies.gambling.spec import GamblingSpec, GameSpec
from fluoroscope.studies.gambling.steps.confirm import ConfirmStep
from fluoroscope.studies.gambling.steps.latents import ContrastStep, LatentsStep
from fluoroscope.studies.gambling.steps.patched import PatchedGamesStep
from fluoroscope.studies.gambling.steps.play import PlayStep
from fluoroscope.studies.gambling.steps.record import RecordStep
from fluoroscope.studies.gambling.steps.screen import DosesStep, ScreenStep
from fluoroscope.studies.gambling.steps.words import WordsStep


class GamblingStudy(Study[GamblingSpec, GamblingConfig]):
    name = "gambling"
    spec = GamblingSpec

    def resolve(self, spec: GamblingSpec) -> GamblingConfig:
        subject = _subject(spec)
        return GamblingConfig(
            subject=subject,
            table=_table(spec, subject),
            play=spec.play,
            record=spec.record,
            contrast=spec.contrast,
            patch=spec.patch,
            games=spec.games,
            pathway=spec.pathway,
            words=spec.words,
            seed=spec.seed,
            threads=spec.threads,
        )

    def sources(self, config: GamblingConfig) -> Mapping[str, str]:
        found = {}
        if config.subject.model is not None:
            model = config.subject.model
            found["model"] = model_fingerprint(model.name, model.revision)
        return found | {f"sae {sae.hook_point}": sae.weights_sha256 for sae in config.subject.saes}

    def steps(self, config: GamblingConfig) -> Sequence[MapStep]:
        steps: list[MapStep] = [PlayStep(config)]
        if config.subject.saes:
            steps += [
                RecordStep(config),
                LatentsStep(config),
                ContrastStep(config),
                ScreenStep(config),
                DosesStep(config),
                ConfirmStep(config),
                PatchedGamesStep(config),
                WordsStep(config),
            ]
        return steps

    def report(self, run: Run, sink: Sink) -> None:
        pass


def _subject(spec: GamblingSpec) -> Subject:
    if spec.model is None:
        raise ConfigError("Say which model plays: model=organism, a folder, or a hub id.")
    shape = ModelShape.of(spec.model.source, spec.model.revision)
    model = resolve_model(spec.model, shape)
    saes = []
    if spec.saes.source is not None:
        saes = find_saes(spec.saes.source, spec.saes.hook_points, model)
    return Subject(model=model, shape=shape, saes=saes)


def _table(spec: GamblingSpec, subject: Subject) -> Table:
    kind = GAMES.load(spec.game.name)
    rules = build(kind.rules_type, spec.game.rules, at="game.rules.")
    conditions = _conditions(spec.game, kind.conditions(rules))
    # Every game is made once, so that what a wording refuses is said now.
    prompts = [
        kind(rules, factors).observe(kind(rules, factors).reset())
        for factors in conditions.values()
    ]
    longest = max(prompts, key=len)
    n_tokens = len(longest) // 3
    if subject.model is not None:
        tokenizer = load_tokenizer(subject.model.name, subject.model.revision)
        n_tokens = len(tokenizer(longest)["input_ids"])
    return Table(
        game=spec.game.name,
        rules=rules.model_dump(mode="json"),
        conditions={name: dict(factors) for name, factors in conditions.items()},
        prompt_tokens=n_tokens,
    )


def _conditions(
    game: GameSpec, known: Mapping[str, Mapping[str, str]]
) -> Mapping[str, Mapping[str, str]]:
    if game.conditions is None:
        return known
    for name in game.conditions:
        if name not in known:
            raise ConfigError(
                f"{game.name} has no condition {name!r}.{nearest(name, dict(known))} "
                f"There are: {', '.join(known)}."
            )
    if not game.conditions:
        raise ConfigError("game.conditions=[] names no condition, so there is nothing to play.")
    return {name: known[name] for name in known if name in game.conditions}
