"""The command ``studies``."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from recurrent_lm import studies
from recurrent_lm.lm import InputError, ending_at_once, run_app
from recurrent_lm.studies.engine.catalogue import STUDIES

app = typer.Typer(
    add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help="Answer questions with numbers."
)


@app.command("list")
def list_studies() -> None:
    """The studies and what they ask.

    [dim]studies list[/dim]
    """
    print("\n".join(f"{name:15}{question}" for name, question in STUDIES.items()))


@app.command()
def run(
    name: Annotated[str, typer.Argument(help="a name from studies list", show_default=False)],
    preset: Annotated[str, typer.Option(help="smoke (seconds), cpu (minutes; the usual one), cpu-long or gpu")] = "",
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="a parameter of the study")] = None,
    out: Annotated[Path | None, typer.Option(help="the table's file; runs/studies/NAME.parquet if left out")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="measure anew what an earlier run has measured")] = False,
    where: Annotated[str, typer.Option("--executor", metavar="WHERE", help="local:N (Dask workers here) or dask:ADDRESS")] = "",
    variant: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODULE:FACTORY", help="throughput: a recurrence or loss of yours, beside the others; may be repeated"
        ),
    ] = None,
    cells: Annotated[str, typer.Option(metavar="CELL,..", help="throughput: lstm, gru, rnn-tanh, ..")] = "",
    sizes: Annotated[
        list[str] | None,
        typer.Option(metavar="LETTER=N,..", help="throughput: B, H, T of recurrences, N, d, V of losses; may be repeated"),
    ] = None,
    dtype: Annotated[str, typer.Option(metavar="DTYPE,..", help="throughput: float32, bfloat16, float16")] = "",
) -> None:
    """Run a study, store its table and print its claims; of throughput, the times first.

    What is measured is kept at once: a run that was stopped goes on.

    Cells are measured one after the other here, or at once by N Dask workers of this machine or those of a cluster.

    [dim]studies run throughput --variant my_rnn:MyLSTM --cells lstm --sizes H=256,512 --sizes T=64[/dim]
    [dim]studies run speeches --executor local:4[/dim]
    """
    pairs = {}
    for setting in settings or []:
        key, equals, value = setting.partition("=")
        if not equals:
            raise InputError(f"--set takes NAME=VALUE, not {setting!r}")
        pairs[key] = value
    asked = {"--variant": variant or [], "--cells": cells, "--sizes": sizes or [], "--dtype": dtype}
    if name != "throughput" and any(asked.values()):
        option = next(option for option, value in asked.items() if value)
        raise InputError(f"{option} is an option of throughput; parameters of {name} are given with --set NAME=VALUE")
    # torch's memory profiler is chatty; these are read when torch is loaded
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    going: list[Any] = []
    with ending_at_once(lambda: going[0].stopped() if going else "stopped before the first cell; nothing was measured"):
        from recurrent_lm.studies.engine.run import prepared

        if name == "throughput":
            from recurrent_lm.studies.throughput.options import settings as short

            pairs = short(variant or [], cells, sizes or [], dtype) | pairs
        path = out or Path("runs") / "studies" / f"{name}.parquet"
        going.append(prepared(name, pairs, preset, path, fresh, where))
        going[0].write(path)
    _claims(path)
    print(f"table: {path}")


@app.command()
def show(
    table: Annotated[Path, typer.Argument(help="a table that a study stored", show_default=False)],
    as_csv: Annotated[bool, typer.Option("--csv", help="what was measured instead, summed up, as CSV")] = False,
) -> None:
    """Print the claims that a stored table decides, behind the times of a study that compares such.

    [dim]studies show runs/studies/throughput.parquet[/dim]
    """
    if as_csv:
        print(studies.summary(studies.load(table)).to_csv(index=False).rstrip("\n"))
    else:
        _claims(table)


@app.command()
def constants(
    table: Annotated[Path, typer.Argument(help="a table of the study exchange", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="the file; the one that kernels read if left out")] = None,
) -> None:
    """Make what a table of exchange measured the constants by which kernels choose their plans.

    [dim]studies constants runs/studies/exchange.parquet[/dim]
    """
    from recurrent_lm.studies.exchange.measured_constants import DEFAULT, record

    print(record(studies.load(table), out or DEFAULT))


@app.command()
def scale(
    rows: Annotated[int, typer.Option(min=1, max=1_000_000, help="sub-corpora a GPU")] = 64,
    bptt: Annotated[int, typer.Option(min=1, max=1_000_000, help="tokens of a window")] = 100,
    tokens: Annotated[int, typer.Option(min=1, max=10**18, help="of the corpus")] = 10**11,
) -> None:
    """What limits training on 1, 8 and 1,000 GPUs: memory, traffic and time by arithmetic, as in docs/scale.md.

    [dim]studies scale --rows 256[/dim]
    """
    from recurrent_lm.studies.scale.markdown import markdown

    print(markdown(rows, bptt, tokens).rstrip("\n"))


@app.command()
def quality(
    speeches: Annotated[Path, typer.Option(help="the folder with trump-campaign, obama and trump")] = Path("speeches"),
    out: Annotated[Path, typer.Option(help="where runs, logs and the table quality.md go")] = Path("runs/quality"),
    at_once: Annotated[int, typer.Option(min=1, help="trainings side by side, of one thread each")] = 2,
    only_table: Annotated[bool, typer.Option("--table", help="train nothing; print what is finished")] = False,
    ablation: Annotated[
        bool, typer.Option("--ablation", help="quick-word on trump-campaign, one part changed each time, instead")
    ] = False,
) -> None:
    """Train best-char, best-bpe and best-word on three collections with three seeds, beside the best n-gram models.

    It takes many hours, the ablation about one. What is finished is kept, and the same command goes on.

    [dim]studies quality --speeches speeches[/dim]
    [dim]studies quality --speeches speeches --ablation[/dim]
    """
    show = studies.ablation_table if ablation else studies.quality_table
    fill = studies.fill_ablation if ablation else studies.fill_quality
    print(show(out) if only_table else fill(speeches, out, at_once), end="")


def _claims(path: Path) -> None:
    table = studies.load(path)
    if subject := table.attrs.get("subject"):
        print(f"{subject}\n")
    if listing := studies.listing(table):
        print(f"{listing}\n")
    for claim in studies.verdicts(table).itertuples():
        print(
            f"Claim      {claim.claim}\n"
            f"Source     {claim.source}\n"
            f"Setting    {claim.setting}\n"
            f"Threshold  {claim.threshold}\n"
            f"Measured   {claim.measured}\n"
            f"Verdict    {claim.verdict}\n" + (f"Reason     likely: {claim.reason!s}\n" if claim.reason else "")
        )
    for cell, error in studies.failures(table):
        print(f"failed: {cell or 'all'}: {error}")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; exit code 2 for bad input."""
    sys.exit(run_app(app, "studies", arguments))
