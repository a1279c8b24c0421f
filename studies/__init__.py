"""Studies: questions about recurrent language models that measurements answer.

A study is a folder with parameters and measuring, ``claims`` that a table decides, and ``figures`` that draw it. Calling its
frozen dataclass returns a tidy table, one row for each measurement. The front door: ``STUDIES`` (name to question), ``load``,
``save``, ``verdicts`` (a table of ``Claim``s) and ``select`` (by key), ``summary`` (medians, rates, comparisons), ``growth``
(exponents) and ``changes`` (between two tables of a study); ``plots``, ``listings``, ``passages`` and ``subject`` for pages,
with the style they share; and the functions by which commands end, write files and print.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if __name__ != "recurrent_lm.studies":
    raise ImportError("this folder is the package recurrent_lm.studies: write `from recurrent_lm import studies`")

_MODULES = {
    "COLOURS": ".plotting.style",
    "Claim": ".engine.claims",
    "InputError": "recurrent_lm.lm",
    "Listing": ".plotting.plots",
    "NARROW": ".plotting.style",
    "Passage": ".plotting.plots",
    "Plot": ".plotting.plots",
    "STUDIES": ".engine.catalogue",
    "WIDE": ".plotting.style",
    "boxes_for_glyphs": ".plotting.style",
    "changes": ".engine.study",
    "check_writable": "recurrent_lm.lm",
    "failures": ".engine.tables",
    "growth": ".engine.study",
    "headline": ".plotting.style",
    "listing": ".engine.study",
    "listings": ".plotting.plots",
    "load": ".engine.tables",
    "passages": ".plotting.plots",
    "plots": ".plotting.plots",
    "printable": ".plotting.style",
    "replacing": "recurrent_lm.lm",
    "run_app": "recurrent_lm.lm",
    "save": ".engine.tables",
    "say": "recurrent_lm.lm",
    "select": ".engine.claims",
    "subject": ".plotting.plots",
    "summary": ".engine.study",
    "verdicts": ".engine.claims",
}
__all__ = sorted(_MODULES)

if TYPE_CHECKING:
    from recurrent_lm.lm import InputError as InputError
    from recurrent_lm.lm import check_writable as check_writable
    from recurrent_lm.lm import replacing as replacing
    from recurrent_lm.lm import run_app as run_app
    from recurrent_lm.lm import say as say
    from recurrent_lm.studies.engine.catalogue import STUDIES as STUDIES
    from recurrent_lm.studies.engine.claims import Claim as Claim
    from recurrent_lm.studies.engine.claims import select as select
    from recurrent_lm.studies.engine.claims import verdicts as verdicts
    from recurrent_lm.studies.engine.study import changes as changes
    from recurrent_lm.studies.engine.study import growth as growth
    from recurrent_lm.studies.engine.study import listing as listing
    from recurrent_lm.studies.engine.study import summary as summary
    from recurrent_lm.studies.engine.tables import failures as failures
    from recurrent_lm.studies.engine.tables import load as load
    from recurrent_lm.studies.engine.tables import save as save
    from recurrent_lm.studies.plotting.plots import Listing as Listing
    from recurrent_lm.studies.plotting.plots import Passage as Passage
    from recurrent_lm.studies.plotting.plots import Plot as Plot
    from recurrent_lm.studies.plotting.plots import listings as listings
    from recurrent_lm.studies.plotting.plots import passages as passages
    from recurrent_lm.studies.plotting.plots import plots as plots
    from recurrent_lm.studies.plotting.plots import subject as subject
    from recurrent_lm.studies.plotting.style import COLOURS as COLOURS
    from recurrent_lm.studies.plotting.style import NARROW as NARROW
    from recurrent_lm.studies.plotting.style import WIDE as WIDE
    from recurrent_lm.studies.plotting.style import boxes_for_glyphs as boxes_for_glyphs
    from recurrent_lm.studies.plotting.style import headline as headline
    from recurrent_lm.studies.plotting.style import printable as printable


def __getattr__(name: str) -> Any:
    """A name of the front door, imported when it is first used (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULES[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
