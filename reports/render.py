"""Pages as HTML and as Markdown. Whatever came from outside is text there: escaped, and on one line where it is in a line."""

import base64
import hashlib
import re
from functools import cache
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from recurrent_lm.reports.images import MAKER
from recurrent_lm.studies import COLOURS, printable

if TYPE_CHECKING:
    from jinja2 import Environment

MARKS = re.compile(r"([\\`*_\[\]#|~$@]|^[-+=])")  # what Markdown could take for its own
NUMBER = re.compile(r"^(\d+)([.)])(?=\s|$)")  # likewise: the start of a list


def render(template: str, **values: Any) -> bytes:
    """A template of ``reports/templates`` filled in. Values are escaped by the rules of the format that it ends in."""
    text = _environment(template.endswith(".md")).get_template(template).render(values)
    return text.encode("utf-8", errors="replace")  # half a surrogate pair has no UTF-8


@cache
def _environment(markdown: bool) -> "Environment":
    environment = Environment(
        loader=PackageLoader("recurrent_lm.reports"),
        autoescape=True,
        finalize=_markdown if markdown else _visible,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = _part("sort.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment.globals |= {
        "maker": MAKER,
        "style": Markup(_part("style.css")),
        "script": Markup(script),
        "script_hash": f"sha256-{digest}",
        "light": {name: light for name, (light, _) in COLOURS.items()},
        "dark": {name: dark for name, (_, dark) in COLOURS.items()},
        "fenced": fenced,
        "code": lambda text: Markup(f"`{text}`"),  # of this program's own commands
        "link": Markup,  # names that are safe in a link
        "mark": Markup(f"<!-- made by {MAKER} -->"),
        "of_page": lambda changes, page: [(page, change) for change in changes],
        "whole": lambda text: Markup(escape(text)),  # keeps every character
        "drawn": Markup,  # an <svg> element that this program made
    }
    return environment


def _part(name: str) -> str:
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
    """A block of code, in a fence longer than any in the text."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return Markup("{}\n{}\n{}").format(Markup(fence), Markup(_visible(text)), Markup(fence))


def render_beside(package: str, template: str, **values: Any) -> bytes:
    """An HTML template of another folder of this room, which may extend those of ``reports/templates``."""
    loader = ChoiceLoader([PackageLoader(package), PackageLoader("recurrent_lm.reports")])
    text = _environment(False).overlay(loader=loader).get_template(template).render(values)
    return text.encode("utf-8", errors="replace")
