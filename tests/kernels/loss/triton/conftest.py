"""Triton's bodies run in its interpreter here; the variable is read when a body is decorated, so it is set before any is."""

import os

os.environ.setdefault("TRITON_INTERPRET", "1")
