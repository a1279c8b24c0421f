#!/usr/bin/env bash
# Triton 3.6.0: its interpreter raises on every loop over a run-time number of steps where NumPy is 2.4 or newer.
#
# torch 2.11 pins Triton 3.6.0, which asks for no NumPy by version, so a new environment gets a NumPy with which
# `for t in range(steps)` in a kernel fails under TRITON_INTERPRET=1: a scalar is an array of shape [1] there, and NumPy 2.4 no
# longer makes an int of one. Compiled kernels do not care, and Triton 3.7.0 has mended it. The error names NumPy nowhere.
#
# Output seen (2026-11-30):
#   triton 3.6.0, numpy 2.3.5: [3.0, 3.0, 3.0, 3.0]
#   triton 3.6.0, numpy 2.4.6: InterpreterError: TypeError('only 0-dimensional arrays can be converted to Python scalars')
#   triton 3.7.0, numpy 2.4.6: [3.0, 3.0, 3.0, 3.0]
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
cat > "$folder/look.py" <<'PY'
import numpy as np
import triton
import triton.language as tl


class Tensor:
    """As much of a tensor on the CPU as the interpreter asks for, so that torch is not needed."""

    def __init__(self, array):
        self.array, self.dtype, self.shape = array, array.dtype.name, array.shape

    def data_ptr(self):
        return self.array.ctypes.data

    def element_size(self):
        return self.array.itemsize

    def untyped_storage(self):
        return self

    def cpu(self):
        return self

    def new_empty(self, *_, **__):
        return Tensor(self.array)

    def stride(self):
        return (1,)

    def size(self):
        return self.shape

    def storage_offset(self):
        return 0

    def set_(self, *_):
        pass

    def copy_(self, *_):
        pass


@triton.jit
def total(p, steps, N: tl.constexpr):
    summed = tl.zeros((N,), tl.float32)
    for _ in range(steps):
        summed += tl.load(p + tl.arange(0, N))
    tl.store(p + tl.arange(0, N), summed)


ones = Tensor(np.ones(4, np.float32))
try:
    total[(1,)](ones, 3, N=4)
    outcome = str(ones.array.tolist())
except Exception as error:
    outcome = f"{type(error).__name__}: {error}"
print(f"triton {triton.__version__}, numpy {np.__version__}: {outcome}")
PY
for pair in "3.6.0 2.3.5" "3.6.0 2.4.6" "3.7.0 2.4.6"; do
  read -r triton numpy <<<"$pair"
  python3 -m pip install --quiet --disable-pip-version-check --target "$folder/$triton-$numpy" "triton==$triton" "numpy==$numpy"
  PYTHONPATH="$folder/$triton-$numpy" TRITON_INTERPRET=1 python3 "$folder/look.py"
done | tee "$folder/seen"
python3 - "$folder/seen" <<'PY'
import sys
from pathlib import Path

right, wrong, mended = Path(sys.argv[1]).read_text().splitlines()
assert right.endswith("numpy 2.3.5: [3.0, 3.0, 3.0, 3.0]"), right
assert "numpy 2.4.6: InterpreterError: TypeError" in wrong, wrong
assert mended == "triton 3.7.0, numpy 2.4.6: [3.0, 3.0, 3.0, 3.0]", mended
PY
