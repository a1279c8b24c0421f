"""Processes that start in milliseconds: Python's fork server has imported the program, and has run nothing of torch.

They are for tests that kill a process, give it a full disk or make it a rank. Importing the program takes seconds, so only
tests about starting it start it as a user does.
"""

import atexit
import gc
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Sequence
from contextlib import redirect_stdout
from functools import cache
from io import StringIO
from multiprocessing import forkserver, get_context
from multiprocessing.context import ForkServerContext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

from paths import ROOT

from recurrent_lm.lm import run_app
from recurrent_lm.lm.commands.cli import app as lm
from recurrent_lm.studies.cli import app as studies

PROGRAM = (
    "recurrent_lm.kernels.loss",
    "recurrent_lm.lm.commands.display",
    "recurrent_lm.lm.commands.surprise",
    "recurrent_lm.lm.generation",
    "recurrent_lm.lm.training.start",
    "recurrent_lm.lm.training.loop",
    "recurrent_lm.studies.engine.run",
    "recurrent_lm.studies.engine.claims",
    "recurrent_lm.studies.executors.own_process",
    "pyarrow.dataset",
    "pyarrow.parquet",
    "safetensors.torch",
    "tomli_w",
    "rich.table",
    "torch._dynamo",
    "torch.distributed",
    "distributed",
    "forked",
)

SERVER = "RECURRENT_LM_FORK_SERVER"  # in the environment of the server alone


def _prepare() -> None:
    """In the server: import what a command line needs, and let the collector touch, and so copy, nothing that is shared."""
    with redirect_stdout(StringIO()):
        run_app(lm, "lm", ["corpora", "list"])
    gc.collect()
    gc.freeze()
    atexit.register(os._exit, 0)  # Triton would report what is frozen as leaks


@cache
def context() -> ForkServerContext:
    """The context of multiprocessing whose processes are forked from one that has imported the program."""
    server = get_context("forkserver")
    server.set_forkserver_preload([*PROGRAM])
    paths = os.pathsep.join(path for path in sys.path if path)
    with patch.dict(os.environ, {"OMP_NUM_THREADS": "1", "TRITON_INTERPRET": "1", "PYTHONPATH": paths, SERVER: "1"}):
        forkserver.ensure_running()
    return server


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
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # it ends without a word until the program runs
        for number, name in ((1, out), (2, err)):
            file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(file, number)
            os.close(file)
        encoding = environment.get("PYTHONIOENCODING", "utf-8")  # Python opens these when it starts
        sys.stdout = sys.__stdout__ = os.fdopen(1, "w", encoding=encoding, closefd=False)
        sys.stderr = sys.__stderr__ = os.fdopen(2, "w", 1, encoding=encoding, errors="backslashreplace", closefd=False)
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(cwd)
        sys.argv = [command, *arguments]
        signal.signal(signal.SIGINT, signal.default_int_handler)
        exec(first, names)
        code = run_app({"lm": lm, "studies": studies}[command], command, arguments) if command else 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            for file in filter(None, (sys.stdout, sys.stderr)):
                file.flush()
        except OSError:
            code = 120  # with which Python ends where its output is lost
        os._exit(code)


def ended(folder: Path, command: str, arguments: Sequence[Any] = (), **how: Any) -> tuple[int, str, str]:
    """Of a command, or of a program in ``first``: the exit code, and what it wrote to stdout and stderr."""
    folder.mkdir(exist_ok=True)
    child = Child(command, arguments, folder / "out", folder / "err", **how)
    return child.wait(), child.out.read_text(), child.err.read_text()


def of_script(script: Path, argument: str, package: Path = ROOT) -> Any:
    """The JSON that a script of Triton's interpreter prints; of another package than ours in a Python of its own."""
    if package != ROOT:
        environment = os.environ | {"PYTHONPATH": str(package), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run([sys.executable, script, argument], env=environment, capture_output=True, text=True)
        code, out, err = done.returncode, done.stdout, done.stderr
    else:
        with TemporaryDirectory() as folder:
            first = f"import runpy; runpy.run_path({str(script)!r}, run_name='__main__')"
            code, out, err = ended(Path(folder), "", [argument], first=first)
    assert code == 0, err
    return json.loads(out)


if os.environ.pop(SERVER, ""):
    _prepare()
