"""Compiles kernels for GPUs that are not present, each in its own process, because the compiler aborts on some inputs.

A server imports everything once and forks for each kernel: a crash ends only that kernel, and no kernel waits for imports. The
configurations come from a module with ``Configuration``, ``Facts`` and ``compile_here``: ``compiled``, ``compiled_loss`` or
``compiled_linear``. The server needs Triton, not torch.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

import triton

import recurrent_lm

SECONDS = 300  # a compilation that takes longer has failed


class Compiler:
    """Compiles with this Python's Triton, or with that of another ``python``.

    Use as ``with Compiler() as compiler: facts = compiler(configuration)``.
    """

    def __init__(self, python: str = sys.executable) -> None:
        self.python = python

    def __enter__(self) -> "Compiler":
        environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
        self._server = subprocess.Popen(
            [self.python, "-P", "-m", "recurrent_lm.kernels.bench.compiler"],
            env=recurrent_lm.environment(environment | {"TRITON_DEFAULT_FP_FUSION": "1", "PYTHONPATH": ""}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __call__(self, configuration: Any) -> Any:
        """The ``Facts`` of a ``Configuration``; if it cannot be compiled, the compiler's error as one line."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        module = type(configuration).__module__
        print(json.dumps([module, asdict(configuration)]), file=self._server.stdin, flush=True)
        answer = self._server.stdout.readline()
        if not answer:
            raise RuntimeError(f"the compiling process of {self.python} ended; can it import triton?")
        reply = json.loads(answer)
        return reply if isinstance(reply, str) else import_module(module).Facts(**reply)

    def __exit__(self, *_: object) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.terminate()  # it has no unsaved data, and Python takes seconds to end by itself
        self._server.wait()
        assert self._server.stdout is not None
        self._server.stdout.close()


def serve() -> None:
    """Answer each line of the standard input with a line of JSON: facts, or a sentence on the failure."""
    import_module("triton.compiler")
    import_module("recurrent_lm.kernels.bench.compiled")
    import_module("recurrent_lm.kernels.bench.compiled_loss")
    import_module("recurrent_lm.kernels.bench.compiled_linear")
    for line in sys.stdin:
        module, values = json.loads(line)
        with tempfile.TemporaryFile("w+") as told, tempfile.TemporaryFile("w+") as complained:
            child = os.fork()
            if not child:
                _compile(module, values, told.fileno(), complained.fileno())
            _, status = os.waitpid(child, 0)
            told.seek(0)
            complained.seek(0)
            if status == 0:
                print(told.read().splitlines()[-1], flush=True)
            else:
                code = os.waitstatus_to_exitcode(status)
                ended = "" if code > 0 else f"ended by {signal.Signals(-code).name}: "
                texts = (text.strip() for text in complained.read().splitlines())
                lines = [text for text in texts if text] or ["no message"]
                print(json.dumps(ended + _sentence(lines)), flush=True)


def _sentence(lines: list[str]) -> str:
    """The line of a failing compiler's output that names the failure."""
    telling = [line for line in lines if re.search(r"Assertion|LLVM ERROR|error:|ptxas fatal", line)]
    return (telling[0] if telling else lines[-1])[:300]


def _compile(module: str, values: dict[str, Any], told: int, complained: int) -> None:
    """In the forked process: print the facts, or exit with an error."""
    os.dup2(told, 1)
    os.dup2(complained, 2)
    signal.alarm(SECONDS)
    code = 1
    try:
        subject = import_module(module)
        print(json.dumps(asdict(subject.compile_here(subject.Configuration(**values)))), flush=True)
        code = 0
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(code)


def machine_code(cubin: bytes, option: str) -> str:
    """The output of cuobjdump, which comes with Triton, for a cubin.

    Args:
        cubin: the compiled kernel.
        option: ``-sass`` for the machine code, ``-res-usage`` for registers and memory.
    """

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        return subprocess.run([tool, option, file.name], check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    with suppress(BrokenPipeError):  # the client has ended
        serve()
