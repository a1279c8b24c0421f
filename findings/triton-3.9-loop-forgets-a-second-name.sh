#!/usr/bin/env bash
# triton 3.9.0 (3.6.0, too): of two names for one value before a loop, the loop does not carry the one that lags behind.
#
#     before = x
#     for s in range(steps):
#         before = x          # the value of the step before
#         x = x + 1.0
#     store(before)           # compiled: x as it was in front of the loop
#
# A loop carries the names whose value at its end is another than at its beginning. At its end ``before`` is x at its beginning, the
# very value that ``before`` had, so it counts as unchanged. No error, no warning; range and while alike. The interpreter
# (TRITON_INTERPRET=1) is right, so a kernel that was tested there is wrong on a GPU. ``before = tl.zeros(...)`` in front of
# the loop mends it.
#
# Output seen (2026-12-01):
#   triton 3.9.0, x = 5 in front of three steps that add 1: before must be 7; the interpreter has 7.0
#   compiled for sm_90: the loop carries 1 value and stores the value in front of it; with zeros first it carries 2
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 triton==3.9.0 numpy==2.4.6
cat > "$folder/kernels.py" <<'PY'
import triton
import triton.language as tl


@triton.jit
def two_names(p_x, p_before, p_last, steps, N: tl.constexpr):
    at = tl.arange(0, N)
    x = tl.load(p_x + at)
    before = x
    for s in range(steps):
        before = x
        x = x + 1.0
    tl.store(p_before + at, before)
    tl.store(p_last + at, x)


@triton.jit
def zeros_first(p_x, p_before, p_last, steps, N: tl.constexpr):
    at = tl.arange(0, N)
    x = tl.load(p_x + at)
    before = tl.zeros((N,), tl.float32)
    for s in range(steps):
        before = x
        x = x + 1.0
    tl.store(p_before + at, before)
    tl.store(p_last + at, x)
PY
cat > "$folder/interpreted.py" <<'PY'
import torch
from kernels import two_names

x = torch.full((128,), 5.0)
before, last = torch.empty_like(x), torch.empty_like(x)
two_names[(1,)](x, before, last, 3, N=128)
assert last[0] == 8
print(before[0].item())
PY
cat > "$folder/look.py" <<'PY'
import re
import sys

import triton
from kernels import two_names, zeros_first
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

SIGNATURE = {"p_x": "*fp32", "p_before": "*fp32", "p_last": "*fp32", "steps": "i32", "N": "constexpr"}


def compiled(kernel):
    """How many values the loop carries, and whether what is stored for p_before comes from in front of it."""
    code = triton.compile(ASTSource(kernel, SIGNATURE, {"N": 128}), target=GPUTarget("cuda", 90, 32)).asm["ttir"]
    carried = re.search(r"scf\.for .* iter_args\((.*?)\) ->", code)[1].split(", ")
    loaded = re.search(r"(%\w+) = tt\.load", code)[1]
    stored = re.search(r"tt\.store %\w+, (%[\w#]+)", code)[1]  # the first store is that of p_before
    return len(carried), stored == loaded


names, first = compiled(two_names), compiled(zeros_first)
interpreted = float(sys.argv[1])
print(
    f"triton {triton.__version__}, x = 5 in front of three steps that add 1: before must be 7; the interpreter has {interpreted}\n"
    f"compiled for sm_90: the loop carries {names[0]} value and stores {'the value in front of it' if names[1] else 'its own'}; "
    f"with zeros first it carries {first[0]}"
)
assert (names, first, interpreted) == ((1, True), (2, False), 7.0), "the behaviour has changed"
PY
cd "$folder"
"$folder/venv/bin/python" -W ignore look.py "$(TRITON_INTERPRET=1 "$folder/venv/bin/python" -W ignore interpreted.py)"
