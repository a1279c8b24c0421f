"""The curves of a training as numbers for the page's script: few enough to draw, and without NaN, which JSON lacks."""

import math
from collections.abc import Iterable
from typing import Any

from recurrent_lm.lm import History

MOST = 400  # points of a curve; a screen shows no more
SHARE_OF = 20  # a point of the share of clipped updates covers at least this many
Number = float | None


def curves(history: History) -> dict[str, Any]:
    """The curves of a training.

    Losses are in nats a token. Each of the steps is a group of consecutive updates: the means of loss and norm, and the last
    update's number and rate. ``bits`` = [a, b] converts a loss to bits a byte of the training text: a loss + b; it is None for
    runs of older versions, whose logs do not contain b.

    Returns:
        {"steps": [[update, loss, norm, largest norm, rate], ..], "clipped": [[update, percent], ..], "epochs": [..], ..}.
    """
    steps = history.steps
    size = max(1, math.ceil(len(steps) / MOST))
    threshold = history.config.training.clip.partition(":")[2]
    return {
        "steps": [_together(part) for part in _parts(steps, size)],
        "clipped": [_clipped(part) for part in _parts(steps, max(size, SHARE_OF))],
        "epochs": [[r["step"], *map(number, (r["valid_loss"], r["valid_bits_per_byte"])), r["epoch"]] for r in history.epochs],
        "bits": _bits(history),
        "threshold": number(float(threshold)) if history.config.training.clip.startswith("norm:") else None,
        "diverged": history.diverged["step"] if history.diverged else None,
        "best": history.best["step"] if history.best else None,
    }


def _parts(records: list[dict[str, Any]], size: int) -> list[list[dict[str, Any]]]:
    return [records[i : i + size] for i in range(0, len(records), size)]


def _together(records: list[dict[str, Any]]) -> list[Number]:
    """Some consecutive updates as one point."""
    last, norms = records[-1], [r["grad_norm"] for r in records]
    tokens = sum(r["tokens"] for r in records)
    loss = sum(r["loss"] * r["tokens"] for r in records) / max(tokens, 1)
    return [last["step"], *map(number, (loss, sum(norms) / len(norms), max(norms), last["lr"]))]


def _clipped(records: list[dict[str, Any]]) -> list[Number]:
    return [records[-1]["step"], number(100 * sum(bool(r["clipped"]) for r in records) / len(records))]


def _bits(history: History) -> list[Number] | None:
    """Bits a byte are proportional to the tokens' loss, plus a constant: the cost of spelling the training text's unknown
    words.
    """
    try:
        corpus, last = history.about["corpus"], history.epochs[-1]
        a = corpus["tokens"]["train"] / max(corpus["bytes"]["train"], 1) / math.log(2)
        return [number(a), number(last["train_bits_per_byte"] - a * last["train_loss"])]
    except (KeyError, IndexError):
        return None


def number(value: float) -> Number:
    """A number with six significant digits; None if it is not finite."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def numbers(values: Iterable[float]) -> list[Number]:
    """``number`` of each value."""
    return [number(value) for value in values]
