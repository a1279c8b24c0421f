"""The lecture's table of parameters."""

import math

import pytest

from recurrent_lm import lm
from recurrent_lm.lm.config import CELLS, ModelConfig
from recurrent_lm.lm.parameter_counts import parameter_table

VOCABULARY = 11


def counts(vocabulary: int, config: ModelConfig, tie: bool) -> dict[str, int]:
    return {name: count for name, (_, count) in parameter_table(vocabulary, config, tie).items()}


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("d", [0, 6, 3, 8])  # h = 6
@pytest.mark.parametrize("tie", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_the_table_counts_what_the_model_has(cell: str, tie: bool, d: int, layers: int) -> None:
    config = ModelConfig(cell=cell, hidden_size=6, embedding_size=d, layers=layers, tie=tie)
    table = counts(VOCABULARY, config, tie)
    model = lm.LanguageModel(VOCABULARY, config)
    assert sum(table.values()) == sum(p.numel() for p in model.parameters())

    sizes = {name: p.numel() for name, p in model.named_parameters()}
    assert table["E"] == sizes["embedding.weight"]
    assert table["b"] == sizes["decoder.bias"]
    assert table["W_i"] == sum(n for name, n in sizes.items() if ".weight_ih" in name)
    assert table["W_h"] == sum(n for name, n in sizes.items() if ".weight_hh" in name)
    assert table["biases"] == sum(n for name, n in sizes.items() if ".bias_" in name)
    assert table["projection"] == sizes.get("projection.weight", 0)
    assert table["U"] == sizes.get("decoder.weight", 0)  # tied weights are listed once, as the embedding's


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("d", [0, 3])
@pytest.mark.parametrize("tie", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_the_shapes_multiply_to_the_counts(cell: str, tie: bool, d: int, layers: int) -> None:
    config = ModelConfig(cell=cell, hidden_size=6, embedding_size=d, layers=layers)
    for name, (shape, count) in parameter_table(VOCABULARY, config, tie).items():
        if shape in ("none", "E, transposed"):
            assert count == 0, name
        else:
            terms = [[int(factor) for factor in term.split(" x ")] for term in shape.split(" + ")]
            assert sum(map(math.prod, terms)) == count, name


def test_the_lectures_elman_network() -> None:
    config = ModelConfig(cell="rnn-tanh", hidden_size=200)
    assert parameter_table(10_000, config, tie=False) == {
        "E": ("10000 x 200", 2_000_000),
        "W_i": ("200 x 200", 40_000),
        "W_h": ("200 x 200", 40_000),
        "biases": ("1 x 2 x 200", 400),
        "projection": ("none", 0),
        "U": ("200 x 10000", 2_000_000),
        "b": ("10000", 10_000),
    }
    tied = counts(10_000, config, tie=True)
    assert (tied["U"], tied["projection"]) == (0, 0)
    # tying saves |V| x h
    assert sum(counts(10_000, config, tie=False).values()) - sum(tied.values()) == 10_000 * 200


def test_two_layers_of_lstm_with_a_narrow_embedding() -> None:
    config = ModelConfig(cell="lstm", hidden_size=200, embedding_size=100, layers=2)
    assert counts(10_000, config, tie=False) == {
        "E": 1_000_000,
        "W_i": 4 * 100 * 200 + 4 * 200 * 200,
        "W_h": 2 * 4 * 200 * 200,
        "biases": 2 * 2 * 4 * 200,
        "projection": 0,
        "U": 2_000_000,
        "b": 10_000,
    }
    tied = parameter_table(10_000, config, tie=True)
    assert tied["projection"] == ("200 x 100", 20_000)
    assert tied["U"] == ("E, transposed", 0)
    assert tied["E"] == ("10000 x 100", 1_000_000)
