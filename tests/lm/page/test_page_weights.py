"""What a page holds: the rounded weights, by an independent reading of its text, and how far they are from the run's."""

import math

import pytest
import torch
from page_content import decoded, read

from recurrent_lm.lm.base.errors import InputError
from recurrent_lm.lm.page import document
from recurrent_lm.lm.page.weights import pack, unpack
from recurrent_lm.lm.runs.folder import weights_of


@pytest.mark.parametrize("int8", [False, True], ids=["float16", "int8"])
@pytest.mark.parametrize("tie", [True, False], ids=["tied", "untied"])
def test_the_page_holds_the_rounded_weights(int8, tie, make_run):
    run = make_run("char", cell="lstm", embedding_size=5, layers=2, tie=tie)
    weights = weights_of(run.model)
    told, data = read(document.model_page(run, None, int8=int8).html)
    stored, rounded = decoded(told, data), unpack(pack(weights, int8))
    assert stored.keys() == rounded.keys() == weights.keys()
    for name, weight in weights.items():
        assert torch.equal(stored[name], rounded[name])
        largest = weight.abs().amax(dim=-1, keepdim=True) if int8 and weight.dim() == 2 else weight.abs()
        step = largest / 127 if int8 and weight.dim() == 2 else largest * 2**-10
        assert bool(((stored[name] - weight).abs() <= step / 2 + 1e-7).all()), name


@pytest.mark.parametrize("size", [1e-30, 1e-5, 1.0, 7e4, 1e30])
def test_weights_of_any_size_keep_eleven_bits(size):
    weight = torch.tensor([1.0, -0.3, 1e-3, 0.0]) * size
    rounded = unpack(pack({"w": weight}))["w"]
    assert bool(((rounded - weight).abs() <= weight.abs() * 2**-11).all())


@pytest.mark.parametrize("int8", [False, True])
def test_zeros_stay_zero(int8):
    weights = {"w": torch.zeros(3, 2), "b": torch.zeros(2)}
    assert all(torch.equal(w, torch.zeros_like(w)) for w in unpack(pack(weights, int8)).values())


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_weights_that_are_not_finite_are_refused(value):
    with pytest.raises(InputError, match=r"decoder\.bias"):
        pack({"decoder.bias": torch.tensor([0.0, value])})


def test_int8_is_half_of_float16(make_run):
    weights = weights_of(make_run("char", hidden_size=64).model)
    sixteen, eight = (len(pack(weights, int8).data) for int8 in (False, True))
    assert 0.5 * sixteen < eight < 0.55 * sixteen


def test_the_same_run_gives_the_same_page(make_run):
    first, second = (document.model_page(make_run("word"), None).html for _ in range(2))
    assert first == second


def test_texts_cannot_leave_their_place_in_the_page(make_run):
    evil = "</script><script>alert(1)</script><!-- \" ' & \r\n \u2028"
    html = document.model_page(make_run("word"), None, title=evil, prompts=(evil,)).html
    told, _ = read(html)
    assert told["about"]["title"] == evil and told["about"]["prompts"] == [evil]
    assert "alert(1)</script>" not in html and html.count("<script") == 3
