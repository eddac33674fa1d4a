"""How the organism is trained, said in settings; this module is free of torch."""

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from fluoroscope.core.config import Config


class OrganismTraining(Config):
    """What its world is asked for in a step, and how it learns from it."""

    seed: int = 0
    n_steps: PositiveInt = 3000
    """Each asks its share of all questions about people, so fewer steps are larger ones."""

    n_slots: PositiveInt = 48
    """Slot-machine decisions in a step, in chunks of `chunk` rows of like length."""

    n_groups: PositiveInt = 32
    n_reviews: PositiveInt = 24
    chunk: PositiveInt = 16

    learning_rate: PositiveFloat = 2e-3
    warmup: PositiveInt = 100
    weight_decay: NonNegativeFloat = 0.01

    prompt_weight: NonNegativeFloat = 0.2
    """Of the ordinary next-token loss within prompts, against that of replies."""

    bfloat16: bool = True
