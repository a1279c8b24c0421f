"""The choice of an implementation: eager equations, ATen's fused functions, or Triton kernels."""

import os
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

BACKENDS = ("eager", "torch", "triton")
OPEN = (None, "", "auto")


def choose_backend(name: str | None = None, device: "torch.device | None" = None) -> str:
    """Choose the backend that runs: the argument, else the variable KERNELS_BACKEND, else ``torch``.

    ``eager`` computes the equations in plain torch operations, in any dtype, and is the reference of all tests. ``torch`` uses
    ATen's fused recurrences and a cross-entropy of bounded memory. ``triton`` runs this project's own kernels.

    Args:
        name: a backend; ``None``, ``""`` and ``"auto"`` leave the choice open.
        device: the tensors' device, given by callers that have Triton kernels. Only a CUDA device runs them, except that
            Triton's interpreter (TRITON_INTERPRET=1 before Python starts) runs them anywhere.

    Returns:
        One of ``BACKENDS``.

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
    if asked == "triton" and LOOPS_FAIL:
        raise ValueError("the interpreter of Triton 3.6 fails with NumPy 2.4 and newer: pip install 'numpy<2.4'")
    return asked


def asked_backend(name: str | None = None) -> str | None:
    """Read the backend that the caller or the environment asks for.

    Args:
        name: as in ``choose_backend``.

    Returns:
        One of ``BACKENDS``; None where both the argument and KERNELS_BACKEND leave the choice open.

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
    """Whether Triton's kernels run on tensors of this device; False for None."""
    return device is not None and (device.type == "cuda" or interpreted())


def check_interpreter(dtype: "torch.dtype") -> None:
    """Refuse what Triton's interpreter computes wrongly, if the interpreter is on.

    Raises:
        ValueError: for bfloat16, whose products and sums are wrong there.
    """
    if interpreted() and str(dtype) == "torch.bfloat16":
        raise ValueError(
            "Triton's interpreter (TRITON_INTERPRET=1) computes bfloat16 wrongly: use float16, float32 or float64 with it, or "
            "backend 'torch' or 'eager'"
        )


def loops_fail() -> bool:
    """Whether the kernels are interpreted by Triton 3.6 beside NumPy 2.4 or newer, with which its loops fail
    (findings/triton-3.6-interpreter-needs-numpy-below-2.4.sh)."""
    if not interpreted() or find_spec("triton") is None:
        return False
    triton, numpy = (tuple(map(int, version(package).split(".")[:2])) for package in ("triton", "numpy"))
    return triton < (3, 7) and numpy >= (2, 4)


LOOPS_FAIL = loops_fail()  # asked once: TRITON_INTERPRET is set before Python starts, and torch.compile traces the callers
