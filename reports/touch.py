"""What the page of vanishing and exploding gradients computes with: fixed weights, inputs and a loss, drawn once from a seed.

The page itself (``templates/gradients.html`` and ``.js``) multiplies and draws; eigenvalues are found here, for g = 1, since
those of g W_h are g times as large.
"""

import json
from typing import Any

import numpy as np

NAME = "gradients"  # of the page
UNITS, STEPS, GATES = 32, 60, 4
SEED = 3
DECIMALS = 4  # of all numbers drawn: these decimals are the weights, so that JSON holds them exactly
STEEPEST = {"tanh": 1.0, "relu": 1.0, "sigmoid": 0.25, "linear": 1.0}  # gamma of Pascanu et al. 2013


def example() -> dict[str, Any]:
    """``weights`` [4, n, n], N(0, 1 / n), by gate and then by the unit that they lead to, of which Elman networks use the first
    and a GRU three; ``inputs`` [T, 4 n], N(0, 1); ``aim`` [n], dL(T)/dh(T), of norm 1; and of the first W_h at g = 1
    the ``eigenvalues`` [n, 2] and the largest singular value ``sigma``."""
    random = np.random.default_rng(SEED)
    weights = (random.standard_normal((GATES, UNITS, UNITS)) / np.sqrt(UNITS)).round(DECIMALS)
    inputs = random.standard_normal((STEPS, GATES * UNITS)).round(DECIMALS)
    aim = random.standard_normal(UNITS)
    values = np.linalg.eigvals(weights[0])
    return {
        "units": UNITS,
        "steps": STEPS,
        "weights": weights.tolist(),
        "inputs": inputs.tolist(),
        "aim": (aim / np.linalg.norm(aim)).tolist(),
        "eigenvalues": [[float(value.real), float(value.imag)] for value in values],
        "sigma": float(np.linalg.norm(weights[0], 2)),
        "steepest": STEEPEST,
    }


def as_json(values: dict[str, Any]) -> str:
    """JSON with every digit, safe inside a page."""
    return json.dumps(values, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
