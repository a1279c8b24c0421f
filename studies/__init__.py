"""Questions answered with numbers.

A study is a frozen dataclass of parameters. Calling it gives a tidy table, one row a measurement; the ``verdicts`` of its
module turn a table into claims. The front door: ``STUDIES`` (name to module), ``load``, ``save`` and ``verdicts``.
"""

from lm import InputError, run_app
from studies.study import STUDIES, load, save, verdicts

__all__ = ["STUDIES", "InputError", "load", "run_app", "save", "verdicts"]
