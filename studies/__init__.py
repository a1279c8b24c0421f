"""Questions answered with numbers.

A study is a frozen dataclass of parameters. Calling it gives a tidy table, one row a measurement; the ``verdicts`` of its
module turn a table into claims. The front door: ``STUDIES`` (name to question), ``load``, ``save`` and ``verdicts`` for
tables, the statistics that figures show, and the command line's errors.
"""

from lm import InputError, run_app
from studies.statistics import by_lag
from studies.study import STUDIES, load, save, verdicts

__all__ = ["STUDIES", "InputError", "by_lag", "load", "run_app", "save", "verdicts"]
