"""Questions answered with numbers.

A study is a frozen dataclass of parameters with presets. Calling it gives a tidy table, one row a measurement; the
``verdicts`` of its module turn a table into claims. The front door: ``STUDIES`` (name to question), ``load``, ``save``,
``verdicts``, ``summary`` (medians, rates, comparisons) and ``growth`` (exponents) for tables, ``AXES`` (the sizes that
throughput varies) and ``exponents`` (growth of a summary), the statistics that figures show (``trainings`` and
``norm_edges`` of clipping), ``changes`` between two tables of a study, and how commands end, write files and print.
"""

from typing import TYPE_CHECKING, Any

from recurrent_lm.lm import InputError
from recurrent_lm.studies.clipping.table import norm_edges, trainings
from recurrent_lm.studies.engine.changes import changes
from recurrent_lm.studies.engine.output import check_writable, replacing, say
from recurrent_lm.studies.engine.statistics import by_lag, exp, paired_ratio, ratio, share
from recurrent_lm.studies.engine.study import STUDIES, growth, summary, verdicts
from recurrent_lm.studies.engine.tables import failures, load, save
from recurrent_lm.studies.throughput.comparison import AXES, exponents

if __name__ != "recurrent_lm.studies":
    raise ImportError("this folder is the package recurrent_lm.studies: write `from recurrent_lm import studies`")

if TYPE_CHECKING:
    from recurrent_lm.lm import run_app as run_app

__all__ = [
    "AXES",
    "STUDIES",
    "InputError",
    "by_lag",
    "changes",
    "check_writable",
    "exp",
    "exponents",
    "failures",
    "growth",
    "load",
    "norm_edges",
    "paired_ratio",
    "ratio",
    "replacing",
    "run_app",
    "save",
    "say",
    "share",
    "summary",
    "trainings",
    "verdicts",
]


def __getattr__(name: str) -> Any:
    """``run_app`` when it is asked for: measuring, as the GPU check does, needs no package for commands."""
    if name != "run_app":
        raise AttributeError(f"module 'studies' has no attribute {name!r}")
    from recurrent_lm.lm import run_app

    return run_app


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
