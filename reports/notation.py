"""The lecture's notation in running text: MathML on a page, ``$...$`` in Markdown.

Two kinds are found: LaTeX between dollars in this program's own texts, and the lecture's symbols, which claims and captions
write plainly (W_h, dL(t)/dW_h). Text from outside, in which a dollar is money, gets the second kind alone.
"""

import re
from collections.abc import Iterator
from functools import cache

SYMBOL = r"(?:[Whc]_[a-z]|[LEhcxey]\([a-z0-9]+(?: ?[-+] ?[0-9a-z])?\))"
SLOPE = rf"d(?:[LhcE](?:\([a-z0-9]+(?:[-+][0-9a-z])?\))?)/d(?:{SYMBOL}|[wbh]\b)"
PLAIN = re.compile(rf"(?<![\w/$\\.])(?:{SLOPE}|{SYMBOL})(?![\w/(])")
DOLLARS = re.compile(r"\$([^$]+)\$")


def pieces(text: str, dollars: bool = False) -> Iterator[tuple[str, bool]]:
    """The text in order as (text, False) and (LaTeX, True)."""
    at = 0
    for match in DOLLARS.finditer(text) if dollars else ():
        yield from _symbols(text[at : match.start()])
        yield match[1], True
        at = match.end()
    yield from _symbols(text[at:])


def _symbols(text: str) -> Iterator[tuple[str, bool]]:
    at = 0
    for match in PLAIN.finditer(text):
        yield text[at : match.start()], False
        yield match[0], True
        at = match.end()
    yield text[at:], False


@cache
def mathml(formula: str) -> str:
    """A ``<math>`` element that stands in a line of text."""
    from latex2mathml.converter import convert

    return str(convert(formula))
