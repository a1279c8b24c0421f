"""Distributions and surprise for people: bars and colours in the terminal, and a page."""

import math
import sys
from importlib.resources import files
from itertools import pairwise
from typing import Any

from rich.console import Console
from rich.text import Text

from recurrent_lm.lm.base.progress import shown_perplexity
from recurrent_lm.lm.scoring.next_token import Next, ScoredText, Surprise
from recurrent_lm.lm.text.advice import unknown_share

# From expected to surprising: ColorBrewer's OrRd behind black letters, told apart by colour-blind readers too.
COLOURS = ("#fff7ec", "#fee8c8", "#fdd49e", "#fdbb84", "#fc8d59", "#ef6548")
EDGES = (1, 3, 5, 8, 12)  # bits; a token of 3 bits was expected with probability 1/8
BAR = 40


def colour(bits: float) -> str:
    """The colour of a token with this surprise in bits."""
    return COLOURS[sum(bits >= edge for edge in EDGES)]


def visible(text: str) -> str:
    """A token with visible white space and control characters."""
    return "".join(c if c.isprintable() and c != " " else "␣" if c == " " else repr(c)[1:-1] for c in text)


def bars(prompt: str | None, distribution: Next, top: int, unknown: bool, option: str = "--unknown") -> None:
    """P(v | prompt) of the likeliest tokens, each with a bar, and how much <unk> holds where it is not among them.

    Args:
        option: what lets <unk> be ranked among the tokens.
    """
    shown = distribution.top(top, unknown)
    labels = [visible(token.word) for token in shown]
    width = max(map(len, [*labels, "others"]))
    given = "beginning of a document" if prompt is None else prompt
    print(f"P(v | {given}), the likeliest {len(shown)} of {distribution.tokenizer.size:,}:")
    for label, token in zip(labels, shown, strict=True):
        print(f"{label:>{width}} {token.probability:7.2%} {'█' * round(BAR * token.probability / shown[0].probability)}")
    apart = 0.0 if unknown else distribution.unknown
    print(f"{'others':>{width}} {max(1 - math.fsum(token.probability for token in shown) - apart, 0):7.2%}")
    if distribution.tokenizer.unknown_ids and not unknown:
        print(f"{'<unk>':>{width}} {apart:7.2%} for all words that the vocabulary lacks; {option} ranks it with the others")
    even = math.exp(distribution.entropy)
    print(f"entropy {distribution.bits:.2f} bits: as uncertain as an even choice among {even:,.1f} tokens")


def summary(scored: ScoredText) -> str:
    """The totals in one line."""
    spelling = math.fsum(p.spelling for p in scored.pieces)
    spelt = f", {spelling:,.1f} of them to spell unknown words" if spelling else ""
    of = f" of {scored.raw_is}" if scored.raw_is else ""
    return (
        f"{scored.nats:,.1f} nats{spelt}; {scored.tokens:,} token{'s' * (scored.tokens > 1)}, "
        f"perplexity {shown_perplexity(scored.perplexity, 1)}, "
        f"{unknown_share(scored.unknown_tokens, scored.tokens)}; "
        f"{scored.bits_per_byte:.3f} bits per byte{of}"
    )


def print_scored(scored: ScoredText) -> None:
    """The text in colours in a terminal that has them; elsewhere one token a line with its nats, rank and text."""
    console = Console(highlight=False)
    if not (sys.stdout and sys.stdout.isatty()) or console.no_color or not console.color_system:
        print("nats\trank\ttoken")
        for piece in scored.pieces:
            print(f"{piece.total:.4f}\t{piece.rank}\t{visible(piece.text)}")
        print("\n".join(f"# {line}" for line in (summary(scored), *scored.doubts)))
        return
    text = Text()
    for piece in scored.pieces:
        # White space stays plain, so that lines end where the text's do.
        body = piece.text.lstrip()
        text.append(piece.text[: len(piece.text) - len(body)])
        text.append(body, style=f"black on {colour(piece.total / math.log(2))}")
    console.print(text)
    legend = Text("bits: ")
    for name, shade in legend_entries():
        legend.append(f" {name} ", style=f"black on {shade}")
    console.print(legend)
    console.print("\n".join([summary(scored), *scored.doubts]))


def legend_entries() -> list[tuple[str, str]]:
    """(range of bits, colour)."""
    names = [f"below {EDGES[0]}", *(f"{a} to {b}" for a, b in pairwise(EDGES)), f"{EDGES[-1]} and more"]
    return list(zip(names, COLOURS, strict=True))


def as_dict(scored: ScoredText) -> dict[str, Any]:
    """For ``--json``: the totals and every piece."""
    totals: dict[str, Any] = {"nats": scored.nats, "bits_per_byte": scored.bits_per_byte, "bytes": scored.bytes}
    totals |= {"tokens": scored.tokens, "unknown_tokens": scored.unknown_tokens, "perplexity": scored.perplexity}
    totals |= {"warnings": list(scored.doubts)}
    return {**totals, "pieces": [_piece(p) for p in scored.pieces]}


def _piece(piece: Surprise) -> dict[str, Any]:
    expected = [{"token": token, "probability": p} for token, p in piece.expected]
    fields = {"text": piece.text, "nats": piece.nats, "spelling_nats": piece.spelling, "tokens": piece.tokens}
    return {**fields, "rank": piece.rank, "expected": expected}


def page(scored: ScoredText, run: str, source: str) -> str:
    """A page with the text, each token coloured, with its figures under the pointer."""
    from jinja2 import Environment

    template = files("recurrent_lm.lm").joinpath("templates/surprise.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    pieces = [{"text": p.text, "colour": colour(p.total / math.log(2)), "title": _title(p)} for p in scored.pieces]
    text = " ".join([summary(scored), *scored.doubts])
    context = {"pieces": pieces, "summary": text, "legend": legend_entries(), "run": run, "source": source}
    return environment.from_string(template).render(**context)


def _title(piece: Surprise) -> str:
    expected = ", ".join(f"{visible(token)} {p:.1%}" for token, p in piece.expected)
    spelt = f", {piece.spelling:.2f} of them to spell it" if piece.spelling else ""
    return (
        f"{piece.total:.2f} nats{spelt}, {piece.total / math.log(2):.1f} bits, P = {math.exp(-piece.nats):.2g}, "
        f"rank {piece.rank:,}; expected: {expected}"
    )
