"""Triton's interpreter, quicker: importing this file is enough.

At each launch, and again at each call of a device function, the interpreter looks through all names of ``triton.language`` for
those that it replaces while kernels run. That takes a third of the time of small kernels. Here it looks through each place
once, and replaces nothing twice in one launch.
"""

import inspect
from collections.abc import Callable
from typing import Any

import triton.language as tl
from triton.runtime import interpreter

_builtins: dict[Any, list[tuple[str, Any]]] = {}  # of a module or class
_places: dict[Callable[..., Any], set[Any]] = {}  # that a function's module can see
_replaced: set[Any] = set()  # since the launch began
_patch_lang = interpreter._patch_lang


def patch_builtin(place: Any, builder: Any, scope: Any) -> None:
    if place not in _builtins:
        _builtins[place] = [(name, member) for name, member in inspect.getmembers(place) if tl.core.is_builtin(member)]
    for name, member in _builtins[place]:
        if getattr(place, name) is member:  # otherwise it is replaced already
            interpreter._patch_attr(place, name, member, builder, scope)


def patch_lang(function: Callable[..., Any]) -> Any:
    if function not in _places:
        _places[function] = {value for value in function.__globals__.values() if value is tl or value is tl.core}
    places = _places[function]
    if places and places <= _replaced:
        return interpreter._LangPatchScope()
    scope = _patch_lang(function)
    if not _replaced:  # a launch, at whose end all is restored
        restore = scope.restore

        def end() -> None:
            _replaced.clear()
            restore()

        scope.restore = end
    _replaced.update(places)
    return scope


interpreter._patch_builtin, interpreter._patch_lang = patch_builtin, patch_lang
