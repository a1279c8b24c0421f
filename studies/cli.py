"""The command ``studies``."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from lm import InputError, run_app
from studies.study import CLAIM_COLUMNS, STUDIES, load, make, save, verdicts

app = typer.Typer(
    add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help="Answer questions with numbers."
)


@app.command("list")
def list_studies() -> None:
    """The studies and what they ask."""
    for name, question in STUDIES.items():
        print(f"{name:15}{question}")


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
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's memory profiler is chatty; read when torch is loaded
    study = make(name, pairs)
    path = out or Path("runs") / "studies" / f"{name}.parquet"
    if path.suffix != ".parquet" or path.is_dir():
        raise InputError(f"--out must be a file that ends in .parquet, not {path}")
    save(study(), path, name, study)
    _claims(path)
    print(f"table: {path}")


@app.command()
def show(table: Annotated[Path, typer.Argument(help="a table that a study stored", show_default=False)]) -> None:
    """Print the claims that a stored table decides."""
    _claims(table)


def _claims(path: Path) -> None:
    for claim in verdicts(load(path))[list(CLAIM_COLUMNS)].itertuples():
        print(
            f"{claim.verdict}: {claim.claim}: {claim.measured} (threshold: {claim.threshold}; {claim.source}; {claim.setting})"
        )


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; exit code 2 for bad input."""
    sys.exit(run_app(app, "studies", arguments))
