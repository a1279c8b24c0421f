"""Recurrent language models on GPUs: ``kernels``, the language model ``lm``, ``studies`` and ``reports``.

The four rooms are folders at the top of the source tree and subpackages of this package wherever it is imported from, so that
an installation owns one name in site-packages. In the source tree this file makes the link; installed, they lie beside it.
"""

import ast
import os
import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

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


@cache
def names(file: str) -> dict[str, str]:
    """{name: module} of what a room's front door imports for types alone, absolute: from the text of its ``__init__.py``."""
    tree = ast.parse(Path(file).read_text(encoding="utf-8"))
    blocks = (node.body for node in tree.body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
    imports = (node for body in blocks for node in body if isinstance(node, ast.ImportFrom) and node.module)
    return {alias.name: str(node.module) for node in imports for alias in node.names if alias.asname}


def front_door(room: str, file: str) -> tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]:
    """``__all__``, ``__getattr__`` and ``__dir__`` of a module whose names are imported when they are first used (PEP 562).

    Its file says them once, as imports under ``if TYPE_CHECKING`` that type checkers read too.

    Raises:
        ImportError: when a folder of the source tree is imported as if it were a package of its own.
    """
    if not room.startswith(f"{__name__}."):
        raise ImportError(f"this folder is the package {__name__}.{room}: write `from {__name__} import {room}`")
    modules = names(file)

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {room!r} has no attribute {name!r}")
        value = getattr(import_module(modules[name]), name)
        setattr(sys.modules[room], name, value)
        return value

    return sorted(modules), get, lambda: sorted({*vars(sys.modules[room]), *modules})


def run(module: str) -> None:
    """Run the command line in ``module``; an interrupt while that is imported is no traceback either."""
    try:
        command = import_module(module)
    except KeyboardInterrupt:
        sys.exit(130)
    command.main()
