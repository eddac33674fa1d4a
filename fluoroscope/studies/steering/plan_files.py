"""Plans as files: directions in safetensors, all else in JSON beside it."""

from pathlib import Path

from fluoroscope.core.config import build
from fluoroscope.core.plain_values import with_nan, without_nan
from fluoroscope.core.storage import read_json, write_json
from fluoroscope.core.tensors import read_tensors, write_tensors
from fluoroscope.models.hook_points import HookPoint
from fluoroscope.studies.steering.plans import Part, Plan
from fluoroscope.studies.steering.recipes import Recipe

_PLAN, _DIRECTIONS = "plan.json", "plan.safetensors"


def save_plan(plan: Plan, folder: Path) -> None:
    """The same bytes for the same plan."""
    directions = {str(i): part.direction.clone() for i, part in enumerate(plan.parts)}
    write_tensors(folder / _DIRECTIONS, directions)
    parts = [
        {
            "point": str(part.point),
            "coefficient": float(part.coefficient),
            "target": float(part.target),
            "latent": part.latent,
            "amount_of": part.amount_of,
            "facts": without_nan(dict(part.facts)),
        }
        for part in plan.parts
    ]
    write_json(
        folder / _PLAN,
        {
            "recipe": plan.recipe.model_dump(mode="json"),
            "instruction": plan.instruction,
            "note": plan.note,
            "parts": parts,
        },
    )


def load_plan(folder: Path) -> Plan:
    found = read_json(folder / _PLAN)
    directions = read_tensors(folder / _DIRECTIONS)
    parts = [
        Part(
            HookPoint(one["point"]),
            directions[str(i)],
            one["coefficient"],
            one["target"],
            one["latent"],
            with_nan(one["facts"]),
            one.get("amount_of"),
        )
        for i, one in enumerate(found["parts"])
    ]
    recipe = build(Recipe, found["recipe"])
    return Plan(recipe, parts, found["instruction"], found["note"])
