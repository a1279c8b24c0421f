"""Random networks in float64: their gradients by lag, beside the predictions of theory for the same network.

Entries of W_h (of each gate's) are independent N(0, g^2 / n); inputs are white, N(0, 0.3^2) for each unit and gate.
"""

import math
import warnings
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from recurrent_lm import kernels
from recurrent_lm.studies.gradient_flow.parts import Forward, at_own_step, backward, forward, part_norms, slope, sums
from recurrent_lm.studies.timing.work import distance

NOISE = 0.3  # standard deviation of the inputs
BURN = 100  # steps before the measurement, in which the state forgets h(0) = 0
VECTORS = 3  # tangent vectors of the QR iteration
STEEPEST = {"rnn-tanh": 1.0, "rnn-relu": 1.0, "rnn-sigmoid": 0.25, "rnn-identity": 1.0}  # gamma of Pascanu et al. 2013

Row = dict[str, Any]


def window(cell: str, lags: int) -> tuple[int, int]:
    """First and last lag of the line through log norms."""
    first, last = (50, 150) if cell == "rnn-identity" else (40, 160)
    return (first, last) if lags >= last else (lags // 4, lags)


def numbers(seed: int, *shape: int) -> Tensor:
    """Independent N(0, 1) numbers, determined by seed and shape."""
    generator = torch.Generator().manual_seed(1_000_003 * seed + math.prod(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def network(cell: str, scale: float, seed: int, units: int) -> Tensor:
    """A random W_h of scale g, [G n, n]."""
    return scale / math.sqrt(units) * numbers(seed, kernels.CELLS[cell].gates * units, units)


def zeros(cell: str, batch: int, units: int) -> tuple[Tensor, ...]:
    return tuple(torch.zeros(batch, units, dtype=torch.float64) for _ in range(kernels.CELLS[cell].states))


def curves(cell: str, scale: float, seeds: int, units: int, lags: int, positions: int, qr_steps: int) -> list[Row]:
    """Measure how a random network's gradient changes with the lag.

    Returns:
        Norms ||dL(t)/d(state at step i)|| by lag relative to lag 0 (median and quartiles over seeds and positions), and for
        each seed the slope of the log norm, the largest Lyapunov exponent and, for Elman cells, the predictions of ``theory``.
    """
    rows: list[Row] = []
    seen = []
    for seed in range(seeds):
        weight = network(cell, scale, seed, units)
        z = NOISE * numbers(seed, BURN + lags + 1, positions, len(weight))
        unrolled = forward(cell, z, zeros(cell, positions, units), weight).since(BURN)
        aim = numbers(seed, 1, positions, units)
        norms = backward(unrolled, at_own_step(aim, lags + 1)).state_norms()[:, 0].flip(0)
        relative = norms / norms[0]
        seen.append(relative)
        first, last = window(cell, lags)
        middle = relative.log().median(dim=1).values.exp()
        slopes = {"slope": slope(middle, first, last), "early_slope": slope(middle, 1, min(50, lags))}
        slopes["exponent"] = lyapunov(cell, weight, seed, qr_steps)
        if cell in STEEPEST:
            slopes |= theory(unrolled, scale)
        rows += [{"seed": seed, "quantity": name, "value": value} for name, value in slopes.items()]
    return rows + bands(torch.cat(seen, dim=1))


def bands(by_lag: Tensor, shown: list[int] | None = None) -> list[Row]:
    """Median and quartiles of norms [L, positions], at the lags ``shown`` or at all lags."""
    kept = shown or [lag for lag in range(len(by_lag)) if lag < 8 or lag % 4 == 0]
    marks = by_lag[kept].quantile(torch.tensor([0.25, 0.5, 0.75], dtype=by_lag.dtype), dim=1)
    return [
        {"lag": lag, "quantity": name, "value": float(value)}
        for name, line in zip(("low", "median", "high"), marks, strict=True)
        for lag, value in zip(kept, line, strict=True)
    ]


def theory(unrolled: Forward, scale: float) -> dict[str, float]:
    """Predictions for an Elman network along its states.

    Returns:
        log of the spectral radius of W_h; log of gamma times its largest singular value (Pascanu et al. 2013); log(chi)/2 with
        chi = g^2 E[s'^2] (Poole et al. 2016).
    """
    ones = torch.ones_like(unrolled.after[0])
    slopes = kernels.CELLS[unrolled.cell].gradient(ones, None, unrolled.gates, (unrolled.before[0], None, None))[0]
    radius = torch.linalg.eigvals(unrolled.weight_hh).abs().max()
    largest = torch.linalg.matrix_norm(unrolled.weight_hh, 2)
    return {
        "log_radius": math.log(float(radius)),
        "log_singular": math.log(STEEPEST[unrolled.cell] * float(largest)),
        "half_log_chi": math.log(scale * scale * float((slopes * slopes).mean())) / 2,
    }


def lyapunov(cell: str, weight: Tensor, seed: int, steps: int) -> float:
    """The largest Lyapunov exponent of a random network on white inputs, by ``exponent``.

    Args:
        cell: a key of ``kernels.CELLS``.
        weight: W_h, [G n, n].
        seed: of inputs and tangent vectors.
        steps: over which the exponent is averaged.

    Returns:
        The exponent in nats a step.
    """
    return exponent(cell, weight, NOISE * numbers(seed, BURN + steps, len(weight)), seed)


def exponent(cell: str, weight: Tensor, z: Tensor, seed: int, burn: int = BURN, bias: Tensor | None = None) -> float:
    """The largest Lyapunov exponent along a sequence, from h(0) = 0 (Benettin et al. 1980).

    Autograd's forward mode carries tangent vectors through each step, and QR makes them orthogonal again. No code is shared
    with the backward pass.

    Args:
        cell: a key of ``kernels.CELLS``.
        weight: W_h, [G n, n].
        z: [T, G n], the input's part of the gates' sums.
        seed: of the tangent vectors.
        burn: steps before the T - ``burn`` over which the exponent is averaged.
        bias: [G n] or None.

    Returns:
        The exponent in nats a step, up to where the states are finite; nan if that is before ``burn``.
    """
    units, states = weight.shape[1], kernels.CELLS[cell].states
    state = zeros(cell, VECTORS, units)
    tangent = torch.linalg.qr(numbers(seed, states * units, VECTORS))[0]
    logs: list[float] = []
    for t, row in enumerate(z):
        with forward_ad.dual_level(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`torch.jit.script`", DeprecationWarning)  # torch's own, at its first use
            duals = map(forward_ad.make_dual, state, tangent.mT.split(units, dim=1))
            after = kernels.step(cell, row.expand(VECTORS, -1), tuple(duals), weight, bias)
            state, moved = zip(*map(forward_ad.unpack_dual, after), strict=True)
        if not all(part.isfinite().all() for part in state):
            break
        tangent, r = torch.linalg.qr(torch.cat(moved, dim=1).mT)
        if t >= burn:
            logs.append(float(r[0, 0].abs().log()))
    return sum(logs) / len(logs) if logs else math.nan


def orthogonal(radius: float, seeds: int, units: int, lags: int) -> list[Row]:
    """Slope over all lags of a linear network whose W_h is orthogonal times ``radius``, beside log(radius)."""
    rows: list[Row] = []
    for seed in range(seeds):
        weight = radius * torch.linalg.qr(numbers(seed, units, units))[0]
        unrolled = forward("rnn-identity", numbers(seed, lags + 1, 1, units), zeros("rnn-identity", 1, units), weight)
        norms = backward(unrolled, at_own_step(numbers(seed, 1, 1, units), lags + 1)).state_norms()[:, 0, 0].flip(0)
        slopes = {"slope": slope(norms, 0, lags), "log_radius": math.log(radius)}
        rows += [{"seed": seed, "quantity": name, "value": value} for name, value in slopes.items()]
    return rows


def gates(cell: str, bias: float, seeds: int, units: int, lags: int) -> list[Row]:
    """Slope of networks that only their gates hold together: recurrent weights near 0, gates with bias b.

    The gates are the LSTM's forget gates or the GRU's update gates; the other gates and the candidate get white inputs.

    Returns:
        Slopes of log ||dL(t)/dc(i)|| (LSTM) or log ||dL(t)/dh(i)|| (GRU) over the lags from 1 on, and the norms by lag.
    """
    rows: list[Row] = []
    seen = []
    for seed in range(seeds):
        weight = network(cell, 1e-6, seed, units)
        z = NOISE * numbers(seed, lags + 1, 1, len(weight))
        z[..., units : 2 * units] = bias  # f of i f g o, u of r u n
        unrolled = forward(cell, z, zeros(cell, 1, units), weight)
        back = backward(unrolled, at_own_step(numbers(seed, 1, 1, units), lags + 1))
        kept = back.d_h if back.d_c is None else back.d_c
        norms = kernels.vector_norm(kept, dim=-1)[:, 0].flip(0)
        seen.append(norms / norms[1])
        rows.append({"seed": seed, "quantity": "slope", "value": slope(norms[:, 0], 1, lags)})
    return rows + bands(torch.cat(seen, dim=1)[1:])  # at lag 0 the gradient reaches c through h(t) only, so lags count from 1


def memory(eigenvalue: float, rows: int, seed: int = 0) -> list[Row]:
    """The curse of memory (Zucchet & Orvieto 2024): E[(dh(t)/dlambda)^2] of a linear unit h(t) = lambda h(t-1) + x(t), white
    inputs.

    Returns:
        ``exact``, the expectation, which is the sum of squared responses to an impulse at each step; ``sampled``, the mean over
        ``rows`` random sequences, with the ends of its 99% interval; ``state`` = E[h(t)^2], also by impulses.
    """
    steps = math.ceil(12 / (1 - eigenvalue))
    weight = torch.tensor([[eigenvalue]], dtype=torch.float64)

    def answers(z: Tensor) -> tuple[Tensor, Tensor]:
        unrolled = forward("rnn-identity", z, zeros("rnn-identity", z.shape[1], 1), weight)
        back = backward(unrolled, at_own_step(torch.ones_like(z[:1]), len(z)))
        return sums(unrolled, back).flatten().square(), unrolled.after[0][-1].flatten().square()

    of_lambda, of_state = answers(torch.eye(steps, dtype=torch.float64)[..., None])
    samples, _ = answers(numbers(seed, steps, rows, 1))
    reach = 2.576 * float(samples.std()) / math.sqrt(rows)
    mean = float(samples.mean())
    moments = {"exact": float(of_lambda.sum()), "state": float(of_state.sum()), "sampled": mean}
    moments |= {"sampled_low": mean - reach, "sampled_high": mean + reach}
    return [{"quantity": name, "value": value} for name, value in moments.items()]


def certificate(cell: str, seeds: int, units: int, steps: int) -> list[Row]:
    """Check the T x T map of a random network from h(0) = 0 against autograd and against the gradient trace of ``kernels``.

    Returns:
        For each seed ``sum_error``, the largest relative distance over t of the parts' sum from autograd's dL(t)/dW_h;
        ``beyond``, the largest norm of a part at i > t; ``first``, at i = 1; ``trace_error``, the largest relative distance of
        ||dL(t)/dh(i)|| from the trace of one backward pass through T copies with one loss each.
    """
    rows: list[Row] = []
    for seed in range(seeds):
        weight = network(cell, 1.0, seed, units).requires_grad_()
        z, decoder = numbers(seed, steps, 1, len(weight)), numbers(seed, units, units) / math.sqrt(units)
        state = zeros(cell, 1, units)
        identity = torch.eye(len(weight), dtype=torch.float64)
        aims = torch.arange(steps) % units

        def losses(hidden: Tensor, decoder: Tensor = decoder, aims: Tensor = aims) -> Tensor:
            return torch.nn.functional.cross_entropy(hidden @ decoder, aims, reduction="none")

        unrolled = forward(cell, z, state, weight)
        hidden = unrolled.after[0][:, 0].clone().requires_grad_()
        (arriving,) = torch.autograd.grad(losses(hidden).sum(), hidden)
        back = backward(unrolled, at_own_step(arriving[:, None], steps))
        norms, total = part_norms(unrolled, back)[..., 0], sums(unrolled, back)[:, 0]
        output, _ = kernels.recurrence(cell, z, state, identity, weight, backend="eager")
        truth = [torch.autograd.grad(loss, weight, retain_graph=True)[0] for loss in losses(output[:, 0])]
        errors = [distance(a, b) for a, b in zip(total, truth, strict=True)]  # at t = 1 both are 0
        copies, starts = z.expand(-1, steps, -1), tuple(s.expand(steps, -1) for s in state)
        with kernels.trace_gradients() as trace:
            stacked, _ = kernels.recurrence(cell, copies, starts, identity, weight, backend="torch")
            losses(stacked[torch.arange(steps), torch.arange(steps)]).sum().backward()
        traced, own = trace.layers[0].hidden_norms, back.d_h.norm(dim=-1)[..., 0]
        later = torch.ones(steps, steps).tril(-1).bool()  # i > t
        quantities = {
            "sum_error": max(errors),
            "beyond": float(norms[later].max()) if steps > 1 else 0.0,
            "first": float(norms[0].max()),
            "trace_error": float((traced - own).abs().max() / own.max()),
        }
        rows += [{"seed": seed, "quantity": name, "value": value} for name, value in quantities.items()]
    return rows
