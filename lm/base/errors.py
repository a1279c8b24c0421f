"""Errors that a user can mend: one sentence that says what is wrong and what to do."""


class InputError(ValueError):
    """Bad input. The command line prints its sentence and exits with 2; nothing is overwritten."""


class Diverged(RuntimeError):
    """A loss or a gradient is no longer finite. Exit code 3; the last checkpoint is intact.

    Args:
        what: the quantity that is not finite, and its step.
        advice: sentences on what may help.
    """

    def __init__(self, what: str, advice: str = "") -> None:
        super().__init__(f"{what}. {advice}" if advice else what)
        self.what, self.advice = what, advice


class Stopped(Exception):
    """A signal asked the run to end; everything was saved. Exit code 128 + ``signum``."""

    def __init__(self, signum: int, message: str) -> None:
        super().__init__(message)
        self.signum = signum
