"""Standard output when nobody listens any more."""

import os
import sys


def silence() -> None:
    """Send standard output nowhere from here on, so that nothing stumbles over a closed pipe again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno() if sys.__stdout__ else 1)


def say(text: str) -> None:
    """Print a line at once; a training does not end because its reader went away, or has no room left."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        silence()
    except OSError as error:
        print(f"lm: {unwritten(error)}; going on without it", file=sys.stderr)
        silence()


def unwritten(error: OSError) -> str:
    """What to say of output that was lost."""
    return f"the output could not be written: {error.strerror or error}"
