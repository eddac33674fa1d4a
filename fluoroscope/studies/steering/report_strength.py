"""What the report says of strength, of how many samples are needed, and of each setting."""

import polars as pl

from fluoroscope.plots.chart import Axis, Chart, Line, Mark, Reference, Scatter
from fluoroscope.runs.interval_text import without_nan
from fluoroscope.runs.report import Report
from fluoroscope.studies.steering.report_findings import (
    COMPARED,
    Findings,
    curve_name,
)
from fluoroscope.studies.steering.report_sweep import add_sweep

_ENDS = ("", "_low", "_high")
_CURVE = ("after", "difference")


def add_strength(report: Report, found: Findings) -> None:
    report.section("How strongly")
    guard = found.config.strength.guard
    report.text(
        "The strength of each method is the best admissible one on the validation side: more than "
        f"{guard.max_perplexity_ratio:g} times the perplexity, an addition longer than "
        f"{guard.max_norm_share:g} typical activations, or {guard.max_repetition:g} more "
        "repetition is refused. A score that was chosen by is flattered by it; that of the test "
        "side is not."
    )
    names = [name for name in found.named(*COMPARED) if name in set(found.tried["recipe"])]
    panels: dict[str, list[Mark]] = {
        name: _search_marks(found.tried.filter(pl.col("recipe") == name)) for name in names
    }
    if panels:
        aim = "goal on the validation side" if found.towards is not None else "score (validation)"
        chart = Chart.grid(panels, x="strength", y=Axis(aim))
        report.figure(
            "search",
            chart,
            "All strengths that were tried; 0 is unsteered."
            + (
                f" The goal is 1 less the mean distance of the parts from {found.towards:g}."
                if found.towards is not None
                else ""
            ),
        )
    tried = found.tried.filter(pl.col("recipe").is_in(names))
    report.table("tried", without_nan(tried), "Nothing stands where it was not measured.")
    add_sweep(report, found)


def add_curve(report: Report, found: Findings) -> None:
    table = curve_table(found)
    if len(table) < 2:
        return
    report.section("How many samples")
    report.text(
        "The main method with the first samples of the training side alone, by seed; its strength "
        "is searched anew. `n_same` of its parts are the same as with all samples. Where the score "
        "is reached with few of the final picks, it is not these picks alone that do it."
    )
    report.figure("learning_curve", _curve_chart(table), "Test side; 95 % intervals over groups.")
    report.table("curve", without_nan(table), "The last row is the main method itself.")


def _curve_chart(table: pl.DataFrame) -> Chart:
    gain = Line(
        "gain", table["samples"], table["gain"], table["gain_low"], table["gain_high"],
        markers=True,
    )  # fmt: skip
    titles = {"gain": [gain]}
    if table["n_parts"].min():
        share = table["n_same"] / table["n_parts"]
        titles["share of latents that stay"] = [Line("same", table["samples"], share, markers=True)]
    x = Axis("training samples", log=True)
    return Chart.grid(titles, x=x, y="", references=[Reference(0.0)], columns=2, share_y=False)


def curve_table(found: Findings) -> pl.DataFrame:
    final = _latents(found, found.main)
    rows = []
    sizes = {curve_name(found.main, n): n for n in found.config.evaluate.curve}
    n_all = found.tasks.get(found.task, {}).get("samples", {}).get("train")
    whole = {found.main: n_all} if n_all else {}
    for name, n in sorted({**sizes, **whole}.items(), key=lambda one: one[1]):
        result, own = found.result(name), _latents(found, name)
        rows.append(
            {
                "samples": n,
                "strength": result["strength"],
                **{f"{k}{end}": result[f"{k}{end}"] for k in _CURVE for end in _ENDS},
                **dict(zip(("gain", "gain_low", "gain_high"), found.gain(name), strict=True)),
                "n_parts": len(own),
                "n_same": len(own & final),
            }
        )
    return pl.DataFrame(rows, infer_schema_length=None)


def add_ablations(report: Report, found: Findings) -> None:
    names = found.named("ablation")
    if not names:
        return
    report.section("What each setting does")
    sizes = dict(found.picks.group_by("recipe").len().iter_rows())
    rows = []
    for name in (found.main, *names):
        result, gain = found.result(name), found.gain(name)
        ahead = found.gain(found.main, name)
        rows.append(
            {
                "changed": "nothing"
                if name == found.main
                else name.removeprefix(f"{found.main}, "),
                "strength": result["strength"],
                "n_parts": sizes.get(name, 0),
                **{f"{k}{end}": result[f"{k}{end}"] for k in _CURVE for end in _ENDS},
                **dict(zip(("gain", "gain_low", "gain_high"), gain, strict=True)),
                **dict(
                    zip(("main_ahead", "main_ahead_low", "main_ahead_high"), ahead, strict=True)
                ),
                **{key: result[key] for key in ("n_better", "n_worse", "kl", "perplexity_ratio")},
            }
        )
    report.text(
        "The main method with one setting changed at a time; strengths are searched anew. "
        "`main_ahead` is what the main method gains beyond it, paired; no correction for many."
    )
    frame = pl.DataFrame(rows, infer_schema_length=None)
    report.table("ablations", without_nan(frame), "Test side, 95 % intervals over groups.")


def _search_marks(tried: pl.DataFrame) -> list[Mark]:
    own = tried.sort("strength")
    marks: list[Mark] = [Line("tried", own["strength"], own["score"], markers=True)]
    refused = own.filter(pl.col("refused").is_not_null())
    if len(refused):
        marks.append(
            Scatter("refused", refused["strength"], refused["score"], refused["refused"].to_list())
        )
    return marks


def _latents(found: Findings, recipe: str) -> set[tuple[str, int]]:
    own = found.picks.filter((pl.col("recipe") == recipe) & pl.col("latent").is_not_null())
    return set(zip(own["hook_point"], own["latent"], strict=True))
