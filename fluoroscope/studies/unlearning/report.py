"""The report of an unlearning run: what a reader wants first, first."""

import polars as pl

from fluoroscope.runs.report import Report
from fluoroscope.runs.run import Run
from fluoroscope.studies.unlearning.plans import UNTREATED_NAME, UnlearningConfig
from fluoroscope.studies.unlearning.report_findings import Findings, load_findings
from fluoroscope.studies.unlearning.report_latents import add_latents
from fluoroscope.studies.unlearning.report_methods import (
    add_contrasts,
    add_detectors,
    add_methods,
    add_people,
    add_side_effects,
)
from fluoroscope.studies.unlearning.report_search import add_relearning, add_search
from fluoroscope.studies.unlearning.report_verdict import add_verdict


def write_report(run: Run, config: UnlearningConfig) -> None:
    title = f"Unlearning with {config.model.name.rstrip('/').rpartition('/')[2]}"
    what = f"{config.people} people" if config.people else "texts"
    subtitle = f"{what} to forget, {len(config.points)} layers with an SAE"
    found = load_findings(run, config)
    report = Report(title, subtitle, facts=_facts(found))
    add_verdict(report, found)
    add_methods(report, found)
    add_contrasts(report, found)
    add_side_effects(report, found)
    add_detectors(report, found)
    add_relearning(report, found)
    add_latents(report, found)
    add_people(report, found)
    add_search(report, found)
    _add_data(report, found)
    report.write(run.folder)


def _facts(found: Findings) -> dict[str, str | float | int]:
    main = found.main
    if not found.has_samples:
        return {
            "perplexity to forget": f"x {found.forgetting(main).value:.3g}",
            "perplexity to keep": f"x {found.keeping(main).value:.3g}",
        }
    return {
        "forget, untreated": round(found.forgetting(UNTREATED_NAME).value, 3),
        "forget, treated": round(found.forgetting(main).value, 3),
        "chance": round(found.sets["samples"]["forget"]["chance"], 3),
        "keep, untreated": round(found.keeping(UNTREATED_NAME).value, 3),
        "keep, treated": round(found.keeping(main).value, 3),
    }


def _add_data(report: Report, found: Findings) -> None:
    report.section("What was read and asked")
    report.text(found.sets["note"])
    if found.sets["forgotten"]:
        report.text(f"To be forgotten: {', '.join(found.sets['forgotten'])}.")
    rows = [
        {"what": f"texts, {name.replace('_', ' ')}", "n": one["texts"], "groups": one["groups"]}
        for name, one in found.sets["texts"].items()
    ]
    rows += [
        {"what": f"questions, {name.replace('_', ' ')}", "n": one["n"], "groups": one["groups"]}
        for name, one in found.sets["samples"].items()
        if one["n"]
    ]
    report.table("sides", pl.DataFrame(rows), "A group is a person, or a document.")
