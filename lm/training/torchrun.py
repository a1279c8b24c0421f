"""torchrun with the program's own last word: ``python -m recurrent_lm.lm.training.torchrun`` takes the same arguments.

torchrun ends every failure with a traceback of its own, some thirty lines below the sentence that says what is wrong, and
with 1. Here the sentence is the last line, and the exit code is the program's, or 128 + n where signal n ended a process. And
``-m recurrent_lm.lm`` needs no ``--`` behind it, without which torchrun takes the program's ``--run`` for an option of its own.
"""

import logging
import os
import sys


def main(arguments: list[str] | None = None) -> int:
    """Run torchrun; the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if "-m" in arguments and "--" not in arguments:
        after = arguments.index("-m") + 1
        arguments = [*arguments[:after], "--", *arguments[after:]]
    os.environ.setdefault("LOGLEVEL", "CRITICAL")  # of some of torch's elastic, read when that is loaded
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # torchrun's choice too, which it would announce
    try:
        from torch.distributed.elastic.multiprocessing.api import SignalException
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
        from torch.distributed.elastic.rendezvous import RendezvousError
        from torch.distributed.run import main as torchrun
    except KeyboardInterrupt:  # no process was started yet
        return 130
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    try:
        torchrun(arguments)
    except SignalException as error:
        return 128 + int(error.sigval)
    except ChildFailedError as error:
        codes = [failure.exitcode for failure in error.failures.values()]
        if said := [code for code in codes if code > 0]:
            return said[0]
        number = -error.get_first_failure()[1].exitcode
        print(f"lm: signal {number} ended a process here; lm resume RUN goes on from its last checkpoint", file=sys.stderr)
        return 128 + number
    except (ValueError, TypeError, AssertionError) as error:  # of its own arguments
        reason = (str(error).splitlines() or ["a number is out of range"])[0]
        print(
            f"lm: torchrun cannot take its arguments: {reason}; python -m recurrent_lm.lm.training.torchrun --help lists them",
            file=sys.stderr,
        )
        return 2
    except (RuntimeError, RendezvousError) as error:  # of the network between machines
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        print(f"lm: the machines cannot reach each other: {reason}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
