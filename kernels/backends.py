"""Which implementation runs: the textbook, the library, or Triton."""

import os
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

BACKENDS = ("eager", "torch", "triton")
OPEN = (None, "", "auto")


def choose_backend(name: str | None = None, device: "torch.device | None" = None) -> str:
    """The backend to run: the argument, else the variable KERNELS_BACKEND, else ``torch``.

    ``eager`` is the textbook in plain torch operations, any dtype, and the reference of all tests; ``torch`` uses ATen's
    fused recurrences and a cross-entropy of bounded memory; ``triton`` runs this project's own kernels. ``None``, ``""`` and
    ``"auto"`` leave the choice open.

    Args:
        name: what was asked for.
        device: where the tensors are, given by callers that hold Triton kernels. Nothing but a CUDA device runs them,
            except that Triton's interpreter (TRITON_INTERPRET=1 before Python starts) runs them anywhere.

    Raises:
        ValueError: for an unknown name, and for ``triton`` where it cannot run.
    """
    asked = asked_backend(name) or "torch"
    if asked == "triton" and not runs_triton(device):
        where = "without kernels for this call" if device is None else f"on {device.type} tensors"
        raise ValueError(
            f"backend 'triton' cannot run {where}: use 'torch' or 'eager', or for the recurrence move the tensors to a CUDA "
            "device, or set TRITON_INTERPRET=1 before Python starts"
        )
    return asked


def asked_backend(name: str | None = None) -> str | None:
    """The backend asked for by the argument or the variable; None where both leave it open.

    Raises:
        ValueError: for an unknown name.
    """
    asked = name if name not in OPEN else os.environ.get("KERNELS_BACKEND")
    asked = None if asked in OPEN else asked
    if asked is not None and asked not in BACKENDS:
        raise ValueError(f"backend must be one of auto, {', '.join(BACKENDS)}, not {asked!r}")
    return asked


def interpreted() -> bool:
    """Whether Triton's kernels run in its interpreter."""
    return os.environ.get("TRITON_INTERPRET", "") not in ("", "0")


def runs_triton(device: "torch.device | None") -> bool:
    """Whether Triton's kernels can work on tensors of this device."""
    return device is not None and (device.type == "cuda" or interpreted())


def check_interpreter(dtype: "torch.dtype") -> None:
    """Whether Triton's interpreter computes with this dtype, should it run.

    Raises:
        ValueError: for bfloat16, whose products and sums are wrong there.
        RuntimeError: for Triton 3.6 beside NumPy 2.4 or newer, with which its loops fail
            (``findings/triton-3.6-interpreter-needs-numpy-below-2.4.sh``).
    """
    if interpreted() and _release("triton") < (3, 7) and _release("numpy") >= (2, 4):
        raise RuntimeError("the interpreter of Triton 3.6 fails with NumPy 2.4 and newer: pip install 'numpy<2.4'")
    if interpreted() and str(dtype) == "torch.bfloat16":
        raise ValueError(
            "Triton's interpreter (TRITON_INTERPRET=1) computes bfloat16 wrongly: use float16, float32 or float64 with it, or "
            "backend 'torch' or 'eager'"
        )


@cache
def _release(package: str) -> tuple[int, ...]:
    """(3, 6) of version 3.6.0."""
    return tuple(int(part) for part in version(package).split(".")[:2])
