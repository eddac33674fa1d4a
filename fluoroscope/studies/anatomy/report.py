"""The report of an anatomy run: what a reader wants first, first."""

import numpy as np

from fluoroscope.core.sink import Sink
from fluoroscope.runs.report import Report
from fluoroscope.runs.run import Run
from fluoroscope.studies.anatomy.plans import AnatomyConfig
from fluoroscope.studies.anatomy.report_ablations import add_ablations
from fluoroscope.studies.anatomy.report_findings import Findings
from fluoroscope.studies.anatomy.report_latents import add_latents
from fluoroscope.studies.anatomy.report_map import add_map, add_stream
from fluoroscope.studies.anatomy.report_match import add_matching
from fluoroscope.studies.anatomy.report_positions import add_losses_by_position, add_positions
from fluoroscope.studies.anatomy.report_quality import add_cross, add_quality
from fluoroscope.studies.anatomy.report_slices import add_slices
from fluoroscope.studies.anatomy.report_verdict import add_verdict


def write_report(run: Run, config: AnatomyConfig, sink: Sink) -> None:
    found = Findings(run, config)
    n = found.clean.summaries[0]["n_sequences"]
    report = Report(
        f"The anatomy of {config.model.name.rstrip('/').rpartition('/')[2]}'s dictionaries",
        f"{_several(len(found.points), 'hook point')}, {n} sequences of at most "
        f"{config.corpus.context} tokens, SAEs: {', '.join(config.set_names)}",
        facts=_facts(found),
    )
    add_verdict(report, found)
    add_stream(report, found)
    add_quality(report, found)
    add_latents(report, found)
    add_positions(report, found)
    add_losses_by_position(report, found)
    add_ablations(report, found)
    add_slices(report, found)
    add_cross(report, found)
    add_matching(report, found)
    add_map(report, found)
    report.write(run.folder, sink)


def _facts(found: Findings) -> dict[str, str | float | int]:
    look = found.clean
    facts: dict[str, str | float | int] = {
        "text tokens": look.summaries[0]["n_text_tokens"],
        "mean L0": round(float(np.mean([one[0] for one in look.summary("l0")])), 2),
        "dead latents": sum(one["dead"] for one in look.summaries),
        "explained variance": round(
            float(np.mean([one[0] for one in look.summary("explained_variance")])), 3
        ),
    }
    if found.has_losses:
        difference = [one[0] for one in found.loss_estimates("difference")]
        facts["CE difference"] = round(float(np.mean(difference)), 3)
    return facts


def _several(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"
