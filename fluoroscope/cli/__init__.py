"""`fluoro`: the command line, thin over `runs`, `studies` and what is below them.

Only what a command needs is imported, inside the command: help answers without torch. What the
user can mend (`UserError`) is a message and exit code 2; Ctrl-C says how to go on.
"""

import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

import fluoroscope
from fluoroscope.cli import (
    gambling,
    hallucination,
    ledger,
    organism,
    plugin,
    results,
    steer,
    studies,
    sweep,
)
from fluoroscope.core.errors import UserError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Fluoroscope: see inside a language model while it runs, and steer it.",
)

# The commands of a part without a name are commands of `fluoro` itself.
app.add_typer(studies.app)
app.add_typer(ledger.app)
app.add_typer(results.app)
app.add_typer(steer.app)
app.add_typer(organism.app, name="organism")
app.add_typer(sweep.app, name="sweep")
app.add_typer(gambling.app, name="gambling")
app.add_typer(hallucination.app, name="hallucination")
app.add_typer(plugin.app, name="plugin")


def main() -> None:
    """Entry point: turns what users can mend into a message and an exit code."""
    try:
        app(standalone_mode=True)
    except UserError as error:
        text = Text(str(error), style="red")
        Console(stderr=True).print(text, soft_wrap=True)
        sys.exit(2)


@app.callback(invoke_without_command=True)
def _fluoro(
    version: Annotated[bool, typer.Option("--version", help="Say the version and end.")] = False,
) -> None:
    if version:
        typer.echo(f"fluoroscope {fluoroscope.__version__}")
        raise typer.Exit
