"""Choice of the executor that measures a study's cells, from the option ``--executor``."""

from recurrent_lm.lm import InputError
from recurrent_lm.studies.executors.job import Executor

MOST = 1_024  # processes
FORMS = "local:N, N Dask workers on this machine, or dask:ADDRESS, the scheduler of a Dask cluster such as dask:tcp://host:8786"


def executor(text: str, name: str, timed: bool) -> Executor:
    """Create the executor that ``--executor`` names.

    Args:
        text: the option; empty measures in this process.
        name: the study's name, for errors.
        timed: whether the study measures times, which other work on the same device, or a Dask worker, would lengthen.

    Returns:
        The executor.

    Raises:
        InputError: for an unknown form, and for one that a study of times must not use.
    """
    if not text:
        return Executor()
    kind, _, where = text.partition(":")
    if kind not in ("local", "dask") or not where:
        raise InputError(f"--executor must be {FORMS}; not {text!r}")
    count = _count(where) if kind == "local" else 0
    if timed and count != 1:
        raise InputError(
            f"{name} measures times, which cells that share a machine would lengthen; leave out --executor, or take local:1"
        )
    if timed:
        from recurrent_lm.studies.executors.own_process import OwnProcess

        return OwnProcess()
    from recurrent_lm.studies.executors.cluster import Cluster, Local

    return Local(count) if kind == "local" else Cluster(where)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= len(text) <= len(str(MOST)) and 1 <= int(text) <= MOST):
        raise InputError(f"--executor local:N needs a whole number of processes from 1 to {MOST:,}, not {text!r}")
    return int(text)
