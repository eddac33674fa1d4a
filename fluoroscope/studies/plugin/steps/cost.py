"""What trainings cost, known before anything is read."""

from fluoroscope.models.encoder_names import encoder_source
from fluoroscope.models.shape import ModelShape
from fluoroscope.runs.step import Cost
from fluoroscope.studies.plugin.config import PluginConfig
from fluoroscope.studies.plugin.sizes import rows_of, tokens_of

_OPTIMISER_BYTES = 20.0
"""Memory traffic of a step by weight: gradient, both moments and the weight, read and written."""

_STEP_S = 0.03
"""Of a step's many small operations."""


def training_cost(
    config: PluginConfig,
    *,
    n_arms: int | None = None,
    n_seeds: int | None = None,
    share: float = 1.0,
) -> Cost:
    """Of `n_arms` arms (all of the run, if not given) on every data set, `share` of a training:
    three times the forward pass for each training example, once for each that is judged.
    """
    shape = ModelShape.of(encoder_source(config.model.source), config.model.revision)
    arms = config.arms(0 if config.main_form else None)
    times = (n_arms or len(arms)) * (n_seeds or config.seeds)
    batch = config.training.batch_size
    flops = steps = rows = 0.0
    for name in config.datasets:
        n = rows_of(name, config.n_train)
        is_short = config.training.padding != "max_length"
        length = tokens_of(name, config.max_length) if is_short else config.max_length
        learnt = config.epochs * share * n["train"]
        judged = config.epochs * share * n["validation"] + n["test"]
        flops += (3 * learnt + judged) * length * shape.forward_flops_per_token(length)
        steps += learnt / batch
        rows += n["validation"] + n["test"]
    weights = 4.0 * shape.n_params
    new = 8.0 * config.d_model * config.d_layer
    layer = 48.0 * config.d_layer**2
    is_half = config.precision != "float32"
    length = config.max_length
    return Cost(
        flops=0.0 if is_half else times * flops,
        half_flops=times * flops if is_half else 0.0,
        bytes_moved=times * steps * _OPTIMISER_BYTES * (shape.n_params + new / 4),
        overhead_s=times * (_STEP_S * steps + 3.0 * len(config.datasets)),
        memory_bytes=6 * weights + 5 * new + layer + 60.0 * batch * length * shape.d_model * 12,
        disk_bytes=(weights + new) * config.seeds * len(config.datasets) + 150.0 * times * rows,
        parallel=times * len(config.datasets),
        note=f"{times * len(config.datasets)} trainings",
    )
