"""``lm train --processes N``: torch's launcher starts the N processes of one training on this machine and ends them together.

Each runs this command line with its rank in its environment (``base/launched.py``). Across machines torchrun does the same; it
ends a failure with a traceback and exit code 1, while this module returns only the program's sentence and exit code.
"""

import logging
import os
import sys
from collections.abc import Sequence
from tempfile import TemporaryDirectory

from recurrent_lm import environment
from recurrent_lm.lm.base.errors import InputError


def launch(processes: int, arguments: Sequence[str]) -> int:
    """Run ``lm`` in several processes.

    Args:
        processes: how many.
        arguments: the command line.

    Returns:
        The exit code; 128 + n if signal n ended them.

    Raises:
        InputError: if they cannot be started.
    """
    os.environ.update(environment(dict(os.environ)))
    os.environ.setdefault("LOGLEVEL", "CRITICAL")  # of some of torch's elastic, read when that is loaded
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # torchrun's choice too
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    with TemporaryDirectory(prefix="lm-", ignore_cleanup_errors=True) as folder:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            run_id="lm",
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",  # any free port
            local_addr="localhost",
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
        )
        try:
            elastic_launch(config, sys.executable)("-P", "-m", "recurrent_lm.lm", *arguments)
        except SignalException as error:
            return 128 + int(error.sigval)
        except ChildFailedError as error:
            codes = [failure.exitcode for failure in error.failures.values()]
            if own := [code for code in codes if code > 0]:  # with a sentence of its own
                return own[0]
            number = -error.get_first_failure()[1].exitcode
            print(f"lm: signal {number} ended a process here; lm resume RUN goes on from its last checkpoint", file=sys.stderr)
            return 128 + number
        except (RuntimeError, RendezvousError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise InputError(f"the {processes} processes cannot be started ({reason}); try fewer, or one") from None
    return 0
