"""Units of character models: one that holds "inside quotation marks" is found, with known scores."""

import numpy as np
import torch

from recurrent_lm.lm.config import ModelConfig
from recurrent_lm.lm.model import LanguageModel
from recurrent_lm.lm.page.units import characters_of, probe, values
from recurrent_lm.lm.text.tokens import CharTokenizer

TEXT = "We said “yes we can” and then\nThey asked “Why” of us\nand he left.\n" * 60


def latch(cell="rnn-tanh"):
    """Unit 0 is set by an opening mark, cleared by a closing one and a line's end, and holds its state; unit 1 is idle."""
    tokenizer = CharTokenizer(sorted(set(TEXT)))
    model = LanguageModel(tokenizer.size, ModelConfig(cell=cell, hidden_size=2, embedding_size=1, tie=False))
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
        (layer,) = model.layers
        layer.weight_hh_l0[0, 0], layer.weight_ih_l0[0, 0] = 3.0, 1.0
        for sign, value in (("“", 9.0), ("”", -9.0), ("\n", -9.0)):
            model.embedding.weight[tokenizer.encode(sign)[0]] = value
    return tokenizer, model.eval()


def test_the_unit_that_tells_quotations_has_the_score_one():
    tokenizer, model = latch()
    ids = np.array(tokenizer.encode(TEXT), dtype=np.int32)
    units = probe(model, ids, characters_of(ids, tokenizer.show))
    assert set(units.scores) == {
        "inside quotation marks", "before the end of a line", "before a capital", "place in the word", "place in the line"
    }  # fmt: skip
    quotes = units.scores["inside quotation marks"]
    assert quotes[0] > 0.99
    assert all(0 <= score <= 1 for scores in units.scores.values() for score in scores)
    assert all(scores[1] == 0 for scores in units.scores.values())  # an idle unit tells nothing
    assert max(scores[0] for name, scores in units.scores.items() if name != "inside quotation marks") < quotes[0]
    assert 0.9 < units.scale[0] <= 1 and units.scale[1] == 0


def test_a_property_that_hardly_occurs_is_left_out():
    tokenizer, model = latch()
    ids = np.array(tokenizer.encode("we can do this and that " * 100), dtype=np.int32)
    units = probe(model, ids, characters_of(ids, tokenizer.show))
    assert set(units.scores) == {"place in the word", "place in the line"}


def test_half_bytes_and_the_end_of_a_document_are_no_characters():
    tokenizer = CharTokenizer(["a", "b"])
    ids = np.array([0, 17, 5, 6, 18], dtype=np.int32)
    assert characters_of(ids, tokenizer.show) == ["", "a", "", "", "b"]


def test_an_lstm_shows_its_memory():
    state = [(torch.tensor([[[0.1, 0.2]]]), torch.tensor([[[2.0, -3.0]]])), (torch.zeros(1, 1, 2), torch.ones(1, 1, 2))]
    expected = np.tanh([[2.0, -3.0, 1.0, 1.0]])
    np.testing.assert_allclose(values(state), expected, rtol=1e-6)
