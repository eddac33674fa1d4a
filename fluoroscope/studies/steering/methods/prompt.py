"""The baseline that only asks: an instruction before every prompt, and no edit."""

from fluoroscope.core.errors import ConfigError
from fluoroscope.studies.steering.material import Material
from fluoroscope.studies.steering.methods.base import Method
from fluoroscope.studies.steering.plans import Plan
from fluoroscope.studies.steering.recipes import Recipe


class PromptOnly(Method):
    reads_latents = False
    about = "An instruction before every prompt, and nothing else."

    def plan(self, recipe: Recipe, material: Material) -> Plan:
        if not material.instruction.strip():
            raise ConfigError(
                f"{recipe.name} puts an instruction before every prompt, and there is none. Write "
                "instruction=..., or leave this method out."
            )
        return Plan(recipe, [], instruction=material.instruction)
