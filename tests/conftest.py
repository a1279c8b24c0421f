"""The state that all tests begin in.

Triton's kernels run in its interpreter, unless TRITON_INTERPRET says otherwise: it is read when a kernel is decorated. SIGINT
interrupts, as from a terminal: shells let jobs in the background ignore it, and processes hand that on.

The garbage collector looks at what the running test file made, not at torch and 9,500 tests: a collection takes half a second
otherwise, and studies ask for one before they take times.

Hypothesis draws the same examples each time, unless --hypothesis-profile random is given (make fuzz): then others each time.
"""

import atexit
import gc
import os
import signal

import pytest
from hypothesis import settings

os.environ.setdefault("TRITON_INTERPRET", "1")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("random", derandomize=False, deadline=None)
settings.load_profile("same")  # a profile of the command line is loaded after this one

import quick_interpreter  # noqa: E402,F401  # once TRITON_INTERPRET is set

atexit.register(gc.unfreeze)  # Triton would report what is frozen as leaks


@pytest.fixture(scope="module", autouse=True)
def _frozen() -> None:
    gc.collect()
    gc.freeze()
