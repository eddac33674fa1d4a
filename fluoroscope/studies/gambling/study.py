"""The gambling study as steps: play -> record -> latents -> contrast -> patch -> report."""

from collections.abc import Mapping, Sequence

from fluoroscope.core.config import build
from fluoroscope.core.errors import ConfigError
from fluoroscope.core.registry import nearest
from fluoroscope.core.sink import Sink
from fluoroscope.core.storage import fingerprints
from fluoroscope.interventions.positions import GENERATED, LAST, Positions
from fluoroscope.models.hub import model_fingerprint
from fluoroscope.models.loading import load_tokenizer
from fluoroscope.models.shape import ModelShape
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import MapStep
from fluoroscope.runs.study import Study
from fluoroscope.steps.known_releases import find_or_sketch_saes
from fluoroscope.steps.models import subject_model
from fluoroscope.steps.sae_sources import SAEChoice
from fluoroscope.studies.gambling.config import GamblingConfig, Subject, Table
from fluoroscope.studies.gambling.games import GAMES
from fluoroscope.studies.gambling.report import write_report
from fluoroscope.studies.gambling.seed_files.games import log_files
from fluoroscope.studies.gambling.seed_rule import PARTS, seed_states
from fluoroscope.studies.gambling.spec import GamblingSpec, GameSpec
from fluoroscope.studies.gambling.steps.confirm import ConfirmStep
from fluoroscope.studies.gambling.steps.doses import DosesStep
from fluoroscope.studies.gambling.steps.latents import ContrastStep, LatentsStep
from fluoroscope.studies.gambling.steps.patched import PatchedGamesStep
from fluoroscope.studies.gambling.steps.pathway import PathwayStep
from fluoroscope.studies.gambling.steps.play import PlayStep
from fluoroscope.studies.gambling.steps.record import RecordStep
from fluoroscope.studies.gambling.steps.screen import ScreenStep
from fluoroscope.studies.gambling.steps.seed_rule import SeedRuleStep
from fluoroscope.studies.gambling.steps.truth import TruthStep
from fluoroscope.studies.gambling.steps.words import WordsStep

_SCREENED = (set(LAST.parts), set((LAST | GENERATED).parts))


class GamblingStudy(Study[GamblingSpec, GamblingConfig]):
    name = "gambling"
    spec = GamblingSpec

    def resolve(self, spec: GamblingSpec) -> GamblingConfig:
        return self._config(spec, _subject(spec))

    def sketch(self, spec: GamblingSpec) -> GamblingConfig:
        """Well-known models and SAEs are reckoned with by their sizes, without the hub."""
        return self._config(spec, _subject(spec, is_sketch=True), is_sketch=True)

    def _config(
        self, spec: GamblingSpec, subject: Subject, *, is_sketch: bool = False
    ) -> GamblingConfig:
        if spec.record.decisions == "last" and spec.contrast.decisions == "all":
            raise ConfigError(
                "contrast.decisions=all needs every decision, and record.decisions=last keeps the "
                "last of each game; set record.decisions=all."
            )
        table = _table(spec, subject, is_sketch=is_sketch)
        if spec.patch.criterion == "seed" and seed_states(table.games()) is None:
            raise ConfigError(
                "patch.criterion=seed needs the original's two prompts: game.name=slot_machine "
                f"with the conditions variable-{PARTS} and fixed-{PARTS} among those played."
            )
        return GamblingConfig(
            subject=subject,
            table=table,
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
        if config.play.log is not None:
            files = log_files(config.play.log)
            hashes = [sha256 for _, sha256 in fingerprints(files)]
            found |= {f"log {file}": sha256 for file, sha256 in zip(files, hashes, strict=True)}
        return found | {f"sae {sae.hook_point}": sae.weights_sha256 for sae in config.subject.saes}

    def steps(self, config: GamblingConfig) -> Sequence[MapStep]:
        steps: list[MapStep] = [PlayStep(config)]
        if config.subject.saes:
            steps += [
                RecordStep(config),
                LatentsStep(config),
                ContrastStep(config),
                ScreenStep(config),
                SeedRuleStep(config),
                DosesStep(config),
                ConfirmStep(config),
                PatchedGamesStep(config),
                *([PathwayStep(config)] if config.pathway.games else []),
                WordsStep(config),
            ]
        return [*steps, TruthStep(config)] if is_known_world(config) else steps

    def report(self, run: Run, sink: Sink) -> None:
        write_report(run, run.config, has_truth=is_known_world(run.config))


def is_known_world(config: GamblingConfig) -> bool:
    """Whether an organism plays the game that its world states a player of."""
    model, table = config.subject.model, config.table
    is_slot = table.game == "slot_machine" and table.rules["wording"] == "organism"
    return is_slot and model is not None and model.is_organism and config.play.log is None


def _subject(spec: GamblingSpec, *, is_sketch: bool = False) -> Subject:
    if spec.play.log is not None and spec.game.name != "slot_machine":
        raise ConfigError(f"play.log has games of slot_machine, and game is {spec.game.name}.")
    if spec.play.endpoint is not None and (spec.saes.source is not None or spec.play.log):
        raise ConfigError(
            "play.endpoint plays over HTTP: nothing can be recorded inside it, so saes must be "
            "null, and play.log is not needed."
        )
    is_elsewhere = spec.play.endpoint is not None or spec.play.log is not None
    if spec.model is None and is_elsewhere and spec.saes.source is None:
        return Subject(model=None, shape=None, saes=[])
    if spec.model is None:
        raise ConfigError(
            "Say who plays: model=organism, a folder or a hub id, or play.endpoint.url=... and "
            "play.endpoint.model=..."
        )
    shape = ModelShape.of(spec.model.source, spec.model.revision)
    model = subject_model(spec.model, shape, is_sketch=is_sketch)
    source, points, saes = spec.saes.source, spec.saes.hook_points, []
    if source is not None:
        saes = find_or_sketch_saes(source, points, model, is_sketch=is_sketch)
    _check_patches(spec, saes)
    return Subject(model=model, shape=shape, saes=saes)


def _check_patches(spec: GamblingSpec, saes: Sequence[SAEChoice]) -> None:
    """What steps behind hours of playing would refuse."""
    if not saes:
        return
    sampling, confirm = spec.play.sampling, spec.patch.confirm
    is_fixed = sampling.temperature == 0 or sampling.top_k == 1
    if is_fixed and confirm.latents and confirm.trials > 1:
        raise ConfigError(
            f"play.sampling leaves nothing to chance, so all {confirm.trials} texts of a patch "
            "would be one, counted as many; set patch.confirm.trials=1."
        )
    if set(Positions.parse(spec.patch.positions).parts) not in _SCREENED:
        raise ConfigError(
            f"patch.positions={spec.patch.positions!r}: effects are exact for LAST and for "
            "LAST | GENERATED only."
        )
    n, least = max(spec.patch.controls, spec.pathway.controls), min(sae.d_sae for sae in saes)
    if n >= least:
        raise ConfigError(
            f"patch.controls and pathway.controls must be below the {least} latents of the "
            f"smallest SAE, got {n}."
        )


def _table(spec: GamblingSpec, subject: Subject, *, is_sketch: bool) -> Table:
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
    # A plan may be made without the tokenizer; English has four letters a token or more.
    if subject.model is not None and not is_sketch:
        tokenizer = load_tokenizer(subject.model.name, subject.model.revision)
        n_tokens = len(tokenizer(longest)["input_ids"])
    return Table(
        game=spec.game.name,
        rules=rules.model_dump(mode="json"),
        conditions=list(conditions),
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
