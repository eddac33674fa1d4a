"""What the report says of training: curves, candidates, choices, the toy world, costs."""

import polars as pl

from fluoroscope.models.shape import ModelShape
from fluoroscope.plots.chart import Axis, Chart, Heatmap, Line
from fluoroscope.runs.report import Gate, Report
from fluoroscope.runs.run import Run
from fluoroscope.studies.policy.config import BEST, EXACT, PolicyConfig
from fluoroscope.studies.policy.heads import added_flops_share, head_flops
from fluoroscope.studies.policy.report_findings import Findings, mode_name
from fluoroscope.studies.policy.steps.candidates import CANDIDATES, CHOSEN
from fluoroscope.studies.policy.steps.toy import ENOUGH, TOY
from fluoroscope.studies.policy.steps.toy import VALUES as TOY_VALUES

_SHOWN_ACTIONS = 14
_MOST_FLOPS = 0.01
"""Of a block: what a head may add."""

_CURVES = {
    "return": "return",
    "entropy": "entropy (nats)",
    "acting": "share of acting",
    "kl": "KL to the unsteered model (nats)",
}


def add_training(report: Report, found: Findings) -> None:
    report.section("Training")
    for mode in found.config.modes:
        own = found.curves.filter(mode=mode)
        report.figure(
            f"training_{mode}",
            _curves(own, mode),
            f"By the {mode_name(mode)}, a line for each training; dotted: on random latents."
            if mode == EXACT
            else f"By {mode_name(mode)} on generated replies, a line for each training; every "
            "iteration has other prompts, which is most of what moves the curves up and down.",
        )


def add_candidates(report: Report, run: Run, found: Findings) -> None:
    report.section("Among what it chooses")
    frame = pl.read_parquet(run.step_folder(CANDIDATES) / CHOSEN)
    best = frame.filter(set=BEST)
    points = best["hook_point"].unique(maintain_order=True).to_list()
    settings = found.config.candidates
    why = (
        "the one at which r is largest: a policy reads where it acts, and there it is plainest "
        "what the reply is going to be"
        if settings.hook_points is None
        else "as asked for"
    )
    times = ", ".join(f"{one:g}" for one in settings.multiples)
    report.text(
        f"{len(best)} latents at {', '.join(points)} ({why}), each with {times} times "
        f"E[x | active] by the sign of its r, and doing nothing: {len(found.actions)} actions. "
        + (
            f"Asked for were {settings.n}; no more differ from chance."
            if len(best) < settings.n
            else ""
        )
    )
    columns = [
        "set", "hook_point", "latent", "r", "r_low", "r_high", "q", "frequency", "coefficient",
        "control_of",
    ]  # fmt: skip
    report.table("candidates", frame.select(columns), "Candidates.", {"q": ".1e"})
    if len(found.choices):
        report.figure("choices", _choices_chart(found), _choices_caption(found))


def add_toy(report: Report, run: Run) -> None:
    frame = pl.read_parquet(run.step_folder(TOY) / TOY_VALUES)
    report.section("The same code where the optimum is known")
    report.text(
        "A toy world whose best policy is known in closed form: in half of its contexts acting "
        "pays, in the others it costs more than it brings, and the outcome comes at the end of a "
        "text of four tokens. A policy that failed here would be the trainer's fault."
    )
    named = frame.with_columns(pl.col("mode").map_elements(mode_name, return_dtype=pl.String))
    report.table("toy", named, "Expected returns, the price paid.", {"share": ".3f"})
    report.gates(
        [
            Gate("share of the optimum", row["share"], f"at least {ENOUGH:g}",
                 row["share"] >= ENOUGH, mode_name(row["mode"]))
            for row in frame.iter_rows(named=True)
        ],
        "toy_gates",
    )  # fmt: skip


def add_cost(report: Report, found: Findings) -> None:
    config = found.config
    report.section("What it costs")
    n_candidates = (len(found.actions) - 1) // len(config.candidates.multiples)
    rank = min(config.learn.rank, config.shape.d_model)
    masked = n_candidates if config.learn.is_masked else 0
    flops = head_flops(config.shape.d_model, rank, len(found.actions), masked)
    share = share_of_block(config.shape, config, n_candidates)
    report.text(
        f"The head ({config.shape.d_model} -> {rank} -> {len(found.actions)}) and its step add "
        f"{flops:,.0f} floating-point operations to a token: **{share:.2%}** of what one of the "
        f"{config.shape.n_layers} blocks computes for it. Operations are not time: what a token "
        "takes longer is measured by a benchmark, and not here."
        + (
            f" It is more than {_MOST_FLOPS:.0%} because this model is so small: operations of a "
            "block grow with the square of its width, those of a head with the width."
            if share > _MOST_FLOPS
            else ""
        )
    )


def share_of_block(shape: ModelShape, config: PolicyConfig, n_candidates: int) -> float:
    return added_flops_share(
        shape,
        min(config.learn.rank, shape.d_model),
        n_candidates,
        len(config.candidates.multiples),
        is_masked=config.learn.is_masked,
    )


def _curves(own: pl.DataFrame, mode: str) -> Chart:
    panels: dict[str, list[Line]] = {}
    for column, label in _CURVES.items():
        lines = []
        for (name, seed), rows in own.group_by("set", "seed", maintain_order=True):
            is_best = name == BEST
            if not is_best and seed != 0:
                continue
            title = f"training {seed}" if is_best else str(name)
            style = "solid" if is_best else "dotted"
            lines.append(Line(title, rows["iteration"], rows[column], style=style))
        panels[label] = lines
    if mode == EXACT:
        panels["return on the validation side"] = [
            Line(f"training {seed}", rows["iteration"], rows["validation"])
            for (seed,), rows in own.filter(set=BEST).group_by(["seed"], maintain_order=True)
        ]
    return Chart.grid(panels, x="iteration", columns=2, share_y=False)


def _choices_chart(found: Findings) -> Chart:
    """Mean over trainings; the actions that are taken most, by mode and part."""
    means = found.choices.group_by("mode", "part", "action", maintain_order=True).agg(
        pl.col("share").mean()
    )
    columns = [(mode, part) for mode in found.config.modes for part in found.parts[:6]]
    shares = {
        key: dict(means.filter(mode=key[0], part=key[1]).select("action", "share").iter_rows())
        for key in columns
    }
    largest = {
        action: max(own.get(action, 0.0) for own in shares.values())
        for action in range(len(found.actions))
    }
    kept = sorted(largest, key=lambda action: (action != 0, -largest[action]))[:_SHOWN_ACTIONS]
    values = [[round(shares[key].get(action, 0.0), 2) for key in columns] for action in kept]
    several = len(found.config.modes) > 1
    names = [f"{part}, {mode_name(mode)}" if several else part for mode, part in columns]
    heat = Heatmap(
        values, names, [found.actions[action] for action in kept], "probability", limits=(0, 1)
    )
    return Chart.single(heat, x=Axis(), y=Axis())


def _choices_caption(found: Findings) -> str:
    n = min(_SHOWN_ACTIONS, len(found.actions))
    return (
        f"How often each action is chosen at the prompt's end of test samples, mean over "
        f"trainings; the {n} of {len(found.actions)} that are chosen most (hook point, latent, "
        "amount)."
    )
