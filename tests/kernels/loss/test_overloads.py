"""What the public losses say they return is what they return."""

from typing import Any, get_overloads, get_type_hints

import pytest
import torch
from torch import Tensor

from recurrent_lm.kernels import Metrics, cross_entropy, linear_cross_entropy
from recurrent_lm.kernels.loss.terms import No, Yes

ASKED = {
    (No, No): Tensor,
    (Yes, No): tuple[Tensor, Tensor],
    (No, Yes): tuple[Tensor, Metrics],
    (Yes, Yes): tuple[Tensor, Tensor, Metrics],
}


@pytest.mark.parametrize("loss", [cross_entropy, linear_cross_entropy])
@pytest.mark.parametrize("lse", [False, True])
@pytest.mark.parametrize("metrics", [False, True])
def test_each_overload_is_what_is_returned(loss: Any, lse: bool, metrics: bool) -> None:
    hints = [get_type_hints(overload) for overload in get_overloads(loss)]
    declared = {(h["return_lse"], h["return_metrics"]): h["return"] for h in hints}
    assert {key: declared[key] for key in ASKED} == ASKED
    logits, target = torch.randn(3, 5), torch.tensor([0, 1, 4])
    first = (logits, target) if loss is cross_entropy else (torch.randn(3, 2), torch.randn(5, 2), target)
    found = loss(*first, return_lse=lse, return_metrics=metrics)
    wanted = declared[(Yes if lse else No), (Yes if metrics else No)]
    types = tuple(type(part) for part in found) if type(found) is tuple else type(found)
    assert types == getattr(wanted, "__args__", wanted)
