"""The report of a steering run."""

from fluoroscope.runs.report import Report
from fluoroscope.runs.run import Run
from fluoroscope.studies.steering.config import SteeringConfig


def write_report(run: Run, config: SteeringConfig) -> None:
    report = Report("Steering", "")
    report.write(run.folder)
