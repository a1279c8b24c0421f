"""Questions answered with numbers.

A study is a frozen dataclass of parameters with presets. Calling it gives a tidy table, one row a measurement; the
``verdicts`` of its module turn a table into claims. The front door: ``STUDIES`` (name to question), ``load``, ``save``,
``verdicts``, ``summary`` (medians, rates, comparisons) and ``growth`` (exponents) for tables, ``AXES`` (the sizes that
throughput varies) and ``exponents`` (growth of a summary), the statistics that figures show (``trainings`` and
``norm_edges`` of clipping), ``changes`` between two tables of a study, and how commands end, write files and print.
"""

from typing import TYPE_CHECKING, Any

from lm import InputError
from studies.changes import changes
from studies.clipping_table import norm_edges, trainings
from studies.comparison import AXES, exponents
from studies.output import check_writable, replacing, say
from studies.statistics import by_lag, exp, paired_ratio, ratio, share
from studies.study import STUDIES, growth, summary, verdicts
from studies.tables import failures, load, save

if TYPE_CHECKING:
    from lm import run_app as run_app

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
    from lm import run_app

    return run_app


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
