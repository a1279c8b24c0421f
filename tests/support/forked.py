"""Processes that start in milliseconds: Python's fork server has imported the program, and has run nothing of torch.

They are for tests that kill a process, give it a full disk or make it a rank. Importing the program takes seconds, so only
tests about starting it start it as a user does.
"""

import os
import sys
import traceback
from collections.abc import Sequence
from functools import cache
from multiprocessing import forkserver, get_context
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any
from unittest.mock import patch

from recurrent_lm.lm import run_app
from recurrent_lm.lm.commands.cli import app as lm
from recurrent_lm.studies.cli import app as studies

PROGRAM = (
    "recurrent_lm.lm.commands.cli",
    "recurrent_lm.lm.commands.display",
    "recurrent_lm.lm.generation",
    "recurrent_lm.lm.training.start",
    "recurrent_lm.lm.training.loop",
    "recurrent_lm.studies.cli",
    "recurrent_lm.studies.engine.run",
    "recurrent_lm.studies.executors.own_process",
    "safetensors.torch",
    "tomli_w",
    "rich.table",
    "torch._dynamo",
    "torch.distributed",
    "distributed",
    "forked",
)


@cache
def context() -> ForkServerContext:
    """The context of multiprocessing whose processes are forked from one that has imported the program."""
    made = get_context("forkserver")
    made.set_forkserver_preload([*PROGRAM])
    paths = os.pathsep.join(path for path in sys.path if path)
    with patch.dict(os.environ, {"OMP_NUM_THREADS": "1", "TRITON_INTERPRET": "1", "PYTHONPATH": paths}):
        forkserver.ensure_running()
    return made


class Child:
    """One running command; ``wait`` gives its exit code, negative for a signal that killed it."""

    def __init__(
        self,
        command: str,
        arguments: Sequence[Any],
        out: Path,
        err: Path,
        *,
        first: str = "",
        cwd: Path | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        """Run the Python of ``first``, then ``command``: lm, studies or nothing. Its output goes to ``out`` and ``err``."""
        self.out, self.err = out, err
        order = (command, [str(a) for a in arguments], str(out), str(err), first, str(cwd or Path.cwd()))
        self.process = context().Process(
            target=_become, args=(*order, {**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})})
        )
        self.process.start()
        assert self.process.pid
        self.pid = self.process.pid

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""
        return self.process.exitcode

    def wait(self) -> int:
        self.process.join()
        assert self.process.exitcode is not None
        return self.process.exitcode


def _become(command: str, arguments: list[str], out: str, err: str, first: str, cwd: str, environment: dict[str, str]) -> None:
    """In the process."""
    code = 1
    names: dict[str, Any] = {}  # of ``first``; they live as long as the process
    try:
        for number, name in ((1, out), (2, err)):
            file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(file, number)
            os.close(file)
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(cwd)
        sys.argv = [command, *arguments]
        exec(first, names)
        code = run_app({"lm": lm, "studies": studies}[command], command, arguments) if command else 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:
        for file in (sys.stdout, sys.stderr):
            if file:
                file.flush()
        os._exit(code)


def ended(folder: Path, command: str, arguments: Sequence[Any] = (), **how: Any) -> tuple[int, str, str]:
    """Of a command, or of a program in ``first``: the exit code, and what it wrote to stdout and stderr."""
    folder.mkdir(exist_ok=True)
    child = Child(command, arguments, folder / "out", folder / "err", **how)
    return child.wait(), child.out.read_text(), child.err.read_text()
