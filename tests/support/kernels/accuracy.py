"""How results are held to the truth, which is the eager twin in float64."""

import torch
from torch import Tensor

Numbers = dict[str, float]
# Half roundings that are always allowed, of a tensor's norm: one for the result. float32 also sums, and takes exp, in float32.
ROUNDINGS = {torch.bfloat16: 1, torch.float16: 1, torch.float32: 8}
# Of few elements the error of eager torch may be small by luck: as many as the roundings on the way to one gradient's element.
FEW, ROUNDINGS_OF_FEW = 64, 6


def near(
    got: list[Tensor], eager: list[Tensor], truth: list[Tensor], slack: float = 2.0, products: torch.dtype | None = None
) -> Numbers:
    """Errors at most ``slack`` times those of eager torch in the same dtype, or ``ROUNDINGS``; each tensor by its norm.

    Roundings are those of ``products`` where these are of fewer bits than a result.
    """
    worst, largest = 0.0, 0.0
    for index, (ours, theirs, exact) in enumerate(zip(got, eager, truth, strict=True)):
        assert ours.shape == exact.shape, f"result {index} is {list(ours.shape)}, not {list(exact.shape)}"
        assert torch.equal(ours.isnan(), exact.isnan()), f"result {index}: another pattern of NaN"
        size = float(torch.linalg.vector_norm(exact.nan_to_num()))
        mine, others = (float(torch.linalg.vector_norm((t.double() - exact).nan_to_num())) for t in (ours, theirs))
        unit = products or ours.dtype
        roundings = max(ROUNDINGS[unit], ROUNDINGS_OF_FEW if exact.numel() < FEW else 0)
        allowed = max(slack * others, roundings * torch.finfo(unit).eps / 2 * size)
        assert mine <= allowed, (
            f"result {index}: error {mine / (size or 1):.2e} of its norm, eager's {others / (size or 1):.2e}"
        )
        worst, largest = max(worst, mine / (allowed or 1.0)), max(largest, mine / (size or 1.0))
    return {"of_allowed": worst, "error": largest}


def same(actual: list[Tensor], expected: list[Tensor], size: float = 1.0) -> None:
    """Equal to rounding of float64, nan where nan is due."""
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-12, atol=1e-13 * size, equal_nan=True)
