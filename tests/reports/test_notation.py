"""The lecture's notation: MathML on pages, dollars in Markdown, and everything else as it is."""

from xml.etree import ElementTree

import pytest

from recurrent_lm.reports.notation import mathml, pieces
from recurrent_lm.reports.render import _typeset, _typeset_markdown


@pytest.mark.parametrize(
    ("text", "formulas"),
    [
        ("parts of dL(t)/dW_h at step i", ["dL(t)/dW_h"]),
        ("dL(4)/dh(4) and h(0), W_h", ["dL(4)/dh(4)", "h(0)", "W_h"]),
        ("dE/db = -661.7", ["dE/db"]),
        ("h(t-1) and x(t+1)", ["h(t-1)", "x(t+1)"]),
        ("runs/with_h(2)/x, a_h, https://x/W_h", []),
        ("it costs $5 or $6", []),
        ("the tokens per_second of log(chi)", []),
    ],
)
def test_symbols_are_found_and_nothing_else(text, formulas):
    found = list(pieces(text))
    assert [piece for piece, formula in found if formula] == formulas
    assert "".join(piece for piece, _ in found) == text


def test_dollars_are_mathematics_in_this_programs_texts_alone():
    assert [p for p, formula in pieces(r"as $\rho^l$ or $5", dollars=True) if formula] == [r"\rho^l"]
    assert not any(formula for _, formula in pieces(r"as $\rho^l$ or $5"))


@pytest.mark.parametrize("formula", ["W_h", "dL(t)/dW_h", r"\chi = g^2 E[\tanh'^2]", r"g/\sqrt{n}"])
def test_a_formula_is_one_element_of_mathml(formula):
    assert ElementTree.fromstring(mathml(formula)).tag.endswith("}math")


def test_text_beside_formulas_is_escaped():
    assert str(_typeset("<b> & W_h")).startswith("&lt;b&gt; &amp; <math")
    assert str(_typeset("no formula <i>")) == "no formula &lt;i&gt;"
    assert str(_typeset_markdown("*a* W_h <b>")) == r"\*a\* $W_h$ &lt;b&gt;"
    assert str(_typeset_markdown("1. W_h")) == r"1\. $W_h$"
