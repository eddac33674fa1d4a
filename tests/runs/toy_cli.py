"""`fluoro` with the toy study, as a script that tests can start and kill."""

from fluoroscope import cli
from fluoroscope.core.registry import Registry
from fluoroscope.studies import settings

if __name__ == "__main__":
    cli.STUDIES = Registry("study", {"toy": "toy_study:ToyStudy"})
    cli.SPECS = settings.SPECS = Registry("study", {"toy": "toy_study:ToySpec"})
    cli.main()
