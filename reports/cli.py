"""The command ``reports``."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from studies import InputError, run_app, say

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help="Show what studies found.")


@app.callback()
def _main() -> None:
    """Show what studies found."""


@app.command()
def figure(
    table: Annotated[Path, typer.Argument(help="a table that a study stored", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="a .png, .svg or .pdf; beside the table if left out")] = None,
    force: Annotated[bool, typer.Option("--force", help="replace a file that reports did not make")] = False,
) -> None:
    """Draw a table, print its caption, and show it in the terminal.

    [dim]reports figure runs/studies/gradient_lag.parquet[/dim]
    """
    from reports import figure as figure_of
    from reports.picture import check_place, save

    made = figure_of(table)
    path = out or table.with_suffix(".png")
    if path.absolute() == table.absolute():
        raise InputError(f"{path} is the table itself; choose another --out")
    check_place(path, force)
    save(made.drawing, path)
    say("\n".join(made.lines))
    say(made.caption)
    say(f"figure: {path}")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; exit code 2 for bad input."""
    sys.exit(run_app(app, "reports", arguments))
