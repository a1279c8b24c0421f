#!/usr/bin/env bash
# torch 2.13.0: with the chunked linear_cross_entropy a scaled loss does not save float16 gradients.
#
# With reduction="mean" the gradients are made in the forward pass, divided by the number of rows, and stored in float16. The factor
# of torch.amp.GradScaler comes in the backward pass, when small elements have been rounded already. So each of the policies
# "accurate", "balanced" and "compact" keeps an error of 8% in dL/dx whatever the factor; without options the same factor, which is
# there for this, brings it from 3% to 0.03%. reduction="sum", divided by the number of rows by hand, is right.
#
# Output seen (2026-11-30):
#   torch 2.13.0+cpu, float16, 4096 rows, |V| = 10000: error of dL/dx over its norm, loss times 1 and times 1024
#   reference 0.0324 0.0003, accurate 0.0817 0.0817, balanced 0.0817 0.0817, compact 0.0817 0.0817, accurate and sum / rows 0.0035 0.0003
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cat > "$folder/look.py" <<'PY'
import torch
from torch.nn import LinearCrossEntropyOptions
from torch.nn.functional import linear_cross_entropy

N, V, H = 4096, 10000, 64
torch.set_num_threads(1)
generator = torch.Generator().manual_seed(0)
x = torch.randn(N, H, generator=generator)
weight = (torch.randn(V, H, generator=generator) * 0.02)
target = torch.randint(V, (N,), generator=generator)


def gradient(dtype, options, factor, reduction="mean"):
    """dL/dx, with the loss times ``factor`` as a GradScaler does it."""
    leaf = x.to(dtype).requires_grad_()
    loss = linear_cross_entropy(leaf, weight.to(dtype), target, options=options, reduction=reduction).double()
    (loss / (N if reduction == "sum" else 1) * factor).backward()
    return leaf.grad.double() / factor


truth = gradient(torch.float64, None, 1)
ways = {"reference": (None, "mean")}
ways |= {name: (LinearCrossEntropyOptions(acc_policy=name), "mean") for name in ("accurate", "balanced", "compact")}
ways |= {"accurate and sum / rows": (LinearCrossEntropyOptions(acc_policy="accurate"), "sum")}
errors = {
    name: [((gradient(torch.float16, options, factor, way) - truth).norm() / truth.norm()).item() for factor in (1, 1024)]
    for name, (options, way) in ways.items()
}
print(f"torch {torch.__version__}, float16, {N} rows, |V| = {V}: error of dL/dx over its norm, loss times 1 and times 1024")
print(", ".join(f"{name} {plain:.4f} {scaled:.4f}" for name, (plain, scaled) in errors.items()))
assert errors["reference"][1] < 0.001 and errors["accurate and sum / rows"][1] < 0.001, "the behaviour has changed"
assert all(min(errors[name]) > 0.05 for name in ("accurate", "balanced", "compact")), "the behaviour has changed"
PY
"$folder/venv/bin/python" "$folder/look.py"
