"""What pytest's tests of the fused losses share: ``loss_checks`` and its cases as parameters."""

import pytest
from loss_checks import (
    CASES,
    TORCH_CASES,
    as_torch_has_it,
    definition,
    filled_with_nan,
    options,
    rows_of_logits,
)

__all__ = ["CASES", "OPTIONS", "REDUCTIONS", "TORCH_CASES", "WARNINGS", "as_torch_has_it", "definition", "filled_with_nan",
           "options", "rows_of_logits"]  # fmt: skip
# numpy, inside Triton's interpreter, warns of what -inf and NaN are for
WARNINGS = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
REDUCTIONS = pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
OPTIONS = pytest.mark.parametrize("case", CASES)
