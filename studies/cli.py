"""The command ``studies``."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from lm import InputError, run_app
from studies.memory import allocation_failures
from studies.output import say
from studies.study import STUDIES, make, verdicts
from studies.tables import check_place, load, save

app = typer.Typer(
    add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help="Answer questions with numbers."
)


@app.command("list")
def list_studies() -> None:
    """The studies and what they ask."""
    say("\n".join(f"{name:15}{question}" for name, question in STUDIES.items()))


@app.command()
def run(
    name: Annotated[str, typer.Argument(help="a name from studies list", show_default=False)],
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="a parameter of the study")] = None,
    out: Annotated[Path | None, typer.Option(help="the table's file; runs/studies/NAME.parquet if left out")] = None,
) -> None:
    """Run a study, store its table and print its claims.

    [dim]studies run gradient_lag --set run=runs/obama-word-lstm[/dim]
    """
    pairs = {}
    for setting in settings or []:
        key, equals, value = setting.partition("=")
        if not equals:
            raise InputError(f"--set takes NAME=VALUE, not {setting!r}")
        pairs[key] = value
    # torch's memory profiler is chatty; these are read when torch is loaded
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    study = make(name, pairs)
    path = out or Path("runs") / "studies" / f"{name}.parquet"
    check_place(path, name)
    with allocation_failures():
        table = study()
    save(table, path, name, study)
    _claims(path)
    say(f"table: {path}")


@app.command()
def show(table: Annotated[Path, typer.Argument(help="a table that a study stored", show_default=False)]) -> None:
    """Print the claims that a stored table decides."""
    _claims(table)


def _claims(path: Path) -> None:
    table = load(path)
    if subject := table.attrs.get("subject"):
        say(f"{subject}\n")
    for claim in verdicts(table).itertuples():
        say(
            f"Claim      {claim.claim}\n"
            f"Source     {claim.source}\n"
            f"Setting    {claim.setting}\n"
            f"Threshold  {claim.threshold}\n"
            f"Measured   {claim.measured}\n"
            f"Verdict    {claim.verdict}\n"
        )


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; exit code 2 for bad input."""
    sys.exit(run_app(app, "studies", arguments))
