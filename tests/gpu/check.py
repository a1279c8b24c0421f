"""What a part of the GPU check is made of, and the process that runs one: ``python tests/gpu/check.py --help``.

JSON lines go to the standard output: one with the number of checks, one when a check begins and one when it ends. Whoever
reads them sees a hang as silence.
A part is a module ``parts_NAME`` with ``checks(where, shard)``, a shard being one of its pieces that may run side by side.
"""

import argparse
import json
import math
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any


class Skip(Exception):
    """This check cannot be done here; the message says why."""


@dataclass(frozen=True)
class Where:
    """Where the checks run: on "cuda" at full size, or, for a dry run, tiny on "cpu" in Triton's interpreter."""

    device: str
    stub: bool = False  # "cuda" is a GPU that launches nothing: every line is run, at small sizes, and numbers are wrong

    @property
    def tiny(self) -> bool:
        return self.device == "cpu"

    def dtypes(self) -> list[Any]:
        import torch

        halves = [torch.float16] if self.tiny else [torch.bfloat16, torch.float16]  # the interpreter has no bfloat16
        return [*halves, torch.float32]


@dataclass(frozen=True)
class Check:
    """A check: ``call`` raises ``AssertionError`` or ``Skip``, or gives numbers, or rows of a table under "rows".

    ``seconds`` is how long it may be silent before it counts as hanging; the first call of a kernel compiles it.
    """

    name: str
    call: Callable[[], dict[str, Any] | None]
    seconds: float = 120.0


def run(check: Check) -> dict[str, Any]:
    """A check's result: status ok, failed or skipped, a note and its numbers."""
    begin = time.monotonic()
    numbers: dict[str, Any] = {}
    try:
        numbers, status, note = check.call() or {}, "ok", ""
        wait()  # what a kernel did wrong shows when the device is asked
    except Skip as reason:
        status, note = "skipped", str(reason)
    except AssertionError as error:
        status, note = "failed", " ".join(str(error).split())[:500] or traceback.format_exc().splitlines()[-3].strip()
    except Exception as error:  # one check that breaks must not end the others
        status, note = "failed", f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
    numbers = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in numbers.items()}
    return {"check": check.name, "status": status, "seconds": round(time.monotonic() - begin, 2), "note": note} | numbers


def wait() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def broken() -> bool:
    """Whether the process has lost its GPU, as after an access to a wrong address: everything after that fails, too."""
    try:
        wait()
    except RuntimeError:
        return True
    return False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part")
    parser.add_argument("shard")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu", "stub"))
    parser.add_argument("--after", type=int, default=0, help="leave out so many checks")
    parser.add_argument("--leave", nargs="*", default=[], help="leave out the checks of these names")
    arguments = parser.parse_args()
    stub = arguments.device == "stub"
    where = Where("cuda" if stub else arguments.device, stub)
    os.environ["TRITON_INTERPRET"] = "1" if where.tiny else "0"  # before anything imports Triton
    import torch

    # no TF32 in float32, which cuDNN takes unasked
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    if stub:
        sys.path.append(str(Path(__file__).with_name("rehearsal")))
        gpu = import_module("stub").stub_gpu()
        gpu.__enter__()  # until the process ends
    checks = list(import_module(f"parts_{arguments.part}").checks(where, arguments.shard))
    checks = [check for check in checks if check.name not in arguments.leave]
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no result
    print(json.dumps({"of": len(checks)}), file=out, flush=True)
    for check in checks[arguments.after :]:
        print(json.dumps({"begin": check.name, "seconds": check.seconds}), file=out, flush=True)
        print(json.dumps(run(check), default=str), file=out, flush=True)
        if broken():
            return 3
    return 0


if __name__ == "__main__":
    sys.exit(import_module("check").main())  # the parts' Check and Skip must be those of this module
