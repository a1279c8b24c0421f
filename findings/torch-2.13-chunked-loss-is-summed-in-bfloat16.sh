#!/usr/bin/env bash
# torch 2.13.0: the chunked linear_cross_entropy of bfloat16 inputs sums its loss over chunks in bfloat16.
#
# torch.nn.functional.linear_cross_entropy with LinearCrossEntropyOptions() returns a mean loss that is wrong by up to a tenth: one
# bfloat16 number takes all the chunks' target logits and then all the chunks' log-sum-exps. acc_dtype=torch.float32 and
# acc_policy="accurate" change nothing, though a reader takes them for the dtype of that sum; with float16 it is a float32 sum.
# reduction="none" is right, and so are the gradients, so the training works and only its loss and perplexity are wrong.
#
# Output seen (2026-11-30):
#   torch 2.13.0+cpu, loss of 4096 rows, |V| = 10000, bfloat16; in float64 of the same numbers 9.2234:
#   chunks 8.3125, acc_dtype float32 8.3125, mean of reduction none 9.2234, float16 chunks 9.2266
#   perplexity 10131 is reported as 4074; dL/dx differs from float64 by 0.0017 of its norm
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cat > "$folder/look.py" <<'PY'
from math import exp

import torch
from torch.nn import LinearCrossEntropyOptions
from torch.nn.functional import linear_cross_entropy

N, V, H = 4096, 10000, 64
torch.set_num_threads(1)
generator = torch.Generator().manual_seed(0)
x = torch.randn(N, H, generator=generator).bfloat16()
weight = (torch.randn(V, H, generator=generator) * 0.02).bfloat16()
target = torch.randint(V, (N,), generator=generator)


def loss(dtype, options, reduction="mean"):
    return linear_cross_entropy(x.to(dtype), weight.to(dtype), target, options=options, reduction=reduction)


truth = loss(torch.float64, None).item()
chunks = LinearCrossEntropyOptions()
in_float32 = LinearCrossEntropyOptions(acc_policy="accurate", acc_dtype=torch.float32)
auto, asked = (loss(torch.bfloat16, options).item() for options in (chunks, in_float32))
rows = loss(torch.bfloat16, chunks, "none").double().mean().item()
half = loss(torch.float16, chunks).item()
gradients = []
for dtype, options in ((torch.float64, None), (torch.bfloat16, chunks)):
    leaf = x.to(dtype).requires_grad_()
    linear_cross_entropy(leaf, weight.to(dtype), target, options=options).backward()
    gradients.append(leaf.grad.double())
error = ((gradients[1] - gradients[0]).norm() / gradients[0].norm()).item()
print(
    f"torch {torch.__version__}, loss of {N} rows, |V| = {V}, bfloat16; in float64 of the same numbers {truth:.4f}:\n"
    f"chunks {auto:.4f}, acc_dtype float32 {asked:.4f}, mean of reduction none {rows:.4f}, float16 chunks {half:.4f}\n"
    f"perplexity {exp(truth):.0f} is reported as {exp(auto):.0f}; dL/dx differs from float64 by {error:.4f} of its norm"
)
assert truth - auto > 0.5 and truth - asked > 0.5, "the behaviour has changed"
assert abs(rows - truth) < 0.01 and abs(half - truth) < 0.01 and error < 0.01, "the behaviour has changed"
PY
"$folder/venv/bin/python" "$folder/look.py"
