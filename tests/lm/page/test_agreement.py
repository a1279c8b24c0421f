"""The page's network in a browser beside the same rounded weights in torch."""

import copy
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

from recurrent_lm.lm.config import CELLS
from recurrent_lm.lm.page import document
from recurrent_lm.lm.page.weights import pack
from recurrent_lm.lm.runs.folder import weights_of

SHAPES: list[dict[str, Any]] = [
    {"tie": True},
    {"tie": True, "embedding_size": 7, "layers": 2},  # a projection; sizes that no four divide
    {"tie": False, "embedding_size": 9},
    {"tie": False, "layers": 3},
]
KINDS = ("word", "char", "bpe")
CASES = [(cell, kind, SHAPES[i % len(SHAPES)], i % 5 == 4) for i, (cell, kind) in enumerate(product(CELLS, KINDS))]
CASES += [(cell, "word", shape, False) for cell in ("lstm", "gru") for shape in SHAPES[1:]]


def name(case: Any) -> str:
    cell, kind, shape, int8 = case
    return "-".join([cell, kind, *(f"{key}={value}" for key, value in shape.items()), *["int8"] * int8])


@pytest.mark.parametrize("case", CASES, ids=name)
def test_probabilities_are_those_of_torch(case, browser, make_run, page_file):
    cell, kind, shape, int8 = case
    run = make_run(kind, cell=cell, **shape)
    rounded = document.rounded_model(run, pack(weights_of(run.model), int8))
    ids = [int(i) for i in np.random.default_rng(1).integers(0, run.tokenizer.size, 40)]
    browser.open(page_file(run, int8=int8).as_uri())
    browser.run("begun")
    found = np.array(browser.run(f"model.probabilities({ids}).map(p => Array.from(p))"))
    expected = [probabilities(model, ids) for model in (rounded, copy.deepcopy(rounded).double())]
    for p, tolerance in zip(expected, (1e-5, 1e-9), strict=True):
        assert np.abs(found - p).max() < tolerance
    assert np.abs(found[-1] - probabilities(run.model, ids)[-1]).max() > 1e-9  # the weights were rounded
    assert np.abs(found[-1] - found[0]).max() > 1e-3  # and the model moves


def probabilities(model, ids):
    with torch.no_grad():
        hidden, _ = model(torch.tensor([ids]), model.zero_state(1))
        return torch.softmax(model.logits(hidden[:, 0]), dim=-1).numpy()


def test_every_cell_and_kind_is_tried():
    assert {(cell, kind) for cell, kind, _, _ in CASES} == set(product(CELLS, KINDS))
    for cell in CELLS:
        assert len({str(shape) for of, _, shape, _ in CASES if of == cell}) >= 3
