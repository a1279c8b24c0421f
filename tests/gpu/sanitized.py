"""The launches that compute-sanitizer looks at: ``python tests/gpu/sanitized.py "cooperative sentinel" cuda``."""

import os
import sys

what, device = sys.argv[1:]
os.environ["TRITON_INTERPRET"] = "1" if device == "cpu" else "0"

from contextlib import nullcontext  # noqa: E402

import torch  # noqa: E402
from loss_checks import rows_of_logits  # noqa: E402
from scan_checks import Case, one_program  # noqa: E402

from recurrent_lm.kernels import cross_entropy, linear_cross_entropy  # noqa: E402

DTYPE = torch.float16


def scans() -> None:
    plan, _, exchange = what.partition(" ")
    for cell in ("lstm", "gru", "rnn-tanh"):
        hidden = 50 if plan == "resident" or device == "cpu" else 200
        case = Case(cell, 3, 20 if device == "cuda" else 2, hidden, DTYPE, device)
        how = {"backend": "triton", "plan": plan} | ({"exchange": exchange} if exchange else {})
        results = case(DTYPE, reset=case.reset, **how)
        results += case(DTYPE, clip_recurrent=("norm", 3.0), **how)
        assert all(r.isfinite().all() for r in results)


def losses() -> None:
    logits, target = rows_of_logits(37, 141 if device == "cpu" else 4101)
    target = target.to(device)
    leaf = logits.to(DTYPE).to(device).requires_grad_()
    cross_entropy(leaf, target, label_smoothing=0.1, backend="triton").backward()
    generator = torch.Generator().manual_seed(0)
    x, w = (torch.randn(n, 19, generator=generator).to(DTYPE).to(device).requires_grad_() for n in logits.shape)
    for strategy in ("cut", "chunked"):
        linear_cross_entropy(x, w, target, strategy=strategy, backend="triton").backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


with one_program() if device == "cpu" else nullcontext():
    losses() if what == "losses" else scans()
if device == "cuda":
    torch.cuda.synchronize()
