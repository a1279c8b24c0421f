"""The command ``lm page``: a model as one HTML file."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recurrent_lm import lm
from recurrent_lm.lm.base.errors import InputError
from recurrent_lm.lm.base.storage import check_writable, replacing
from recurrent_lm.lm.commands.ask import RunArgument, opened

if TYPE_CHECKING:
    from recurrent_lm.lm.page.document import Copied, Rounding

OURS = b'<meta name="generator" content="lm page'  # near the beginning of each page
MEGABYTE = 10**6


def page(
    run: RunArgument,
    out: Annotated[Path | None, typer.Option(help="the file; RUN/page.html if left out", show_default=False)] = None,
    int8: Annotated[bool, typer.Option("--int8", help="matrices in 8 bits instead of 16: about half the size")] = False,
    title: Annotated[str, typer.Option(help="what the model has read, for the heading; its corpus if left out")] = "",
    prompt: Annotated[
        list[str] | None, typer.Option(help="text to begin with; may be given several times; from held-out text if left out")
    ] = None,
    corpus: Annotated[str, typer.Option(metavar="PATH", help="where the training text is now, if it was moved")] = "",
) -> None:
    """Put a model into one HTML file that runs in any browser, without a network: type, see the next word, let it write.

    [dim]lm page runs/obama-word-lstm --out obama.html[/dim]
    """
    model = opened(run, "cpu")
    out = out or model.path / "page.html"
    if not out.is_dir() and out.exists() and not _ours(out):
        raise InputError(f"{out} exists already and is no page of lm page; name another file with --out")
    check_writable(out, "--out")
    made = lm.model_page(model, _data(model, corpus), int8=int8, title=title, prompts=tuple(prompt or ()))
    with replacing(out, "--out") as temporary:
        temporary.write_text(made.html, encoding="utf-8")
    size = out.stat().st_size / MEGABYTE
    bits = "8 bits" if int8 else "16 bits"
    print(f"page: {out}, {size:.2f} MB; {made.parameters:,} parameters in {bits}, and a program that needs no network")
    if made.rounding:  # its training text was there
        print(_cost(made.rounding, bits))
        print(_copying(made.copied) if made.copied else "copies are not counted: there are no five words in a row to compare")


def _cost(rounding: "Rounding", bits: str) -> str:
    return (
        f"rounding to {bits} costs {rounding.cost:+z.5f} bits per byte: {rounding.before:.4f} become {rounding.after:.4f} "
        f"on the {rounding.tokens:,} tokens of the validation text"
    )


def _copying(copied: "Copied") -> str:
    return (
        f"{copied.share:.0%} of the {copied.ngrams:,} 5-grams of {copied.texts} texts that it wrote are in the training text, "
        f"the longest {copied.longest} words long; of the validation text {copied.held_out:.0%} do"
    )


def _data(model: "lm.Run", place: str) -> "lm.Data | None":
    """The run's texts; None, with a word on stderr, where they are no longer there or have changed.

    Raises:
        InputError: where they are not at the ``place`` that is given.
    """
    why = "its training text has changed; name an unchanged copy of it with --corpus PATH"
    try:
        data = lm.trained_on(model.config, model.tokenizer, model.path, model.meta, place)
        if data.fingerprint() == model.meta.get("data"):
            return data
    except InputError as error:
        if place:
            raise
        why = str(error)
    print(f"lm: the cost of rounding and the share of copies are not measured: {why}", file=sys.stderr)
    return None


def _ours(file: Path) -> bool:
    try:
        with file.open("rb") as stream:
            return OURS in stream.read(1000)
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}; name another file with --out") from None
