"""The plan's dashboard: a run's report, written anew; one page that opens anywhere, offline.

    python visualization/dashboard.py --results ./results/gpt2-medium [--open]

A place of results is a run's name, its folder, the folder that it was exported to, or a path that
ends in the run's name. Prints where the page is.
"""

import argparse
import sys
import webbrowser
from pathlib import Path

from fluoroscope.core.errors import RunError, UserError
from fluoroscope.core.sink import Sink
from fluoroscope.core.storage import read_json
from fluoroscope.runs.engine import REPORT_FILES
from fluoroscope.runs.lock import main_lock
from fluoroscope.runs.manifest import write_report_manifest
from fluoroscope.runs.run import DONE
from fluoroscope.runs.study import open_study
from fluoroscope.studies.hallucination.export import run_of_results


def written_report(results: str) -> Path:
    """The page, of the steps that are done."""
    run, study = open_study(run_of_results(results))
    if not any(run.folder.glob(f"*/{DONE}")):
        raise RunError(f"No step of {run.name} is done yet, so there is nothing to show.")
    seal = run.folder / DONE
    if not (seal.exists() or study.reports_parts):
        raise RunError(f"{run.name} is not finished, and its study reports no parts.")
    with main_lock(run.folder):
        # A finished run knows the hashes of its report, and must know the new ones.
        inputs = read_json(seal)["inputs"] if seal.exists() else None
        seal.unlink(missing_ok=True)
        study.report(run, Sink())
        if inputs is not None:
            write_report_manifest(run.folder, inputs, REPORT_FILES)
    return run.folder / "report.html"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", required=True, help="a run, or what was exported of it")
    parser.add_argument("--open", action="store_true", help="show it in a browser")
    given = parser.parse_args()
    try:
        page = written_report(given.results)
    except UserError as error:
        sys.exit(str(error))
    sys.stdout.write(f"{page}\n")
    if given.open:
        webbrowser.open(page.resolve().as_uri())


if __name__ == "__main__":
    main()
