"""What only a GPU can show of the fused losses: no waiting for the device, peak memory, more than 2^31 logits."""

from typing import Any

import torch
from accuracy import Numbers
from torch import Tensor

from recurrent_lm.kernels import cross_entropy, linear_cross_entropy
from recurrent_lm.kernels.loss.plan import choose_loss_plan


def problem(n: int, v: int, d: int, dtype: torch.dtype = torch.bfloat16) -> tuple[Tensor, Tensor, Tensor]:
    """x [n, d] and W [v, d], and targets of which every fifth is ignored."""
    generator = torch.Generator("cuda").manual_seed(0)
    x, w = (torch.randn(s, device="cuda", generator=generator).mul_(d**-0.25).to(dtype) for s in ((n, d), (v, d)))
    target = torch.randint(0, v, (n,), device="cuda", generator=generator)
    target[::5] = -100
    return x, w, target


def waits_for_nothing(strategy: str) -> Numbers:
    """torch's own guard raises at any wait; the first call, which compiles, may."""
    x, w, target = problem(1000, 10_000, 64)
    x, w = x.requires_grad_(), w.requires_grad_()
    for mode in ("default", "error"):
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode(mode)
        try:
            linear_cross_entropy(x, w, target, strategy=strategy, backend="triton").backward()
            cross_entropy(x, target.clamp(max=63), backend="triton").backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return {}


def same_bits(strategy: str, n: int = 2000, v: int = 32_000, d: int = 512) -> Numbers:
    """Loss and gradients agree in every bit, three times."""
    x, w, target = problem(n, v, d)
    results = []
    for _ in range(3):
        leaves = [t.clone().requires_grad_() for t in (x, w)]
        loss = linear_cross_entropy(*leaves, target, strategy=strategy, backend="triton")
        logits = (x @ w[:4096].t()).requires_grad_()
        other = cross_entropy(logits, target.clamp(max=4095), backend="triton")
        results.append([loss.detach(), *torch.autograd.grad(loss, leaves), *torch.autograd.grad(other, logits)])
    for again in results[1:]:
        for index, (a, b) in enumerate(zip(results[0], again, strict=True)):
            assert torch.equal(a, b), f"result {index} differs"
    return {}


def peak_of(loss: Any, *leaves: Tensor) -> int:
    """Bytes beyond what was there and the gradients, forward and backward, of the second call: libraries keep workspaces."""
    for _ in range(2):
        for leaf in leaves:
            leaf.grad = None
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        loss().backward()
        torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before - sum(leaf.numel() * leaf.element_size() for leaf in leaves)


def memory(strategy: str, n: int = 8192, v: int = 128_256, d: int = 512) -> Numbers:
    """ "cut" needs at most 1% of N x V x 4 bytes, "chunked" what its plan says: its chunk, and a float32 gradient of W."""
    x, w, target = problem(n, v, d)
    x, w = x.requires_grad_(), w.requires_grad_()
    peak = peak_of(lambda: linear_cross_entropy(x, w, target, strategy=strategy, backend="triton"), x, w)
    planned = choose_loss_plan(n, v, d, "bfloat16", strategy=strategy).extra_bytes
    allowed = 0.01 * n * v * 4 if strategy == "cut" else planned
    assert peak <= allowed + 2**20, f"{peak / 1e6:.1f} MB, and {allowed / 1e6:.1f} MB are allowed"
    return {"peak_bytes": peak, "allowed_bytes": int(allowed), "planned_bytes": planned}


def beyond_2_to_the_31(n: int = 8256, v: int = 262_144) -> Numbers:
    """More than 2^31 logits: the last rows' loss and gradient are those of the rows alone."""
    logits = torch.randn(n, v, device="cuda", dtype=torch.bfloat16)
    target = torch.randint(0, v, (n,), device="cuda")
    leaf = logits[-8:].clone().requires_grad_()
    expected = cross_entropy(leaf, target[-8:], reduction="none", backend="triton")
    (gradient,) = torch.autograd.grad(expected.sum(), leaf)
    losses = cross_entropy(logits.requires_grad_(), target, reduction="none", inplace_backward=True, backend="triton")
    assert torch.equal(losses[-8:], expected), "other losses"
    assert torch.equal(torch.autograd.grad(losses.sum(), logits)[0][-8:], gradient), "other gradients"
    return {"logits": n * v}


def linear_beyond_2_to_the_31(strategy: str, n: int = 8256, v: int = 262_144, d: int = 64) -> Numbers:
    """The same of hidden states: the last rows' losses and input gradients are those of the rows alone, to rounding."""
    x, w, target = problem(n, v, d)
    target = target.abs()
    results = []
    for part in (slice(None), slice(n - 128, None)):
        leaf = x[part].clone().requires_grad_()
        losses = linear_cross_entropy(leaf, w, target[part], reduction="none", strategy=strategy, backend="triton")
        results.append([losses[-128:].detach(), torch.autograd.grad(losses.sum(), leaf)[0][-128:]])
    for index, (a, b) in enumerate(zip(*results, strict=True)):
        worst = float((a.double() - b.double()).norm() / b.double().norm())
        assert worst < torch.finfo(torch.bfloat16).eps, f"result {index}: relative error {worst:.1e}"
    return {"logits": n * v}


def wrong_target_makes_nan(strategy: str) -> Numbers:
    """No error, no read at the wrong address: that row is NaN."""
    x, w, target = problem(100, 1000, 64)
    target[7] = 2**40
    losses = linear_cross_entropy(x, w, target, reduction="none", strategy=strategy, backend="triton")
    assert losses.isnan().nonzero().flatten().tolist() == [7]
    return {}
