"""Live progress of a training: a bar where there is a terminal, plain lines elsewhere."""

import sys
import time
from types import TracebackType
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn

from recurrent_lm.lm.base.console import say

PLAIN_EVERY = 10.0  # seconds between plain lines


def shown_perplexity(value: float, digits: int = 2) -> str:
    """A perplexity with so many digits behind the point; that of a spoilt model, a billion or more, with a power of ten."""
    return f"{value:,.{digits}f}" if value < 1e9 else f"{value:.3g}"


def figures(values: dict[str, float]) -> str:
    """The figures of a step or an epoch, short enough that a line of 80 columns holds them."""
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


def clock(seconds: float) -> str:
    """Minutes and seconds, and hours where there are any."""
    hours, rest = divmod(int(seconds + 0.5), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"


class Display:
    """Shows one training; ``step`` may be called as often as one likes."""

    def __init__(self, total: int, done: int, quiet: bool = False) -> None:
        self._total, self._begin, self._first = total, time.monotonic(), done
        self._shown = 0.0
        self._quiet = quiet
        self._bar: Any = None
        if not quiet and sys.stdout and sys.stdout.isatty():
            self._bar = Progress(TextColumn("{task.percentage:.0f}% {task.description}"), refresh_per_second=4)
            if self._bar.console.width >= 100:
                self._bar.columns = (*self._bar.columns, BarColumn(bar_width=self._bar.console.width - 84))
            self._task = self._bar.add_task("", total=total, completed=done)

    def __enter__(self) -> "Display":
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar:
            self._bar.stop()

    def line(self, text: str) -> None:
        """A line that stays."""
        if self._quiet:
            return
        if self._bar:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            say(text)

    def step(self, step: int, epoch: int, values: dict[str, float]) -> None:
        """The figures after ``step`` updates, and the time left if no patience ends the training early."""
        now = time.monotonic()
        if now - self._shown < (0.2 if self._bar else PLAIN_EVERY):
            return
        first = not self._shown
        self._shown = now
        left = (now - self._begin) / max(step - self._first, 1) * (self._total - step)
        text = f"epoch {epoch} {figures(values)} {clock(left)} left"
        if self._bar:
            self._bar.update(self._task, completed=step, description=text)
        elif not first:
            self.line(f"step {step}/{self._total} {text}")
