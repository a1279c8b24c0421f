"""The command ``reports``."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from studies import InputError, run_app

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help="Show what studies found.")


@app.callback()
def _main() -> None:
    """Show what studies found."""


@app.command()
def figure(
    table: Annotated[Path, typer.Argument(help="a table that a study stored", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="a .png, .svg or .pdf; beside the table if left out")] = None,
) -> None:
    """Draw a table, print its caption, and show it in the terminal.

    [dim]reports figure runs/studies/gradient_lag.parquet[/dim]
    """
    from reports import figure as figure_of

    made = figure_of(table)
    path = out or table.with_suffix(".png")
    if path.suffix not in (".png", ".svg", ".pdf"):
        raise InputError(f"--out must end in .png, .svg or .pdf, not {path.name!r}")
    made.drawing.savefig(path)
    print("\n".join(made.lines))
    print(made.caption)
    print(f"figure: {path}")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; exit code 2 for bad input."""
    sys.exit(run_app(app, "reports", arguments))
