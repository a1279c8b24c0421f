"""How far a study is: a bar with the time left where there is a terminal, plain lines elsewhere."""

import sys
import time
from typing import Any

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from recurrent_lm.studies.engine.output import say

PLAIN_EVERY = 5.0  # seconds between plain lines


class Display:
    """Shows the cells of one study. The time left is that of the cells measured so far, times those that remain."""

    def __init__(self, total: int, done: int) -> None:
        self._total, self._done, self._first = total, done, done
        self._begin = self._shown = time.monotonic()
        self._bar: Any = None
        self._running: list[str] = []
        if sys.stdout and sys.stdout.isatty():
            columns = (MofNCompleteColumn(), BarColumn(bar_width=20), TextColumn("{task.fields[left]:>12} {task.description}"))
            self._bar = Progress(*columns, refresh_per_second=4)
            self._task = self._bar.add_task("", total=total, completed=done, left="")
            self._bar.start()

    def line(self, text: str) -> None:
        """A line that stays."""
        if self._bar:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            say(text)

    def begin(self, what: str) -> None:
        """Say what is being measured, beside what was begun before and has not ended."""
        self._running = [*(other for other in self._running if other != what), what]
        self._describe()

    def end(self, what: str) -> None:
        """Count a cell."""
        self._done += 1
        self._running = [other for other in self._running if other != what]
        self._describe()
        now = time.monotonic()
        left = (now - self._begin) / (self._done - self._first) * (self._total - self._done)
        text = f"{clock(left)} left"
        if self._bar:
            self._bar.update(self._task, completed=self._done, left=text)
        elif now - self._shown >= PLAIN_EVERY:
            self._shown = now
            say(f"{self._done}/{self._total} {text}; {what}")

    def _describe(self) -> None:
        if self._bar and self._running:
            more = f" and {len(self._running) - 1} more" if len(self._running) > 1 else ""
            self._bar.update(self._task, description=escape(self._running[0]) + more)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bar:
            self._bar.stop()


def clock(seconds: float) -> str:
    """Minutes and seconds, and hours where there are any."""
    hours, rest = divmod(int(seconds + 0.5), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"
