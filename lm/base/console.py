"""Output of commands, also when standard output is closed."""

import os
import sys

program = "lm"  # the command that runs, as its complaints begin


def silence() -> None:
    """Send standard output to /dev/null from here on, so that a closed pipe raises no further errors."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno() if sys.__stdout__ else 1)


def say(text: str) -> None:
    """Print a line and flush it. A closed pipe or a full disk behind standard output does not end a training or a study.

    Args:
        text: the line.
    """
    try:
        print(text, flush=True)
    except BrokenPipeError:
        silence()
    except OSError as error:
        print(f"{program}: {unwritten(error)}; going on without it", file=sys.stderr)
        silence()


def unwritten(error: OSError) -> str:
    """The message for output that was lost."""
    return f"the output could not be written: {error.strerror or error}"


def clock(seconds: float) -> str:
    """Format seconds as minutes and seconds, with hours if there are any."""
    hours, rest = divmod(int(seconds + 0.5), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"
