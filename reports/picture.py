"""A drawing on disk. What is written says that ``reports`` made it, and nothing else is written over."""

from pathlib import Path
from typing import TYPE_CHECKING

from studies import InputError, check_writable, replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAKER = "recurrent-lm reports"
# Where each format keeps its maker: the key that matplotlib takes, and the bytes that come of it.
FORMATS = {
    ".png": ("Software", f"tEXtSoftware\0{MAKER}".encode()),
    ".svg": ("Creator", f"<dc:title>{MAKER}</dc:title>".encode()),
    ".pdf": ("Creator", f"/Creator ({MAKER})".encode()),
}


def check_place(path: Path, force: bool = False) -> None:
    """Refuse a place where a picture cannot or must not be written.

    Raises:
        InputError: for an unknown format, a place that cannot be written, and, unless ``force``, a file from elsewhere.
    """
    if path.suffix not in FORMATS:
        raise InputError(f"--out must end in {', '.join(FORMATS)}, not {path.name!r}")
    check_writable(path)
    if path.exists() and not force and not _made_here(path):
        raise InputError(f"{path} exists and was not made by reports; choose another --out, or replace it: --force")


def save(drawing: "Figure", path: Path) -> None:
    """Write a drawing as a whole or not at all, with the name of its maker inside."""
    import warnings

    key, _ = FORMATS[path.suffix]
    with replacing(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a box stands for what the font lacks
        drawing.savefig(temporary, format=path.suffix[1:], metadata={key: MAKER})


def _made_here(path: Path) -> bool:
    """Whether a file says that ``save`` wrote it."""
    if not path.is_file():
        return False
    try:
        return FORMATS[path.suffix][1] in path.read_bytes()
    except OSError:
        return False
