"""Weights for a page: rounded to float16 or int8, packed into one block of bytes, and read back as the page reads them.

A tensor's value is its code times a scale. float16 has one power of two for the whole tensor, which brings the largest
weight to [2^14, 2^15): nothing overflows, and weights keep 11 significant bits down to 2^-28 of the largest. int8 has one
float32 a row, the row's largest weight / 127; vectors stay float16.

The bytes of float16 are stored in two planes, first all low bytes, then all high bytes: the high ones (sign, exponent, two
bits) repeat, so gzip saves a fifth.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from recurrent_lm.lm.base.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

LARGEST = 14  # exponent of the largest code of a float16 tensor
CODES = 127  # of int8, on each side of zero


@dataclass(frozen=True)
class Packed:
    """``tensors`` give name, shape, kind and, for float16, scale, in the order in which ``data`` holds them."""

    tensors: list[dict[str, Any]]
    data: bytes


def pack(weights: dict[str, Tensor], int8: bool = False) -> Packed:
    """Round and pack a model's weights.

    Args:
        weights: tensors of one or two dimensions, by name.
        int8: matrices as int8 with a scale a row; otherwise all as float16.

    Raises:
        InputError: for a weight that is not finite.
    """
    tensors: list[dict[str, Any]] = []
    parts: list[bytes] = []
    for name, weight in weights.items():
        values = weight.detach().cpu().float().numpy()
        if not np.isfinite(values).all():
            raise InputError(f"the model's {name} holds inf or nan, which a page cannot show; train the run again")
        told = {"name": name, "shape": list(values.shape)}
        if int8 and values.ndim == 2:
            codes, scales = _int8(values)
            tensors.append(told | {"kind": "int8"})
            parts += [scales.astype("<f4").tobytes(), codes.tobytes()]
        else:
            halves, scale = _float16(values)
            tensors.append(told | {"kind": "float16", "scale": scale})
            planes = halves.astype("<f2").reshape(-1, 1).view(np.uint8)
            parts += [planes[:, 0].tobytes(), planes[:, 1].tobytes()]
    return Packed(tensors, b"".join(parts))


def unpack(packed: Packed) -> dict[str, Tensor]:
    """The rounded weights in float32: what the page computes with."""
    weights, at = {}, 0

    def take(count: int, kind: str) -> "NDArray[Any]":
        nonlocal at
        numbers = np.frombuffer(packed.data, kind, count, at)
        at += numbers.nbytes
        return numbers

    for told in packed.tensors:
        shape = told["shape"]
        count = math.prod(shape)
        if told["kind"] == "int8":
            scales = take(shape[0], "<f4")
            values = take(count, "i1").reshape(shape).astype(np.float64) * scales[:, None]
        else:
            low, high = take(count, "u1").astype("<u2"), take(count, "u1").astype("<u2")
            values = (low | high << 8).view("<f2").astype(np.float64).reshape(shape) * told["scale"]
        weights[told["name"]] = torch.from_numpy(values.astype(np.float32))
    return weights


def _float16(values: "NDArray[np.float32]") -> "tuple[NDArray[np.float16], float]":
    largest = float(np.abs(values).max(initial=0))
    scale = 2.0 ** (math.frexp(largest)[1] - 1 - LARGEST) if largest else 1.0
    return (values.astype(np.float64) / scale).astype(np.float16), scale


def _int8(values: "NDArray[np.float32]") -> "tuple[NDArray[np.int8], NDArray[np.float32]]":
    largest = np.abs(values).max(axis=1, initial=0)
    scales = (np.where(largest > 0, largest, 1) / CODES).astype(np.float32)
    codes = np.clip(np.rint(values.astype(np.float64) / scales[:, None]), -CODES, CODES)
    return codes.astype(np.int8), scales
