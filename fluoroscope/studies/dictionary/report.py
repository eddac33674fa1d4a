"""The report of a dictionary run: quality against gates, curves, densities, identity cards."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from transformers import PreTrainedTokenizerBase

from fluoroscope.core.storage import read_json
from fluoroscope.core.tensors import read_tensors
from fluoroscope.models.loading import load_tokenizer
from fluoroscope.plots.chart import Axis, Bars, Chart, Histogram, Line
from fluoroscope.runs.report import Gate, Report
from fluoroscope.runs.report_cards import Context, FeatureCard
from fluoroscope.runs.run import Run
from fluoroscope.steps.evaluate_saes import QUALITY
from fluoroscope.steps.evaluation_config import EvaluationConfig
from fluoroscope.steps.score_saes import can_be_scored, ceiling_table, truth_table
from fluoroscope.steps.train_saes import SAEPlan, training_record
from fluoroscope.studies.dictionary.config import DictionaryConfig
from fluoroscope.studies.dictionary.ground_truth import add_ground_truth

Numbers = dict[str, Any]  # Any: JSON values.


@dataclass(frozen=True)
class _Judged:
    """An SAE and everything that was measured of it."""

    plan: SAEPlan
    group: str
    numbers: Numbers
    density: np.ndarray
    cards: list[Numbers]
    n_tokens: int
    """Activations it was trained on."""


def write_report(run: Run, config: DictionaryConfig) -> None:
    judged = list(_judged(run, config))
    gates = [gate for sae in judged for gate in _gates(sae, config.evaluation)]
    n_passed = sum(gate.passed for gate in gates)
    report = Report(
        f"Sparse dictionaries of {_short(config.model.name)}",
        f"{config.shape.family}, {config.shape.n_layers} layers, d_model {config.model.d_model}; "
        f"{config.n_tokens:,} training activations at each hook point",
        facts={
            "SAEs": len(judged),
            "gates passed": f"{n_passed} of {len(gates)}",
            "median fvu": round(float(np.median([_told(s.numbers["fvu"][0]) for s in judged])), 4),
            "test tokens": judged[0].numbers["n_test_tokens"],
        },
    )
    _add_quality(report, judged, gates)
    if can_be_scored(config.model, config.groups):
        plans = [sae.plan for sae in judged]
        add_ground_truth(report, truth_table(run, plans), ceiling_table(run))
    _add_training(report, run, judged)
    _add_densities(report, judged)
    _add_cards(report, judged, _tokenizer(config))
    report.write(run.folder)


def _judged(run: Run, config: DictionaryConfig) -> Iterator[_Judged]:
    for group, plans in config.groups.items():
        trained = training_record(run, group)["saes"]
        for plan in plans:
            folder = run.shard_folder(QUALITY, plan.hook_point)
            latents = read_tensors(folder / f"{plan.key}.safetensors")
            yield _Judged(
                plan,
                group,
                read_json(folder / "quality.json")[plan.key],
                latents["density"].numpy(),
                read_json(folder / "cards.json")[plan.key],
                trained[plan.key]["n_samples"],
            )


def quality_table(judged: list[_Judged]) -> pl.DataFrame:
    """One row an SAE; columns that are always the same name, intervals behind the estimates."""
    rows = []
    for sae in judged:
        layer, _, _ = sae.plan.hook_point.partition(".")
        numbers = sae.numbers
        recovered = numbers.get("recovered_of_mean") or [None] * 3
        of_zero = numbers.get("recovered_of_zero") or [None] * 3
        rows.append(
            {
                "layer": int(layer),
                "hook_point": sae.plan.hook_point,
                "architecture": sae.plan.architecture,
                "d_sae": sae.plan.settings["d_sae"],
                "fvu": numbers["fvu"][0],
                "l0": numbers["l0"][0],
                "ce_recovered": recovered[0],
                "dead_fraction": numbers["dead_fraction"],
                "n_tokens": sae.n_tokens,
                "fvu_low": numbers["fvu"][1],
                "fvu_high": numbers["fvu"][2],
                "l0_low": numbers["l0"][1],
                "l0_high": numbers["l0"][2],
                "ce_recovered_low": recovered[1],
                "ce_recovered_high": recovered[2],
                "ce_recovered_of_zero": of_zero[0],
                "ce_clean": numbers.get("ce_clean"),
                "ce_sae": numbers.get("ce_sae"),
                "ce_mean_ablated": numbers.get("ce_mean_ablated"),
                "ce_zero_ablated": numbers.get("ce_zero_ablated"),
                "n_test_tokens": numbers["n_test_tokens"],
                "n_test_documents": numbers["n_test_documents"],
                "seed": sae.plan.seed,
                "key": sae.plan.key,
            }
        )
    # A column in which nothing could be told is still one of numbers.
    return pl.DataFrame(rows, infer_schema_length=None).with_columns(
        pl.col(pl.Null).cast(pl.Float64)
    )


def _gates(sae: _Judged, allowed: EvaluationConfig) -> Iterator[Gate]:
    numbers, where = sae.numbers, sae.plan.key
    low, high = _l0_range(sae.plan, allowed)
    l0, fvu = _told(numbers["l0"][0]), _told(numbers["fvu"][0])
    dead = numbers["dead_fraction"]
    yield Gate("l0", l0, f"{low:.4g} to {high:.4g}", low <= l0 <= high, where)
    yield Gate("fvu", fvu, f"at most {allowed.max_fvu}", fvu <= allowed.max_fvu, where)
    if "recovered_of_mean" in numbers:
        recovered = _told(numbers["recovered_of_mean"][0])
        least = allowed.min_ce_recovered
        yield Gate("ce_recovered", recovered, f"at least {least}", recovered >= least, where)
    most = allowed.max_dead_fraction
    yield Gate("dead_fraction", dead, f"at most {most}", dead <= most, where)


def _told(value: float | None) -> float:
    # What could not be measured passes no gate: every comparison with NaN is false.
    return float("nan") if value is None else value


def _l0_range(plan: SAEPlan, allowed: EvaluationConfig) -> tuple[float, float]:
    wanted = plan.settings.get("k") or plan.settings.get("target_l0")
    if wanted is None:
        return 1.0, plan.settings["d_model"] / 4
    return wanted * (1 - allowed.l0_tolerance), wanted * (1 + allowed.l0_tolerance)


def _add_quality(report: Report, judged: list[_Judged], gates: list[Gate]) -> None:
    table = quality_table(judged)
    report.section("Quality")
    report.text(
        f"Measured on {judged[0].numbers['n_test_tokens']:,} tokens of documents that no SAE was "
        "trained on or chosen by. **fvu** is the fraction of variance unexplained; **l0** the mean "
        "number of active latents of a token; **ce_recovered** is (CE ablated - CE with the SAE) / "
        "(CE ablated - CE clean), where the ablation puts the mean activation in place; "
        "`ce_recovered_of_zero` is the same against zeros, an easier reference. Intervals are "
        "95 % bootstrap intervals over documents, and are left out below 10 documents."
    )
    names = [sae.plan.key for sae in judged]
    report.figure("quality", _quality_chart(names, table), "Quality by SAE, with 95 % intervals.")
    report.gates(gates, caption="Gates: what an SAE must meet to be built upon.")
    failed = [gate for gate in gates if not gate.passed]
    if failed:
        report.text(
            f"**{len(failed)} gates are not met.** More tokens (`n_tokens`), more latents "
            "(`sae.d_sae`) or a larger `sae.k` usually help; dead latents mean that there are more "
            "of them than the layer has things to tell. Studies that build on these SAEs should "
            "say so."
        )
    formats = {c: ".4g" for c, kind in table.schema.items() if kind == pl.Float64}
    report.table("sae_quality", table, "Every SAE.", formats)


def _quality_chart(names: list[str], table: pl.DataFrame) -> Chart:
    def bars(name: str) -> Bars:
        low, high = table[f"{name}_low"].to_numpy(), table[f"{name}_high"].to_numpy()
        return Bars(name, names, table[name].to_numpy(), low, high)

    measured = [n for n in ("fvu", "l0", "ce_recovered") if table[n].null_count() == 0]
    panels = {name: [bars(name)] for name in measured}
    return Chart.grid(panels, x="SAE", y=Axis(""), share_y=False)


def _add_training(report: Report, run: Run, judged: list[_Judged]) -> None:
    report.section("Training")
    report.text("On validation rows, against the number of steps; AuxK keeps latents alive.")
    curves = {}
    for sae in judged:
        curves.setdefault(sae.group, training_record(run, sae.group)["curves"])
    for name, axis in _training_axes(judged).items():
        lines = [
            Line(sae.plan.key, curve["step"], curve[name])
            for sae in judged
            for curve in [curves[sae.group][sae.plan.key]]
        ]
        chart = Chart.single(*lines, x="step", y=axis)
        report.figure(f"training_{name}", chart, f"Validation {axis.label}.")
    rows = [
        {"key": sae.plan.key, "step": int(step), **{n: curve[n][i] for n in curve if n != "step"}}
        for sae in judged
        for curve in [curves[sae.group][sae.plan.key]]
        for i, step in enumerate(curve["step"])
    ]
    report.table("training_curves", pl.DataFrame(rows), "The same as numbers.")


def _training_axes(judged: list[_Judged]) -> dict[str, Axis]:
    # From zero, so that rounding in an l0 that is held constant does not look like a change.
    most = max(_told(sae.numbers["l0"][0]) for sae in judged)
    return {
        "fvu": Axis("fvu", log=True),
        "l0": Axis("l0", limits=(0.0, 1.5 * max(most, 1.0))),
        "dead_fraction": Axis("dead fraction", limits=(0.0, 1.0)),
    }


def _add_densities(report: Report, judged: list[_Judged]) -> None:
    report.section("Density of latents")
    report.text(
        "Share of test tokens on which each latent is active, as log10; dead latents are "
        "counted in the table above and left out here."
    )
    edges = np.linspace(-6, 0, 49)
    panels = {}
    for sae in judged:
        alive = np.log10(sae.density[sae.density > 0])
        panels[sae.plan.key] = [Histogram.of("latents", alive, edges)]
    chart = Chart.grid(panels, x="log10 density", y="latents")
    report.figure("density", chart, "Histograms of density.")


def _add_cards(report: Report, judged: list[_Judged], tokenizer: PreTrainedTokenizerBase) -> None:
    report.section("Latents with the most energy")
    report.text(
        "Among latents active on at most a tenth of the tokens, those with the largest mean "
        "square activation: their strongest contexts (one a document), and the tokens whose "
        "logits their direction raises and lowers directly. A card describes; it proves nothing."
    )
    for sae in judged:
        report.subsection(sae.plan.key)
        report.cards([_card(card, sae, tokenizer) for card in sae.cards])


def _card(card: Numbers, sae: _Judged, tokenizer: PreTrainedTokenizerBase) -> FeatureCard:
    def pieces(tokens: list[int]) -> list[str]:
        return [str(piece) for piece in tokenizer.convert_ids_to_tokens(tokens)]

    def effects(name: str) -> list[tuple[str, float]]:
        found = card.get(name, [])
        return list(zip(pieces([t for t, _ in found]), (v for _, v in found), strict=True))

    contexts = [
        Context(pieces(c["tokens"]), c["activations"], c["marked"]) for c in card["contexts"]
    ]
    largest = contexts[0].activations[card["contexts"][0]["marked"]] if contexts else 0.0
    numbers = {"density": float(sae.density[card["latent"]]), "largest": largest}
    return FeatureCard(
        f"Latent {card['latent']}",
        numbers,
        contexts,
        effects("promoted"),
        effects("suppressed"),
    )


def _tokenizer(config: DictionaryConfig) -> PreTrainedTokenizerBase:
    return load_tokenizer(config.model.name, config.model.revision)


def _short(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2] if name.startswith((".", "/")) else name
