"""compute-sanitizer over each plan and each body of the losses at small sizes: nothing out of bounds, no race on chip."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from check import Check, Skip, Where

PROGRAM = Path(__file__).with_name("sanitized.py")
SECONDS = 200.0


def checks(where: Where, shard: str) -> Iterator[Check]:
    tool, _, description = shard.partition(" ")
    yield Check(f"{tool}, {description}", partial(_sanitize, where, tool, description), SECONDS + 20)


def _sanitize(where: Where, tool: str, kernel: str) -> None:
    if where.tiny and (tool, kernel) != ("memcheck", "resident"):
        raise Skip("one program in the interpreter is enough")
    # Without the caching allocator each tensor is an allocation of its own, and its neighbours are out of bounds.
    environment = os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    command = [sys.executable, str(PROGRAM), kernel, where.device]
    if not where.tiny:
        program = _find()
        command = [program, "--tool", tool, "--report-api-errors", "no", "--error-exitcode", "99", *command]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        raise Skip(f"{tool} took longer than {SECONDS:.0f} s") from None
    output = (done.stdout + done.stderr).splitlines()
    if "Device not supported" in done.stdout + done.stderr:
        raise Skip("compute-sanitizer does not support this device")
    told = [line for line in output if "=========" in line and "COMPUTE-SANITIZER" not in line] or output[-3:]
    assert done.returncode == 0, f"exit code {done.returncode}: " + " ".join(told[:6])


def _find() -> str:
    homes = [os.environ.get("CUDA_HOME", ""), "/usr/local/cuda"]
    result = shutil.which(
        "compute-sanitizer", path=os.pathsep.join([os.environ.get("PATH", ""), *(f"{h}/bin" for h in homes if h)])
    )
    if result is None:
        raise Skip("compute-sanitizer is not installed")
    return result
