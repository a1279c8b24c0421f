"""How a text is cut into words and marks, and the white space one expects between them."""

import re

PIECE = re.compile(r"\s+|\d+(?:[.,]\d+)*\w*|\w+(?:['’]\w+)*|--+|\.{2,}|.", re.DOTALL)
CLOSING = frozenset(".,;:!?%)]}”’…-–—/")  # nothing before these
OPENING = frozenset("([{“‘$#-–—/@")  # nothing behind these


def pieces(text: str) -> list[str]:
    """Words, numbers, marks and runs of white space; joined they are the text."""
    return PIECE.findall(text)


class Line:
    """The tokens of a line so far, as much of them as the next gap depends on."""

    def __init__(self) -> None:
        self._last = ""
        self._quoted = False  # a straight quotation mark is open

    def gap(self, token: str) -> str:
        """The white space expected before ``token``."""
        if not self._last or token in CLOSING or self._last in OPENING:
            return ""
        if '"' in (token, self._last):  # the first of a pair opens, the second closes
            return "" if self._quoted else " "
        return " "

    def add(self, token: str) -> None:
        """Go on behind ``token``."""
        self._last = token
        self._quoted ^= token == '"'


def spaced(parts: list[str]) -> list[str | None]:
    """Tokens with expected white space left out; unexpected white space stays, None marks an unexpected lack of it."""
    tokens: list[str | None] = []
    line = Line()
    pending = ""
    for part in parts:
        if part.isspace():
            pending = part
            continue
        if pending != line.gap(part):
            tokens.append(pending or None)
            line = Line() if "\n" in pending else line
        tokens.append(part)
        line.add(part)
        pending = ""
    return tokens + ([pending] if pending else [])
