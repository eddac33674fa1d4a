"""Findings of a steering run whose replies are made up: 60 samples, six recipes, two tasks."""

from functools import cache

import polars as pl

from fluoroscope.data.tasks.samples import Sample, Score
from fluoroscope.interventions.replies.answering import Reply
from fluoroscope.interventions.replies.comparing import compare, compare_by
from fluoroscope.steps.replies_table import replies_frame
from fluoroscope.steps.task_spec import TaskSpec
from fluoroscope.studies.steering.config import SteeringConfig
from fluoroscope.studies.steering.recipes import Recipe
from fluoroscope.studies.steering.report_findings import Findings
from fluoroscope.studies.steering.settings import EvaluateSpec, SteeringSettings, StrengthSpec

N = 60
TASK, OTHER = "organism-bias", "organism-facts"
RECIPES = (
    "corrsteer-a",
    "caa",
    "random-latents 1",
    "random-latents 2",
    "corrsteer-a, sign negative",
    "corrsteer-a, 8 samples",
)
SAMPLES = [
    Sample(
        f"s{i}",
        f"group {i}",
        f"prompt {i}",
        facts={"is_biased": "yes" if i % 2 else "no"},
        category="fruit" if i % 3 else "bread",
    )
    for i in range(N)
]


def replies(values, texts=None, readable=None):
    """Of a score a sample."""
    texts = texts or ["yes" if value > 0.5 else "no" for value in values]
    readable = [True] * len(values) if readable is None else readable
    return [
        Reply(text, Score(float(value), bool(can), "so it is"))
        for text, value, can in zip(texts, values, readable, strict=True)
    ]


UNSTEERED = replies([0.0] * 40 + [1.0] * 20)
BETTER = replies([1.0] * 30 + [0.0] * 10 + [1.0] * 18 + [0.0] * 2)
SAME = replies([0.0] * 40 + [1.0] * 20)


@cache
def compared(after):
    """With the unsteered replies: the row of all, and a table by part."""
    groups = [one.group_id for one in SAMPLES]
    labels = [f"is_biased {one.facts['is_biased']}" for one in SAMPLES]
    whole = compare(UNSTEERED, after, groups, 0).row()
    return whole, compare_by(UNSTEERED, after, groups, labels, 0)


def config_of(towards=None, seed=0, curve=(8,), others=(OTHER,)) -> SteeringConfig:
    settings = SteeringSettings(
        task=TaskSpec(name=TASK),
        seed=seed,
        strength=StrengthSpec(towards=towards),
        evaluate=EvaluateSpec(
            others=[TaskSpec(name=one) for one in others], within="is_biased", curve=list(curve)
        ),
    )
    recipes = [
        Recipe(
            name=name,
            method=name.split(",")[0].rstrip(" 12"),
            control=name.startswith("random"),
            varied="," in name,
        )
        for name in RECIPES
    ]
    known = {name: getattr(settings, name) for name in SteeringSettings.model_fields}
    return SteeringConfig.model_construct(**known, all_recipes=recipes)


def findings_of(said=None, other=None, towards=None, strengths=None, seed=0, picks=None):
    """Findings of made-up replies: by recipe on the task, and on the other task."""
    config = config_of(towards, seed)
    said = {"corrsteer-a": BETTER, "caa": SAME, **(said or {})}
    strengths = strengths or {}
    drift = dict.fromkeys(("kl", "kl_low", "kl_high"), 0.1)
    drift |= dict.fromkeys(("perplexity_ratio", "perplexity_ratio_low"), 1.1)
    drift |= {"perplexity_ratio_high": 1.2}
    quality = dict.fromkeys(("distinct_1", "distinct_2", "repetition"), 0.5)
    results, parts, frames = [], [], []

    def judge(recipe, task, after, strength, swept=False):
        trial = {"recipe": recipe, "task": task, "strength": strength, "is_swept": swept}
        row, by = compared(tuple(after))
        is_steered = bool(recipe) and strength != 0
        results.append({**trial, "is_steered": is_steered, **row, **drift, **quality})
        named = [pl.lit(value).alias(name) for name, value in trial.items()]
        frames.append(replies_frame(SAMPLES, after).with_columns(named))
        if not swept:
            parts.append(by.with_columns(recipe=pl.lit(recipe), task=pl.lit(task)))

    for task in (TASK, OTHER):
        judge("", task, UNSTEERED, 0.0)
    for name in RECIPES:
        strength = strengths.get(name, 1.0)
        judge(name, TASK, said.get(name, SAME), strength)
        judge(name, OTHER, (other or {}).get(name, SAME), strength)
    judge("corrsteer-a", TASK, SAME, 2.0, swept=True)
    schema = {"recipe": pl.String, "hook_point": pl.String, "latent": pl.Int64}
    floats = dict.fromkeys(("coefficient", "target", "r", "r_low", "r_high", "q", "frequency"))
    found_picks = picks or [("corrsteer-a", "0.resid_post", 3, 0.001)]
    return Findings(
        config=config,
        results=pl.DataFrame(results, infer_schema_length=None),
        parts=pl.concat(parts, how="diagonal_relaxed"),
        replies=pl.concat(frames),
        chosen=pl.DataFrame(
            [(name, strengths.get(name, 1.0), True, "") for name in RECIPES],
            schema=["recipe", "strength", "is_any_better", "note"],
            orient="row",
        ),
        tried=pl.DataFrame(
            [("corrsteer-a", s, s / 4, 1.0, None, None, None) for s in (0.0, 1.0, 2.0)]
            + [("corrsteer-a", 3.0, 0.9, 9.0, None, None, "the perplexity ratio is 9")],
            schema=["recipe", "strength", "score", "perplexity_ratio", "norm_share", "repetition",
                    "refused"],
            orient="row",
        ),
        picks=pl.DataFrame(
            [
                {"recipe": recipe, "hook_point": point, "latent": latent, **floats, "q": q}
                for recipe, point, latent, q in found_picks
            ],
            schema={**schema, **dict.fromkeys(floats, pl.Float64)},
        ),
        tasks={},
        cards=[],
        tokens=None,
    )  # fmt: skip
