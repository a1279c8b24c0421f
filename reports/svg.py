"""A drawing inside a page: SVG that takes the page's colours, light or dark, and shares no name with its neighbours."""

import io
import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from recurrent_lm.studies import COLOURS, boxes_for_glyphs, printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMESPACE = "{http://www.w3.org/2000/svg}"
LINK = "{http://www.w3.org/1999/xlink}href"
VARIABLES = {light: f"var(--{name})" for name, (light, _) in COLOURS.items()}


def inline(drawing: "Figure", prefix: str, label: str) -> str:
    """The drawing as an ``<svg>`` element as wide as its place; ``label`` is what a screen reader says.

    ``prefix`` goes before every id, so that several drawings can share a page.
    """
    buffer = io.BytesIO()
    with boxes_for_glyphs():
        drawing.savefig(buffer, format="svg")
    ElementTree.register_namespace("", NAMESPACE[1:-1])
    root = ElementTree.fromstring(buffer.getvalue())
    for parent in root.iter():
        for child in list(parent):
            if child.tag in (f"{NAMESPACE}metadata", f"{NAMESPACE}style"):
                parent.remove(child)
    for element in root.iter():
        for key, value in list(element.attrib.items()):
            element.set(key, value if value.startswith("data:") else _rounded(_variables(_prefixed(key, value, prefix))))
            if key == LINK:
                element.set("href", element.attrib.pop(key))
    for size in ("width", "height", "version"):
        root.attrib.pop(size)
    root.attrib |= {"role": "img", "aria-label": printable(label), "class": "figure"}
    return ElementTree.tostring(root, encoding="unicode")


def _prefixed(key: str, value: str, prefix: str) -> str:
    if key == "id":
        return f"{prefix}-{value}"
    if key in (LINK, "href") and value.startswith("#"):
        return f"#{prefix}-{value[1:]}"
    return value.replace("url(#", f"url(#{prefix}-")


def _rounded(value: str) -> str:
    """Coordinates to a hundredth of a point: matplotlib writes six digits, which no screen shows and every page carries.

    Numbers below 1 keep four places: the scale of letters is among them.
    """

    def short(number: "re.Match[str]") -> str:
        x = float(number[0])
        return f"{x:.{2 if abs(x) >= 1 else 4}f}".rstrip("0").rstrip(".")

    return re.sub(r"-?\d+\.\d{3,}", short, " ".join(value.split()))


def _variables(value: str) -> str:
    return re.sub(r"#[0-9a-f]{6}\b", lambda found: VARIABLES.get(found[0], found[0]), value)
