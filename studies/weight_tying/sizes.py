"""How many numbers each matrix of a model has: by the lecture's formulas, and as the model counts them."""

import torch

from recurrent_lm import lm

MATRICES = ("E", "W_i", "W_h", "projection", "U", "biases")
VARIANTS = {
    "untied, d = h": (False, False),
    "tied, d = h": (False, True),
    "untied, d < h": (True, False),
    "tied by a projection": (True, True),
    "untied, as large as tied": (False, False),
}
SMALLER = "untied, as large as tied"


def lecture(vocabulary: int, d: int, h: int, tie: bool) -> dict[str, int]:
    """The slide's formulas for an Elman network, without biases as on the slide."""
    projection = h * d if tie and d != h else 0
    return {"E": vocabulary * d, "W_i": d * h, "W_h": h * h, "projection": projection, "U": 0 if tie else h * vocabulary}


def count(vocabulary: int, d: int, h: int, tie: bool, cell: str) -> int:
    """All parameters of a model with biases, counted without allocating them."""
    return sum(matrices(vocabulary, d, h, tie, cell).values())


def largest_within(budget: int, vocabulary: int, cell: str) -> int:
    """The largest d = h at which an untied model has at most ``budget`` parameters; at least 1."""
    low, high = 1, 2
    while count(vocabulary, high, high, False, cell) <= budget:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(vocabulary, middle, middle, False, cell) <= budget else (low, middle)
    return low


def matrices(vocabulary: int, d: int, h: int, tie: bool, cell: str) -> dict[str, int]:
    config = lm.ModelConfig(cell=cell, hidden_size=h, embedding_size=d, tie=tie)
    with torch.device("meta"):
        model = lm.LanguageModel(vocabulary, config)
    counts = dict.fromkeys(MATRICES, 0)
    for name, parameter in model.named_parameters():  # a shared one once
        counts[_name(name)] += parameter.numel()
    return counts


def _name(parameter: str) -> str:
    """The lecture's name of a parameter of the model."""
    if "bias" in parameter:
        return "biases"
    names = {"embedding": "E", "decoder": "U", "projection": "projection"}
    first = parameter.partition(".")[0]
    return names.get(first) or ("W_h" if "weight_hh" in parameter else "W_i")
