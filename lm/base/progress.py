"""Live progress: a bar in a terminal, plain lines elsewhere, with a training's figures."""

import sys
import time
from types import TracebackType
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn

from recurrent_lm.lm.base.console import clock, say

BAR_EVERY, PLAIN_EVERY = 0.2, 10.0  # seconds between two states of a bar, and between plain lines


def shown_perplexity(value: float, digits: int = 2) -> str:
    """A perplexity with a suitable number of digits; from a billion on with a power of ten."""
    return f"{value:,.{digits}f}" if value < 1e9 else f"{value:.3g}"


def figures(values: dict[str, float]) -> str:
    """The figures of a step or an epoch, short enough for a line of 80 columns."""
    formats = {
        "loss": "loss {:.3f}",
        "train_loss": "train {:.3f}",
        "valid_loss": "valid {:.3f}",
        "perplexity": "ppl {}",
        "unknown": "({:.1%} unk)",
        "bits_per_byte": "{:.3f} bits/byte",
        "grad_norm": "|g| {:.2f}",
        "tokens_per_second": "{:.1f}k tok/s",
    }
    shown: dict[str, Any] = {k: v / 1000 if k == "tokens_per_second" else v for k, v in values.items()}
    if "perplexity" in shown:
        shown["perplexity"] = shown_perplexity(shown["perplexity"], 0 if shown["perplexity"] >= 1000 else 1)
    return " ".join(formats[k].format(shown[k]) for k in formats if k in shown)


class Display:
    """Shows the progress of something long; ``show`` may be called at any rate.

    Args:
        total: units of work.
        done: units that were done before this process; the time left is estimated from the others.
        unit: "step" or "cell", as plain lines name it.
    """

    def __init__(self, total: int, done: int, unit: str, quiet: bool = False) -> None:
        self._total, self._done, self._first, self._unit, self._quiet = total, done, done, unit, quiet
        self._begin = self._shown = time.monotonic()
        self._left = ""
        self._bar: Any = None
        if not quiet and sys.stdout and sys.stdout.isatty():
            self._bar = Progress(TextColumn("{task.percentage:.0f}% {task.description}", markup=False), refresh_per_second=4)
            if self._bar.console.width >= 100:
                self._bar.columns = (*self._bar.columns, BarColumn(bar_width=self._bar.console.width - 84))
            self._task = self._bar.add_task("", total=total, completed=done)
            self._bar.start()

    def __enter__(self) -> "Display":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Restore the terminal."""
        if self._bar:
            self._bar.stop()

    def line(self, text: str) -> None:
        """Print a line above the bar."""
        if self._quiet:
            return
        if self._bar:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            say(text)

    def show(self, done: int, text: str) -> None:
        """Set the number of finished units and the text beside them."""
        now, self._done = time.monotonic(), done
        if now - self._shown < (BAR_EVERY if self._bar else PLAIN_EVERY) and not (self._bar and done == self._total):
            return
        self._shown = now
        seconds = (now - self._begin) / max(done - self._first, 1) * (self._total - done)
        self._left = f"{clock(seconds)} left"
        if self._bar:
            self._bar.update(self._task, completed=done)
            self.describe(text)
        else:
            self.line(f"{self._unit} {done}/{self._total} {text} {self._left}")

    def describe(self, text: str) -> None:
        """Set the text beside the bar until the next ``show``."""
        if self._bar:
            self._bar.update(self._task, description=f"{text} {self._left}")
