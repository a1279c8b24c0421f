"""Image files and pages on disk. They name ``reports`` as their maker; files without that name are not overwritten."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from recurrent_lm.studies import InputError, boxes_for_glyphs, check_writable, replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAKER = "recurrent-lm reports"
# Where each picture keeps its maker: the key that matplotlib takes, and the bytes that come of it.
FORMATS = {
    ".png": ("Software", f"tEXtSoftware\0{MAKER}".encode()),
    ".svg": ("Creator", f"<dc:title>{MAKER}</dc:title>".encode()),
    ".pdf": ("Creator", f"/Creator ({MAKER})".encode()),
}
# And each page: what the templates write near the top.
PAGES = {
    ".html": f'<meta name="generator" content="{MAKER}">'.encode(),
    ".md": f"<!-- made by {MAKER} -->".encode(),
}
UNDATED = {".png": {}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}  # the same table gives the same bytes


def check_place(path: Path, force: bool = False) -> None:
    """Refuse a path where a picture cannot or must not be written.

    Raises:
        InputError: for an unknown format, a path that cannot be written, and, unless ``force``, a file that reports did not
            make.
    """
    if path.suffix not in FORMATS:
        raise InputError(f"--out must end in {', '.join(FORMATS)}, not {path.name!r}")
    check_writable(path, "--out")
    if not force and not replaceable(path):
        raise InputError(f"{path} exists and was not made by reports; choose another --out, or replace it: --force")


def save(drawing: "Figure", path: Path) -> None:
    """Write a drawing completely or not at all, with the name of its maker inside."""
    metadata = UNDATED[path.suffix] | {FORMATS[path.suffix][0]: MAKER}
    with replacing(path, "--out") as temporary, boxes_for_glyphs():
        drawing.savefig(temporary, format=path.suffix[1:], metadata=metadata)
        if path.suffix == ".png":
            _with_a_palette(temporary, metadata)


def _with_a_palette(path: Path, metadata: dict[str, Any]) -> None:
    """256 colours instead of 16 million, which look the same in a third of the bytes."""
    text = PngInfo()
    for key, value in metadata.items():
        text.add_text(key, value)
    with Image.open(path) as image:
        image.convert("RGB").quantize(256).save(path, format="PNG", optimize=True, pnginfo=text, dpi=image.info["dpi"])


def replaceable(path: Path) -> bool:
    """Whether a file is missing, or names this program as its maker."""
    if not path.exists():
        return True
    if not path.is_file():
        return False
    mark = PAGES[path.suffix] if path.suffix in PAGES else FORMATS[path.suffix][1]
    try:
        return mark in path.read_bytes()
    except OSError:
        return False
