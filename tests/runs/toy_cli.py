"""`fluoro` with the toy study, as a script that tests can start and kill."""

from fluoroscope.cli import main, studies
from fluoroscope.core.registry import Registry
from fluoroscope.studies import settings

if __name__ == "__main__":
    studies.STUDIES = Registry("study", {"toy": "toy_study:ToyStudy"})
    studies.SPECS = settings.SPECS = Registry("study", {"toy": "toy_study:ToySpec"})
    main()
