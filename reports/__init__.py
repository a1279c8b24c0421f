"""Pages that show the numbers.

The front door: ``build``, tables to a folder of pages with an index, and ``figure``, a table as a picture with its caption.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if __name__ != "recurrent_lm.reports":
    raise ImportError("this folder is the package recurrent_lm.reports: write `from recurrent_lm import reports`")

_MODULES = {
    "Built": ".site",
    "Figure": ".drawing",
    "build": ".site",
    "figure": ".drawing",
}
__all__ = sorted(_MODULES)

if TYPE_CHECKING:
    from recurrent_lm.reports.drawing import Figure as Figure
    from recurrent_lm.reports.drawing import figure as figure
    from recurrent_lm.reports.site import Built as Built
    from recurrent_lm.reports.site import build as build


def __getattr__(name: str) -> Any:
    """A name of the front door, imported when it is first used (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULES[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
