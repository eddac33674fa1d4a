"""The policy study as steps: collect -> candidates -> rewards -> learn -> evaluate -> replay."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from fluoroscope.core.errors import ConfigError
from fluoroscope.core.sink import Sink
from fluoroscope.runs.run import Run
from fluoroscope.runs.step import MapStep
from fluoroscope.runs.study import Study
from fluoroscope.steps.collect import COLLECT, CollectStep
from fluoroscope.steps.subject import Subject, resolve_subject, subject_sources, subject_steps
from fluoroscope.steps.task_data import check_task, place_of, task_sources
from fluoroscope.studies.policy.config import PolicyConfig, modes_of
from fluoroscope.studies.policy.report import write_report
from fluoroscope.studies.policy.settings import PolicySettings
from fluoroscope.studies.policy.spec import PolicySpec
from fluoroscope.studies.policy.steps.candidates import CANDIDATES, CandidatesStep
from fluoroscope.studies.policy.steps.evaluate import EVALUATE, EvaluateStep
from fluoroscope.studies.policy.steps.learn import LEARN, LearnStep
from fluoroscope.studies.policy.steps.replay import REPLAY, ReplayStep
from fluoroscope.studies.policy.steps.rewards import REWARDS, RewardsStep
from fluoroscope.studies.policy.steps.statics import STATICS, StaticsStep
from fluoroscope.studies.policy.steps.toy import TOY, ToyStep


class PolicyStudy(Study[PolicySpec, PolicyConfig]):
    name = "policy"
    spec = PolicySpec
    phases = MappingProxyType(
        {
            "collect": (COLLECT,),
            "learn": (CANDIDATES, REWARDS, STATICS, LEARN),
            "evaluate": (EVALUATE, REPLAY, TOY),
        }
    )

    def resolve(self, spec: PolicySpec) -> PolicyConfig:
        return _resolved(spec)

    def sketch(self, spec: PolicySpec) -> PolicyConfig:
        """Well-known models and SAEs are reckoned with by their sizes, without the hub."""
        return _resolved(spec, is_sketch=True)

    def sources(self, config: PolicyConfig) -> Mapping[str, str]:
        found = dict(subject_sources(config))
        for task in config.tasks.values():
            found |= task_sources(task, config.data_dir)
        return found

    def steps(self, config: PolicyConfig) -> Sequence[MapStep]:
        steps: list[MapStep] = [
            *subject_steps(config, config.seed),
            CollectStep(config, config.task, config.collect, config.data_dir, config.seed),
            CandidatesStep(config),
        ]
        if config.is_enumerated or config.evaluate.others:
            steps.append(RewardsStep(config))
        if not config.is_enumerated:
            steps.append(StaticsStep(config))
        return [
            *steps,
            LearnStep(config),
            EvaluateStep(config),
            ReplayStep(config),
            ToyStep(config),
        ]

    def report(self, run: Run, sink: Sink) -> None:
        write_report(run, run.config)


def _resolved(spec: PolicySpec, *, is_sketch: bool = False) -> PolicyConfig:
    # What later steps would refuse is refused before the first reply.
    for task in (spec.task, *spec.evaluate.others):
        check_task(task)
        if not is_sketch:
            place_of(task, spec.data_dir)
    names = [task.name for task in (spec.task, *spec.evaluate.others)]
    if len(set(names)) < len(names):
        raise ConfigError(f"evaluate.others names a task twice, or the task itself: {names}.")
    modes, is_enumerated, has_text_scores = modes_of(spec)
    if spec.candidates.pool not in spec.collect.pools:
        raise ConfigError(
            f"candidates.pool={spec.candidates.pool} needs latents that are pooled so, and "
            f"collect.pools is {spec.collect.pools}; add it there."
        )
    subject = resolve_subject(spec, is_sketch=is_sketch)
    known = [str(point) for point in subject.points]
    for point in spec.candidates.hook_points or ():
        if point not in known:
            raise ConfigError(
                f"candidates.hook_points has {point}; there are SAEs at {', '.join(known)}."
            )
    return PolicyConfig(
        **{name: getattr(subject, name) for name in Subject.model_fields},
        **{name: getattr(spec, name) for name in PolicySettings.model_fields},
        modes=modes,
        is_enumerated=is_enumerated,
        has_text_scores=has_text_scores,
    )
