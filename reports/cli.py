"""The command ``reports``."""

import sys
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from recurrent_lm import lm, reports
from recurrent_lm.studies import InputError, run_app, say

RUNS = Path("runs")  # searched for tables if none is named
PAGES = RUNS / "reports"

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help="Show what studies found.")


@app.callback()
def _main() -> None:
    """Show what studies found."""


@app.command()
def figure(
    table: Annotated[Path, typer.Argument(help="a table that a study stored", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="a .png, .svg or .pdf; beside the table if left out")] = None,
    name: Annotated[str, typer.Option(help="which of the study's figures; the first if left out")] = "",
    force: Annotated[bool, typer.Option("--force", help="replace a file that reports did not make")] = False,
) -> None:
    """Draw a table, print its caption, and show it in the terminal.

    [dim]reports figure runs/studies/gradient_lag.parquet[/dim]
    """
    from recurrent_lm.reports.images import check_place, save

    drawn = reports.figure(table, name)
    path = out or table.with_suffix(".png")
    if path.absolute() == table.absolute():
        raise InputError(f"{path} is the table itself; choose another --out")
    check_place(path, force)
    save(drawn.drawing, path)
    print("\n".join(drawn.lines))
    print(drawn.caption)
    print(f"figure: {path}")


@app.command()
def build(
    tables: Annotated[list[Path] | None, typer.Argument(help="tables, or folders of tables; runs if left out")] = None,
    out: Annotated[Path, typer.Option(help="the folder of the pages")] = PAGES,
    against: Annotated[Path | None, typer.Option(help="an older table, or a folder of such, to tell what changed")] = None,
    png: Annotated[bool, typer.Option("--png", help="figures as PNG files alone, to keep in a repository")] = False,
) -> None:
    """Make a page of each table, with its figures, and an index of them all.

    A folder stands for the .parquet files in it and in the folders right in it. A table that cannot be read is named, the
    others are made, and the exit code is 2.

    [dim]reports build[/dim]
    [dim]reports build runs/demo --out pages[/dim]
    [dim]reports build runs/studies --against reports/published/cpu[/dim]
    """
    from recurrent_lm.reports.images import FORMATS

    built = reports.build(tables or ([RUNS] if RUNS.is_dir() else []), out, say, against, (".png",) if png else tuple(FORMATS))
    if not built.pages:
        where = ", ".join(map(str, tables or [RUNS]))
        print(f"nothing was run yet: there is no study's table in {where}; for example: studies run training_step")
    print(f"report: {built.index}")
    if built.problems:
        raise InputError("; ".join(built.problems))


@app.command()
def training(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="run folders, or a folder of runs", show_default=False)],
    out: Annotated[
        Path | None, typer.Option(help="the page; training.html in the run, or beside several, if left out", show_default=False)
    ] = None,
    prompt: Annotated[
        list[str] | None, typer.Option(help="show what comes next behind this text; may be given several times")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="write the page anew while a training goes on")] = False,
    show: Annotated[bool, typer.Option("--open", help="open it in the browser")] = False,
) -> None:
    """Make a page of a training, or of several side by side: losses, texts, next words, gradients, what differs.

    [dim]reports training runs/mine --watch[/dim]
    [dim]reports training runs/demo/obama-tanh runs/demo/obama-lstm --open[/dim]
    """
    from recurrent_lm.reports import training as page_of

    found = list(dict.fromkeys(run for path in runs for run in lm.runs_in(path)))
    page = out or page_of.place_of(found)
    if watch:
        page_of.watch(found, page, prompt or [], say, webbrowser.open if show else None)
        return
    page_of.write_page(found, page, prompt or [], page_of.Models())
    print(f"page: {page}")
    if show:
        webbrowser.open(page.absolute().as_uri())


@app.command("open")
def open_(folder: Annotated[Path, typer.Argument(help="the folder of the pages")] = PAGES) -> None:
    """Open the index in the browser, and print where it is.

    [dim]reports open[/dim]
    """
    index = folder / "index.html"
    if not index.is_file():
        raise InputError(f"there is no {index}; make it first: reports build --out {folder}")
    print(str(index))
    webbrowser.open(index.absolute().as_uri())


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; exit code 2 for bad input."""
    sys.exit(run_app(app, "reports", arguments))
