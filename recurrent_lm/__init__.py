"""Recurrent language models on GPUs: ``kernels``, the language model ``lm``, ``studies`` and ``reports``.

The four rooms are folders at the top of the source tree and subpackages of this package wherever it is imported from, so that
an installation owns one name in site-packages. In the source tree this file makes the link; installed, they lie beside it.
"""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent  # children find this package where it is in their PYTHONPATH
if not (Path(__file__).parent / "kernels").is_dir():
    __path__.append(str(ROOT))


def folder(room: str) -> Path:
    """Where the modules of a room lie.

    Raises:
        StopIteration: when there is no such room.
    """
    return next(path for part in __path__ if (path := Path(part) / room).is_dir())


def environment(base: dict[str, str]) -> dict[str, str]:
    """``base`` with PYTHONPATH such that a child process finds this package: ``python -P -m recurrent_lm.kernels...``."""
    return base | {"PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), base.get("PYTHONPATH")]))}
