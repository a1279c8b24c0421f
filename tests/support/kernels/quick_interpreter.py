"""Triton's interpreter, quicker: importing this file is enough.

At each launch, and again at each call of a device function, the interpreter looks through all names of ``triton.language`` for
those that it replaces while kernels run. That takes a third of the time of small kernels. Here it looks through each place
once, and replaces nothing twice in one launch.

Most of the rest is types: a dozen operations in int64 look whether a sum of integers overflows, whose answer the interpreter
throws away unless it debugs, and each operation makes the type and the shape of its result anew. Here that answer is not asked
for, and types and shapes are made once.
"""

import inspect
import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
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


_semantic: Any = interpreter.interpreter_semantic
_broadcast, _np_dtype = _semantic.broadcast_impl_value, interpreter._get_np_dtype
_init_block, _equal, _unwrap = tl.block_type.__init__, tl.dtype.__eq__, tl.core._unwrap_if_constexpr
_tuple_equal, _true = tl.tuple.__eq__, tl.constexpr(True)
_blocks: dict[Any, dict[str, Any]] = {}  # attributes of a block type, by its elements and shape
_np_dtypes: dict[str, Any] = {}


def broadcast(left: Any, right: Any) -> Any:
    """Two of one shape stay as they are."""
    return (left, right) if left.type.is_block() and left.shape is right.shape else _broadcast(left, right)


def np_dtype(kind: Any) -> Any:
    if kind.name not in _np_dtypes:
        _np_dtypes[kind.name] = _np_dtype(kind)
    return _np_dtypes[kind.name]


def init_block(self: Any, elements: Any, shape: Any) -> None:
    sizes = tuple(s.value if isinstance(s, tl.constexpr) else s for s in shape)
    key = (elements.name, getattr(elements, "address_space", ""), sizes)
    if key not in _blocks:
        _init_block(self, elements, shape)
        _blocks[key] = {**self.__dict__, "of_tensor": (*_shape(sizes), self.scalar)}
    self.__dict__.update(_blocks[key])


@cache
def _shape(sizes: tuple[int, ...]) -> tuple[Any, Any]:
    """The number of elements and the shape of a tensor, as the language has them."""
    return tl.constexpr(math.prod(sizes)), tl.tuple([tl.constexpr(size) for size in sizes])


def init_tensor(self: Any, handle: Any, type: Any) -> None:
    self.handle, self.type = handle, type
    self.numel, self.shape, self.dtype = type.of_tensor or (*_shape(()), type)


_widest: dict[str, int] = {}  # bytes of an element


def init_handle(self: Any, data: Any, dtype: Any, attr: Any = None) -> None:
    """With the check that numpy has not made a wider type of it."""
    name = dtype.name
    if name not in _widest:
        _widest[name] = 8 if isinstance(dtype, tl.pointer_type) else max(1, dtype.primitive_bitwidth // 8)
    if data.itemsize > _widest[name]:
        raise ValueError(f"numpy has {data.itemsize} bytes an element of {dtype}")
    self.data, self.dtype, self.attr = data, dtype, {} if attr is None else attr


_results: dict[Any, Any] = {}  # of the checks of two operands; shapes are made once and never die, so their ids are names
_check_operands = _semantic.binary_op_type_checking_impl


def operands(lhs: Any, rhs: Any, *how: Any) -> Any:
    """Two operands in one type, checked once for each pair of types and shapes.

    Where nothing is cast they keep their data, which numpy broadcasts itself; a number becomes a tensor once.
    """
    key: Any
    if lhs.__class__ is rhs.__class__ is tl.tensor:
        key = (lhs.dtype.name, rhs.dtype.name, id(lhs.shape), id(rhs.shape), how)
        types = _results.get(key)
        if types is None:
            left, right = _check_operands(lhs, rhs, *how)
            same = (left.dtype.name, right.dtype.name) == key[:2]
            wider = [t.type if t.shape is not given.shape else None for t, given in ((left, lhs), (right, rhs))]
            _results[key] = wider if same else ()
            return left, right
        if types:
            left, right = types
            return tl.tensor(lhs.handle, left) if left else lhs, tl.tensor(rhs.handle, right) if right else rhs
    elif lhs.__class__ is tl.tensor and (rhs.__class__ is int or (rhs.__class__ is float and rhs != 0)):
        key = (lhs.dtype.name, id(lhs.shape), rhs.__class__, rhs, how)
        number = _results.get(key)
        if number is not None:
            return lhs, number
        left, right = _check_operands(lhs, rhs, *how)
        if left is lhs:
            _results[key] = right
        return left, right
    return _check_operands(lhs, rhs, *how)


def patch_attr(place: Any, name: str, member: Any, builder: Any, scope: Any) -> None:
    inner = getattr(member, "__wrapped__", member)  # without its look whether it is called in a kernel

    def call(*args: Any, **kwargs: Any) -> Any:
        kwargs["_semantic"] = _semantic
        return inner(*args, **kwargs)

    scope.set_attr(place, name, call)


def equal(self: Any, other: Any) -> bool:
    return self is other or _equal(self, other)


def tuple_equal(self: Any, other: Any) -> Any:
    return _true if self is other else _tuple_equal(self, other)


def unwrap(value: Any) -> Any:
    return value if value.__class__ is int else _unwrap(value)


assert not _semantic.builder.options.debug
_semantic.binary_op_sanitize_overflow_impl = lambda left, right, operation: None
_semantic.broadcast_impl_value = broadcast
interpreter._get_np_dtype, tl.core._unwrap_if_constexpr = np_dtype, unwrap
tl.block_type.__init__, tl.tensor.__init__, tl.dtype.__eq__ = init_block, init_tensor, equal
tl.tuple.__eq__, tl.dtype.of_tensor = tuple_equal, ()
interpreter.TensorHandle.__init__, interpreter._patch_attr = init_handle, patch_attr
_semantic.binary_op_type_checking_impl = operands


def generic_scan(self: Any, inputs: Any) -> list[Any]:
    """All elements at one place of the axis at once, place after place: the same sums in the same order."""
    blocks = [np.moveaxis(each.handle.data, self.axis, 0) for each in inputs]
    done: list[list[Any]] = []
    for slices in zip(*blocks, strict=True):
        now = [self.to_tensor(part, each.dtype) for part, each in zip(slices, inputs, strict=True)]
        done.append(list(self.combine_fn.fn(*done[-1], *now)) if done else now)
    stacked = [np.stack([part.handle.data for part in parts]).reshape(blocks[0].shape) for parts in zip(*done, strict=True)]
    return [self.to_tensor(np.moveaxis(data, 0, self.axis), each.dtype) for data, each in zip(stacked, inputs, strict=True)]


interpreter.ScanOps.generic_scan = generic_scan
