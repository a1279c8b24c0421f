#!/usr/bin/env bash
# torch 2.13.0 on a CPU with AMX: torch.mm of a bfloat16 operand whose rows are padded (stride > columns) reads the padding.
#
# oneDNN's brg_matmul:...amx loads K in whole tiles. Where the operand's rows lie further apart than K, the rest of a tile comes
# from the padding, and is multiplied by zeros that oneDNN put into the other operand. A finite number there changes nothing. A NaN
# or an infinity (what torch.empty may hold, or a masked column) turns the whole row of the result into NaN, though no element of
# either operand is NaN. float32 and float16 products of the same tensors do not read it, nor does the copy made by .contiguous().
# One would expect torch.mm to depend on the elements of its operands alone.
#
# Output seen (2026-11-30, Intel Xeon with amx_bf16, one thread):
#   torch 2.13.0+cpu: operand finite True, product finite: bfloat16 False, bfloat16 of a copy True, float16 True, float32 True
# On a CPU without AMX there is nothing to show; the script says so and ends with 0.
set -euo pipefail
grep -qw amx_bf16 /proc/cpuinfo || { echo "no AMX on this CPU: nothing to show"; exit 0; }
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cat > "$folder/look.py" <<'PY'
import torch

torch.set_num_threads(1)
torch.manual_seed(0)


def finite(dtype, copy=False):
    """Whether [32, 34] x [34, 8] is finite, the rows of the first operand 64 elements apart with NaN between them."""
    room = torch.full((32, 64), float("nan"), dtype=dtype)
    left, right = room[:, :34], torch.ones(34, 8, dtype=dtype)
    left.fill_(0.5)
    assert left.isfinite().all()
    return torch.mm(left.contiguous() if copy else left, right).isfinite().all().item()


seen = (finite(torch.bfloat16), finite(torch.bfloat16, copy=True), finite(torch.float16), finite(torch.float32))
print(
    f"torch {torch.__version__}: operand finite True, product finite: bfloat16 {seen[0]}, bfloat16 of a copy {seen[1]}, "
    f"float16 {seen[2]}, float32 {seen[3]}"
)
assert seen == (False, True, True, True), "the behaviour has changed"
PY
"$folder/venv/bin/python" "$folder/look.py"
