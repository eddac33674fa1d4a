"""The report of a policy study."""

from fluoroscope.runs.report import Report
from fluoroscope.runs.run import Run
from fluoroscope.studies.policy.config import PolicyConfig


def write_report(run: Run, config: PolicyConfig) -> None:
    Report("policy").write(run.folder)
