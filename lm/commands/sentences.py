"""What a command says of an error that a user can mend, and its exit code."""

import errno

from recurrent_lm.lm.base.console import silence, unwritten
from recurrent_lm.lm.base.errors import Diverged, InputError, Stopped


def sentence_of(error: Exception) -> tuple[str, int] | None:
    """The message and exit code of an error that a user can mend; None for others."""
    if isinstance(error, Stopped):
        return str(error), 128 + error.signum
    if isinstance(error, Diverged):
        return str(error), 3
    if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
        return _of_the_system(error), 2
    return (str(error), 2) if isinstance(error, InputError) else None


def _of_the_system(error: OSError) -> str:
    """The message for an error of the disk or a permission, with what to do."""
    if not error.filename and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EBADF):  # all files have names
        silence()
        return f"{unwritten(error)}; send it elsewhere"
    place = f" ({error.filename})" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full{place}; make room: what was saved before is whole, and lm resume goes on from a checkpoint"
    if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
        return f"{error.strerror}{place}; see to its permissions, or take another: --run for a new run, a copy of an old one"
    return f"{error.strerror or error}{place}; nothing was overwritten"
