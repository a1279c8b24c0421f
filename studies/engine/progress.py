"""Progress of a study, cell by cell."""

from recurrent_lm import lm


class Display(lm.Display):
    """Shows the cells of a study that are done and those that are being measured."""

    def __init__(self, total: int, done: int) -> None:
        super().__init__(total, done, "cell")
        self._running: list[str] = []

    def begin(self, cell: str) -> None:
        """Show that a cell is being measured, beside others that have begun and not ended."""
        self._running = [*(other for other in self._running if other != cell), cell]
        self._describe()

    def end(self, cell: str) -> None:
        """Count a cell as done."""
        self._running = [other for other in self._running if other != cell]
        self.show(self._done + 1, cell)
        self._describe()

    def _describe(self) -> None:
        if self._running:
            more = f" and {len(self._running) - 1} more" if len(self._running) > 1 else ""
            self.describe(self._running[0] + more)
