"""Questions answered with numbers.

A study is a frozen dataclass of parameters with presets. Calling it gives a tidy table, one row a measurement; the
``claims`` of its module are what a table decides. The front door: ``STUDIES`` (name to question), ``load``, ``save``,
``verdicts`` (a table of ``Claim``s) and ``select`` (those of a key), ``summary`` (medians, rates, comparisons) and ``growth``
(exponents) for tables, ``AXES`` (the sizes that throughput varies) and ``exponents`` (growth of a summary), the statistics
that figures show (``trainings`` and ``norm_edges`` of clipping), ``changes`` between two tables of a study, and how commands
end, write files and print.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if __name__ != "recurrent_lm.studies":
    raise ImportError("this folder is the package recurrent_lm.studies: write `from recurrent_lm import studies`")

_MODULES = {
    "AXES": ".throughput.comparison",
    "Claim": ".engine.claims",
    "InputError": "recurrent_lm.lm",
    "STUDIES": ".engine.catalogue",
    "by_lag": ".engine.statistics",
    "changes": ".engine.study",
    "check_writable": ".engine.output",
    "exp": ".engine.statistics",
    "exponents": ".throughput.comparison",
    "failures": ".engine.tables",
    "growth": ".engine.study",
    "load": ".engine.tables",
    "norm_edges": ".clipping.table",
    "paired_ratio": ".engine.statistics",
    "ratio": ".engine.statistics",
    "replacing": ".engine.output",
    "run_app": "recurrent_lm.lm",
    "save": ".engine.tables",
    "say": ".engine.output",
    "select": ".engine.claims",
    "share": ".engine.statistics",
    "summary": ".engine.study",
    "trainings": ".clipping.table",
    "verdicts": ".engine.claims",
}
__all__ = sorted(_MODULES)

if TYPE_CHECKING:
    from recurrent_lm.lm import InputError as InputError
    from recurrent_lm.lm import run_app as run_app
    from recurrent_lm.studies.clipping.table import norm_edges as norm_edges
    from recurrent_lm.studies.clipping.table import trainings as trainings
    from recurrent_lm.studies.engine.catalogue import STUDIES as STUDIES
    from recurrent_lm.studies.engine.claims import Claim as Claim
    from recurrent_lm.studies.engine.claims import select as select
    from recurrent_lm.studies.engine.claims import verdicts as verdicts
    from recurrent_lm.studies.engine.output import check_writable as check_writable
    from recurrent_lm.studies.engine.output import replacing as replacing
    from recurrent_lm.studies.engine.output import say as say
    from recurrent_lm.studies.engine.statistics import by_lag as by_lag
    from recurrent_lm.studies.engine.statistics import exp as exp
    from recurrent_lm.studies.engine.statistics import paired_ratio as paired_ratio
    from recurrent_lm.studies.engine.statistics import ratio as ratio
    from recurrent_lm.studies.engine.statistics import share as share
    from recurrent_lm.studies.engine.study import changes as changes
    from recurrent_lm.studies.engine.study import growth as growth
    from recurrent_lm.studies.engine.study import summary as summary
    from recurrent_lm.studies.engine.tables import failures as failures
    from recurrent_lm.studies.engine.tables import load as load
    from recurrent_lm.studies.engine.tables import save as save
    from recurrent_lm.studies.throughput.comparison import AXES as AXES
    from recurrent_lm.studies.throughput.comparison import exponents as exponents


def __getattr__(name: str) -> Any:
    """A name of the front door, imported when it is first used (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULES[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
