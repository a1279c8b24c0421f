"""Pages as HTML and Markdown. Text from outside is escaped, and put on one line inside a line."""

import base64
import hashlib
import re
from collections.abc import Iterator
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from latex2mathml.converter import convert
from markupsafe import Markup

from recurrent_lm.reports.images import MAKER
from recurrent_lm.studies import COLOURS, LETTERS, printable

MARKS = re.compile(r"([\\`*_\[\]#|~$@]|^[-+=])")  # what Markdown could take for its own
NUMBER = re.compile(r"^(\d+)([.)])(?=\s|$)")  # likewise: the start of a list

# The lecture's symbols, which claims and captions write plainly (W_h, dL(t)/dW_h), and LaTeX between dollars.
SYMBOL = r"(?:[Whc]_[a-z]|[LEhcxey]\([a-z0-9]+(?: ?[-+] ?[0-9a-z])?\))"
SLOPE = rf"d(?:[LhcE](?:\([a-z0-9]+(?:[-+][0-9a-z])?\))?)/d(?:{SYMBOL}|[wbh]\b)"
PLAIN = re.compile(rf"(?<![\w/$\\.])(?:{SLOPE}|{SYMBOL})(?![\w/(])")
DOLLARS = re.compile(r"\$([^$]+)\$")


def render(template: str, **values: Any) -> bytes:
    """Fill in a template of ``reports/templates``, with the escaping of its format."""
    return _filled(_environment(template.endswith(".md")), template, values)


@cache
def _environment(markdown: bool) -> Environment:
    environment = Environment(
        loader=PackageLoader("recurrent_lm.reports"),
        autoescape=True,
        finalize=_markdown if markdown else _visible,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "maker": MAKER,
        "style": Markup(part("style.css")),
        "script": Markup(part("sort.js") + part("figures.js") + part("values.js")),
        "hashed": hashed,
        "light": _shades(0),
        "dark": _shades(1),
        "math": _typeset_markdown if markdown else _typeset,
        "fenced": fenced,
        "code": lambda text: Markup(f"`{text}`"),  # of this program's own commands
        "link": Markup,  # names that are safe in a link
        "mark": Markup(f"<!-- made by {MAKER} -->"),
        "of_page": lambda changes, page: [(page, change) for change in changes],
        "whole": lambda text: Markup(escape(text)),  # keeps every character
        "drawn": Markup,  # an <svg> element that this program made
    }
    return environment


def hashed(script: str) -> str:
    """What a page's content security policy calls a script of its own."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"


def _shades(mode: int) -> dict[str, str]:
    """Each colour by its name, in light mode (0) or dark mode (1)."""
    letters = {f"letter-{name}": pair for name, pair in LETTERS.items()}
    return {name: pair[mode] for name, pair in (COLOURS | letters).items()}


def _typeset(text: str, dollars: bool = False) -> Markup:
    """Text with its formulas as MathML."""
    told = (mathml(piece) if formula else escape(str(_visible(piece))) for piece, formula in pieces(str(text), dollars))
    return Markup("".join(told))


def _typeset_markdown(text: str, dollars: bool = False) -> Markup:
    """Text with its formulas between dollars, on one line."""
    line = " ".join(str(text).split())
    if not any(formula for _, formula in pieces(line, dollars)):
        return _markdown(line)
    told = "".join(
        f"${piece}$" if formula else MARKS.sub(r"\\\1", escape(printable(piece), quote=False))
        for piece, formula in pieces(line, dollars)
    )
    return Markup(NUMBER.sub(r"\1\\\2", told))


def part(name: str) -> str:
    """A file of ``reports/templates``."""
    return (files("recurrent_lm.reports") / "templates" / name).read_text(encoding="utf-8")


def _visible(value: Any) -> Any:
    """Printable text, in lines."""
    return value if isinstance(value, Markup) else "\n".join(map(printable, str(value).splitlines()))


def _markdown(value: Any) -> Markup:
    """Text that Markdown shows as it is, on one line."""
    if isinstance(value, Markup):
        return value
    line = printable(" ".join(str(value).split()))
    return Markup(NUMBER.sub(r"\1\\\2", MARKS.sub(r"\\\1", escape(line, quote=False))))


def fenced(text: str) -> Markup:
    """A code block whose fence is longer than any in the text."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return Markup("{}\n{}\n{}").format(Markup(fence), Markup(_visible(text)), Markup(fence))


def pieces(text: str, dollars: bool = False) -> Iterator[tuple[str, bool]]:
    """The text in order as (text, False) and (LaTeX, True). Dollars mark LaTeX in this program's own texts alone."""
    at = 0
    for found in DOLLARS.finditer(text) if dollars else ():
        yield from _symbols(text[at : found.start()])
        yield found[1], True
        at = found.end()
    yield from _symbols(text[at:])


def _symbols(text: str) -> Iterator[tuple[str, bool]]:
    at = 0
    for found in PLAIN.finditer(text):
        yield text[at : found.start()], False
        yield found[0], True
        at = found.end()
    yield text[at:], False


@cache
def mathml(formula: str) -> str:
    """A ``<math>`` element that stands in a line of text."""
    return str(convert(formula))


def render_beside(package: str, template: str, **values: Any) -> bytes:
    """An HTML template of another folder of this room, which may extend those of ``reports/templates``."""
    loader = ChoiceLoader([PackageLoader(package), PackageLoader("recurrent_lm.reports")])
    return _filled(_environment(False).overlay(loader=loader), template, values)


def _filled(environment: Environment, template: str, values: dict[str, Any]) -> bytes:
    text = environment.get_template(template).render(values)
    return text.encode("utf-8", errors="replace")  # half a surrogate pair has no UTF-8
