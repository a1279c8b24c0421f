"""Triton's kernels run in its interpreter, unless TRITON_INTERPRET says otherwise: it is read when a kernel is decorated."""

import os

os.environ.setdefault("TRITON_INTERPRET", "1")
