"""The errors that a user can mend: one sentence that says what is wrong and what to do."""


class InputError(ValueError):
    """Bad input. The command line prints its sentence and exits with 2; nothing is overwritten."""


class Diverged(RuntimeError):
    """A loss or a gradient stopped being finite. Exit code 3; the last checkpoint is intact."""


class Stopped(Exception):
    """A signal asked the run to end; everything was saved. Exit code 128 + ``signum``."""

    def __init__(self, signum: int, message: str) -> None:
        super().__init__(message)
        self.signum = signum
