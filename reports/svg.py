"""A drawing inside a page: SVG that takes the page's colours, light or dark, and shares no name with its neighbours.

Type is text, not outlines. Dense artists that a study marks ``rasterized`` are images. The numbers of lines and points go along
as JSON in ``data-series``, so that the page's script (``templates/values.js``) tells the one under the pointer.
"""

import base64
import io
import json
import math
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from xml.etree import ElementTree

import numpy as np
from matplotlib import rc_context
from matplotlib.collections import PathCollection
from matplotlib.container import ErrorbarContainer
from matplotlib.ticker import FixedFormatter
from PIL import Image

from recurrent_lm.studies import COLOURS, LETTERS, boxes_for_glyphs, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

NAMESPACE = "{http://www.w3.org/2000/svg}"
LINK = "{http://www.w3.org/1999/xlink}href"
VARIABLES = {light: f"var(--{name})" for name, (light, _) in COLOURS.items()}
FONTS = "'DejaVu Sans', Verdana, sans-serif"  # Verdana's letters are as wide; where neither is, others are narrower
DENSE = 150  # dots per inch of images in a drawing
SHADES = 96  # colours of such an image
EVERYWHERE = ("stroke-linejoin", "stroke-linecap")  # said by the style sheet of pages, for all lines
POINT = 0.72  # of the drawing's pixels, in units of the SVG
POINTS, SERIES = 1_500, 60  # told at the most by a drawing


def inline(drawing: "Figure", prefix: str, label: str) -> str:
    """The drawing as an ``<svg>`` element as wide as its place; ``label`` is what a screen reader says.

    ``prefix`` goes before every id, so that several drawings can share a page.
    """
    buffer = io.BytesIO()
    with boxes_for_glyphs(), rc_context({"svg.fonttype": "none"}):
        drawing.savefig(buffer, format="svg", dpi=DENSE)
    ElementTree.register_namespace("", NAMESPACE[1:-1])
    root = ElementTree.fromstring(buffer.getvalue())
    for parent in root.iter():
        for child in list(parent):
            if child.tag in (f"{NAMESPACE}metadata", f"{NAMESPACE}style"):
                parent.remove(child)
    for element in root.iter():
        for key, value in list(element.attrib.items()):
            if value.startswith("data:"):
                element.set(key, _smaller(value))
            else:
                element.set(key, _rounded(_variables(_prefixed(key, value, prefix))))
            if key == LINK:
                element.set("href", element.attrib.pop(key))
    for group in root.iter(f"{NAMESPACE}g"):
        if "text_" in group.get("id", ""):
            _letters(group)
    _shorten(root)
    _inherit(root)
    for size in ("width", "height", "version"):
        root.attrib.pop(size)
    root.attrib |= {"role": "img", "aria-label": printable(label), "class": "figure", "style": f"font-family:{FONTS}"}
    if told := series(drawing):
        root.attrib |= {"data-series": json.dumps(told, separators=(",", ":"), ensure_ascii=False), "tabindex": "0"}
    return ElementTree.tostring(root, encoding="unicode")


def _smaller(address: str) -> str:
    """An image in few colours: it looks the same and takes a third of the room."""
    start, _, content = address.partition(",")
    small = io.BytesIO()
    with Image.open(io.BytesIO(base64.b64decode(content))) as picture:
        picture.convert("RGBA").quantize(SHADES, method=Image.Quantize.FASTOCTREE).save(small, format="PNG", optimize=True)
    return f"{start},{base64.b64encode(small.getvalue()).decode()}"


def _shorten(root: ElementTree.Element) -> None:
    """Without ids that nothing refers to, and without what the page's style sheet says of every line."""
    used = {name for element in root.iter() for value in element.attrib.values() for name in re.findall(r"#([^)\s]+)", value)}
    for element in root.iter():
        if element.get("id") not in used:
            element.attrib.pop("id", None)
        if style := element.get("style"):
            kept = [part.strip() for part in style.split(";") if part.strip() and not part.strip().startswith(EVERYWHERE)]
            element.set("style", ";".join(kept).replace(": ", ":"))
        if element.text and not element.text.strip():
            element.text = None
        if element.tail and not element.tail.strip():
            element.tail = None


def _inherit(root: ElementTree.Element) -> None:
    """Type takes the drawing's font, and pieces of one text what their styles share: matplotlib repeats both in each piece."""
    for text in root.iter(f"{NAMESPACE}text"):
        pieces = list(text)
        styles = [_declarations(piece) for piece in pieces] or [_declarations(text)]
        shared = {name: value for name, value in styles[0].items() if all(style.get(name) == value for style in styles)}
        for piece, style in zip(pieces, styles, strict=False):
            _restyle(piece, {name: value for name, value in style.items() if name not in shared})
        kept = (_declarations(text) if pieces else {}) | shared
        _restyle(text, {name: value for name, value in kept.items() if (name, value) != ("font-family", FONTS)})


def _declarations(element: ElementTree.Element) -> dict[str, str]:
    return dict(part.split(":", 1) for part in element.get("style", "").split(";") if part)


def _restyle(element: ElementTree.Element, style: dict[str, str]) -> None:
    element.attrib.pop("style", None)
    if style:
        element.set("style", ";".join(f"{name}:{value}" for name, value in style.items()))


def image(svg: str) -> str:
    """An ``<svg>`` element of ``inline`` as the address of an image that brings the colours of both modes."""
    shades = {f"letter-{name}": pair for name, pair in LETTERS.items()} | COLOURS
    light, dark = ("".join(f"--{name}:{pair[mode]};" for name, pair in shades.items()) for mode in (0, 1))
    style = (
        f"<style>*{{stroke-linejoin:round}}svg{{{light}}}@media screen and (prefers-color-scheme:dark){{svg{{{dark}}}}}</style>"
    )
    bare = re.sub(r' data-series="[^"]*"', "", svg, count=1)
    return f"data:image/svg+xml,{quote(bare.replace('>', f'>{style}', 1), safe=' =:;,()/*+!?@$&|[]')}"


def _letters(group: ElementTree.Element) -> None:
    """Type in the page's fonts, and in those shades of the palette that can be read."""
    for element in group.iter():
        if style := element.get("style"):
            style = re.sub(r"var\(--(c\d)\)", r"var(--letter-\1)", style).replace("'DejaVu Sans'", FONTS)
            element.set("style", re.sub(r"(, Verdana, sans-serif)(, [^;]+)", r"\1", style))


def _prefixed(key: str, value: str, prefix: str) -> str:
    if key == "id":
        return f"{prefix}-{value}"
    if key in (LINK, "href") and value.startswith("#"):
        return f"#{prefix}-{value[1:]}"
    return value.replace("url(#", f"url(#{prefix}-")


def _rounded(value: str) -> str:
    """Coordinates to a tenth of a point: matplotlib writes six digits, which no screen shows and every page carries.

    Numbers below 1 keep four places: the scale of marks is among them.
    """

    def short(number: "re.Match[str]") -> str:
        x = float(number[0])
        return f"{x:.{1 if abs(x) >= 1 else 4}f}".rstrip("0").rstrip(".")

    return re.sub(r"-?\d+\.\d{2,}", short, " ".join(value.split()))


def _variables(value: str) -> str:
    return re.sub(r"#[0-9a-f]{6}\b", lambda match: VARIABLES.get(match[0], match[0]), value)


def series(drawing: "Figure") -> list[dict[str, Any]]:
    """What a page can tell of a drawing, panel by panel: the ``box`` [left, top, right, bottom] in units of the SVG, names of
    ``x`` and ``y``, and ``series`` with a ``name`` and ``points`` [x, y in the SVG, x, y as text]. The places come from
    matplotlib's own transforms, so that any scale is right, logarithmic or named. Of many points every n-th is told."""
    panels = []
    left = SERIES
    for axes in drawing.axes:
        if axes.name != "rectilinear" or not left:
            continue
        height = drawing.bbox.height
        box = axes.bbox
        edges = [box.x0 * POINT, (height - box.y1) * POINT, box.x1 * POINT, (height - box.y0) * POINT]
        lines = []
        for name, points in _data(axes):
            places = axes.transData.transform(points)
            inside = [
                [round(px * POINT), round((height - py) * POINT), _value(axes.xaxis, x), _value(axes.yaxis, y)]
                for (px, py), (x, y) in zip(places, points, strict=True)
                if math.isfinite(px + py) and box.x0 - 1 <= px <= box.x1 + 1 and box.y0 - 1 <= py <= box.y1 + 1
            ]
            if inside and left:
                lines.append({"name": name, "points": inside})
                left -= 1
        if lines:
            title = _plain(axes.get_title())
            x, y = _plain(axes.get_xlabel()), _plain(axes.get_ylabel())
            panels.append({"box": [round(edge) for edge in edges], "title": title, "x": x, "y": y, "series": lines})
    every = -(-sum(len(one["points"]) for panel in panels for one in panel["series"]) // POINTS)
    for panel in panels:
        for one in panel["series"]:
            one["points"] = one["points"][::every]
    return panels


def _data(axes: "Axes") -> Iterator[tuple[str, list[tuple[float, float]]]]:
    """The lines and points of a panel that stand for data, with the names that a legend has for them."""
    bars = {c.lines[0]: str(c.get_label()) for c in axes.containers if isinstance(c, ErrorbarContainer) and c.lines[0]}
    for line in axes.lines:
        if line.get_transform() == axes.transData:
            yield _name(bars.get(line) or str(line.get_label())), _pairs(line.get_xydata())
    for collection in axes.collections:
        if isinstance(collection, PathCollection):
            yield _name(str(collection.get_label())), _pairs(collection.get_offsets())


def _pairs(values: Any) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in np.ma.filled(np.ma.asarray(values, dtype=float), math.nan)]


def _name(label: str) -> str:
    return "" if label.startswith("_") else _plain(label)


def _value(axis: "Axis", value: float) -> str | float:
    """A value as its axis has it: by name where it has names, else with four digits that count."""
    formatter = axis.get_major_formatter()
    if isinstance(formatter, FixedFormatter):
        for place, name in zip(axis.get_majorticklocs(), formatter.seq, strict=False):
            if abs(float(place) - value) < 1e-9 and str(name):
                return _plain(str(name))
    short = float(f"{value:.4g}")
    return int(short) if short.is_integer() and abs(short) < 1e6 else short


def _plain(text: str) -> str:
    """Type without the marks of mathematics, on one line."""
    return printable(" ".join(re.sub(r"\\[,;! ]|[\\${}]", "", text).split()))
