"""A recurrence over a whole sequence, one layer, by backend.

The input's part of every step, z = x W_e + b, is one large product; what is left is sequential. The ``eager`` backend
unrolls the step of ``cells.py`` under autograd. The ``torch`` backend calls ATen's fused recurrence where that is the
fastest, and otherwise a loop whose backward pass is written out by hand (``host.py``).
"""

import torch
from torch import Tensor

from recurrent_lm.kernels import triton_operations
from recurrent_lm.kernels.backends import asked_backend, choose_backend
from recurrent_lm.kernels.rnn.cells import EVERY_CELL, LINEAR_CELLS, State, Weights
from recurrent_lm.kernels.rnn.host import asks_for_gradients, host_recurrence, traced, transformed, under_autocast
from recurrent_lm.kernels.rnn.watched import Clip


def recurrence(
    cell: str,
    input: Tensor,
    state: State,
    weight_ih: Tensor,
    weight_hh: Tensor | None = None,
    bias_ih: Tensor | None = None,
    bias_hh: Tensor | None = None,
    *,
    reset: Tensor | None = None,
    clip_recurrent: Clip | None = None,
    backend: str | None = None,
    plan: str | None = None,
    recompute: bool = False,
    precision: str = "ieee",
) -> tuple[Tensor, State]:
    """Run one recurrent layer over a sequence.

    Args:
        cell: a key of ``kernels.EVERY_CELL``.
        input: [T, B, I], T >= 1.
        state: the state before the first step, (h,) or (h, c), each [B, H].
        weight_ih, weight_hh, bias_ih, bias_hh: [G * H, I], [G * H, H], [G * H], [G * H], as in torch.nn. "mingru" has two
            gates, z and c, and neither weight_hh nor bias_hh.
        reset: optional [T, B] bool; where True the state is zero before that step.
        clip_recurrent: ("value", c) clips each element of dL/dh(t) to [-c, c], ("norm", c) each row's norm to c, at every
            step inside the backward pass, before it goes on to step t - 1.
        backend: see ``kernels.choose_backend``; left open, CUDA tensors run ``triton`` where the plan predicts it to be
            faster (see ``kernels.explain``) and for what only it has: ``plan`` and, without unrolling, ``clip_recurrent``.
        plan: of the triton backend: "stepwise", "resident", "cooperative", or None to choose; see ``kernels.explain``.
        recompute: of the triton backend: rebuild the gates in the backward pass by one product instead of keeping them.
        precision: of the triton backend's float32 products: "ieee", or "tf32x3", "tf32" on tensor cores.

    Returns:
        The outputs h(1) .. h(T) as [T, B, H], and the state after the last step; under autocast in its dtype.

    Under torch.func (grad, jacrev, jvp, vmap) and forward-mode differentiation every backend runs unrolled, as ``eager`` does;
    second derivatives are made that way, too. A function that torch.compile compiled with AOTAutograd (its default) may call
    torch.func inside; given dual numbers from outside it raises torch's NotImplementedError. No second derivative is taken of
    what it returns: torch refuses that.

    Of "mingru" the triton backend has one way, a scan, which computes the gates again in the backward pass: ``recompute``
    changes nothing, ``plan`` and ``precision`` are refused, and so is ``clip_recurrent``, which needs one step after another.

    Raises:
        ValueError: for an unknown cell or backend, and for shapes that do not fit, before anything runs.
        NotImplementedError: for ``clip_recurrent`` in forward mode, and for resets, clipping and cells that torch.nn does not
            have under torch.jit.trace.
    """
    if cell in LINEAR_CELLS and weight_hh is None and state:
        weight_hh = state[0].new_empty(0, state[0].shape[-1])
    if not traced():  # which warns of each comparison of sizes
        _check(cell, input, state, weight_ih, weight_hh, bias_ih, bias_hh, reset)
    _check_options(clip_recurrent, precision)
    assert weight_hh is not None  # as checked
    if (bias_ih is None) != (bias_hh is None):
        zero = weight_hh.new_zeros(weight_hh.shape[0])
        bias_ih, bias_hh = (zero, bias_hh) if bias_ih is None else (bias_ih, zero)
    weights = Weights(weight_ih, weight_hh, bias_ih, bias_hh)
    chosen = choose_backend(backend, input.device)
    if input.is_cuda and asked_backend(backend) is None:
        training = asks_for_gradients((input, *weights, *state))
        wished = plan is not None or clip_recurrent is not None  # what the library's kernels do not have
        if cell in LINEAR_CELLS:
            wished = clip_recurrent is None and triton_operations.triton_has(input)
        elif not wished:
            wished = triton_operations.better_than_library(cell, input, weight_hh, training)
        chosen = "triton" if wished else "torch"
    if plan is not None and chosen != "triton":
        raise ValueError(f"plan {plan!r} belongs to the triton backend, and the {chosen} backend was chosen")
    if cell in LINEAR_CELLS and (plan is not None or precision != "ieee"):
        option = f"plan {plan!r}" if plan is not None else f"precision {precision!r}"
        raise ValueError(f"{option} is of kernels that multiply by W_h, which {cell} does not have; leave it out")
    if chosen == "triton" and not (transformed() or traced() or input.is_meta):
        if cell in LINEAR_CELLS:
            return triton_operations.triton_linear(cell, input, state, weights, reset, clip_recurrent)
        return triton_operations.triton_recurrence(
            cell, input, state, *weights, reset, plan=plan, clip=clip_recurrent, recompute=recompute, precision=precision
        )
    return host_recurrence(cell, input, state, weights, reset, clip_recurrent, chosen)


def _check(
    cell: str,
    input: Tensor,
    state: State,
    weight_ih: Tensor,
    weight_hh: Tensor | None,
    bias_ih: Tensor | None,
    bias_hh: Tensor | None,
    reset: Tensor | None,
) -> None:
    if cell not in EVERY_CELL:
        raise ValueError(f"cell must be one of {', '.join(EVERY_CELL)}, not {cell!r}")
    if input.dim() != 3 or input.shape[0] == 0:
        raise ValueError(f"input must be [T, B, I] with T >= 1, not {list(input.shape)}")
    if not input.is_floating_point():
        raise ValueError(f"input must hold floating point numbers, not {input.dtype}")
    if len(state) != EVERY_CELL[cell].states:
        raise ValueError(f"state of {cell} must hold {EVERY_CELL[cell].states} tensors, not {len(state)}")
    if cell in LINEAR_CELLS and (bias_hh is not None or weight_hh is None or len(weight_hh)):
        raise ValueError(f"{cell} has no W_h; leave weight_hh and bias_hh out")
    if weight_hh is None or weight_hh.dim() != 2:
        given = None if weight_hh is None else list(weight_hh.shape)
        raise ValueError(f"weight_hh must be [{EVERY_CELL[cell].gates} * H, H], not {given}")
    steps, batch, features = input.shape
    hidden = weight_hh.shape[-1]
    packed = EVERY_CELL[cell].gates * hidden
    expected = {
        "weight_ih": (weight_ih, (packed, features)),
        "weight_hh": (weight_hh, (0 if cell in LINEAR_CELLS else packed, hidden)),
        "bias_ih": (bias_ih, (packed,)),
        "bias_hh": (bias_hh, (packed,)),
        "reset": (reset, (steps, batch)),
    }
    expected |= {f"state[{i}]": (s, (batch, hidden)) for i, s in enumerate(state)}
    for name, (tensor, shape) in expected.items():
        if tensor is not None and tuple(tensor.shape) != shape:
            raise ValueError(f"{name} must be {list(shape)}, not {list(tensor.shape)}")
    if reset is not None and reset.dtype != torch.bool:
        raise ValueError(f"reset must be bool, not {reset.dtype}")
    for name, (tensor, _) in expected.items():
        if tensor is None or (tensor.dtype == input.dtype and tensor.device == input.device):
            continue
        if tensor.device != input.device:
            raise ValueError(f"{name} must be on {input.device} as input is, not on {tensor.device}")
        if name != "reset" and tensor.dtype != input.dtype and not under_autocast(input.device):
            raise ValueError(f"{name} must be {input.dtype} as input is, not {tensor.dtype}")


def check_clip(clip: Clip | None) -> None:
    """Refuse what is no recurrent clipping."""
    known = clip is None or (
        isinstance(clip, tuple | list) and len(clip) == 2 and clip[0] in ("value", "norm") and isinstance(clip[1], int | float)
    )
    if not known or (clip is not None and not clip[1] > 0):
        raise ValueError(f'clip_recurrent must be ("value", c) or ("norm", c) with c > 0, not {clip!r}')


def _check_options(clip: Clip | None, precision: str) -> None:
    check_clip(clip)
    if precision not in ("ieee", "tf32", "tf32x3"):
        raise ValueError(f"precision must be ieee, tf32 or tf32x3, not {precision!r}")
