"""The state that all tests begin in.

Triton's kernels run in its interpreter, unless TRITON_INTERPRET says otherwise: it is read when a kernel is decorated. SIGINT
interrupts, as from a terminal: shells let jobs in the background ignore it, and processes hand that on.
"""

import os
import signal

os.environ.setdefault("TRITON_INTERPRET", "1")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
