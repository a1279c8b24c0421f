"""Which implementation runs: the textbook, the library, or Triton."""

import os

BACKENDS = ("eager", "torch", "triton")


def choose_backend(name: str | None = None) -> str:
    """The backend to run: the argument, else the variable KERNELS_BACKEND, else ``torch``.

    ``eager`` is the textbook in plain torch operations, any dtype, and the reference of all tests; ``torch`` uses ATen's
    fused recurrences and a cross-entropy of bounded memory. ``None``, ``""`` and ``"auto"`` leave the choice open.

    Raises:
        ValueError: for an unknown name, and for ``triton``, whose kernels this version does not hold yet.
    """
    choices = (name, os.environ.get("KERNELS_BACKEND"), "torch")
    asked = next(choice for choice in choices if choice not in (None, "", "auto"))
    if asked not in BACKENDS:
        raise ValueError(f"backend must be one of auto, {', '.join(BACKENDS)}, not {asked!r}")
    if asked == "triton":
        raise ValueError("backend 'triton' cannot run: this version holds no Triton kernels yet; use 'torch' or 'eager'")
    return asked
