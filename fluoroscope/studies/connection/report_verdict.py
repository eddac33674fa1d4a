"""Whether a slot network reasons, in sentences; by rule, from the same numbers as the tables."""

from fluoroscope.runs.report import Report
from fluoroscope.studies.connection.report_findings import Findings, SetFindings


def add_verdict(report: Report, found: Findings) -> None:
    report.section("In short")
    for one in found.sets:
        report.text(f"**{one.name}**. {' '.join(sentences(one))}")


def sentences(one: SetFindings) -> list[str]:
    """Who was best, what the first arm beat, and whether it was anything but a prior."""
    accuracies = {arm: one.accuracy(arm) for arm in one.arms}
    best = max(accuracies, key=lambda arm: accuracies[arm].value)
    main = accuracies[one.main]
    said = [
        f"Of {len(accuracies)} ways to answer, {best} is right most often "
        f"({accuracies[best].value:.3f}); {one.main} is right in {main.value:.3f} "
        f"[{main.low:.3f}, {main.high:.3f}]."
    ]
    for outcome in ("beat", "did not beat", "was worse than"):
        others = [other.arm for other in one.beside if other.outcome == outcome]
        if others:
            said.append(f"It {outcome} {', '.join(others)}.")
    said += _of_priors(one)
    return said


def _of_priors(one: SetFindings) -> list[str]:
    """A network that does not beat answers without thought has shown none."""
    priors = {"majority", "bag_of_words"} & one.arms.keys()
    beaten = {other.arm for other in one.beside if other.outcome == "beat"}
    if priors <= beaten:
        return []
    left = ", ".join(sorted(priors - beaten))
    return [f"As it does not beat {left}, nothing here shows that it reasons on these questions."]
