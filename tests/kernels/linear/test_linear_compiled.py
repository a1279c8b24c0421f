"""The scan of minGRU compiled for GPUs that are not present."""

from itertools import product

import pytest

from recurrent_lm.kernels.bench.compiled_linear import Configuration
from recurrent_lm.kernels.bench.compiler import Compiler


@pytest.mark.slow
def test_no_kernel_spills_or_exceeds_the_memory_of_a_program() -> None:
    """Both directions, with resets and the trace or without, padded units too."""
    with Compiler() as compiler:
        for device, direction, dtype in product(("sm_80", "sm_90"), ("forward", "backward"), ("bfloat16", "float32")):
            for more in (False, True):
                configuration = Configuration(device, direction, dtype, 200 if more else 256, more, more)
                facts = compiler(configuration)
                assert not isinstance(facts, str), facts
                assert facts.stack == 0, configuration
                assert facts.shared <= 48 * 1024, configuration
                assert facts.registers <= 168, configuration  # three programs of four warps share a multiprocessor
