"""Ways in which a file can be damaged, as a strategy, and commands that are run on what is left of a folder."""

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from typer import Typer

JSON = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=3)
JSON |= st.lists(st.integers(), max_size=2) | st.dictionaries(st.text(max_size=3), st.integers(), max_size=2)
WAYS = (
    "flip",
    "byte",
    "cut",
    "longer",
    "zeros",
    "line twice",
    "line gone",
    "lines swapped",
    "retyped",
    "gone",
    "empty",
    "folder",
)


def run_command(application: Typer, name: str, *arguments: Any) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of a command in this process; an exception that it does not expect comes out of it."""
    from recurrent_lm.lm.commands.cli import run_app

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run_app(application, name, [str(a) for a in arguments])
    return code, out.getvalue(), err.getvalue()


def retyped(draw: Callable[..., Any], content: Any) -> Any:
    """JSON with one value, somewhere in it, replaced."""
    if isinstance(content, (dict, list)) and content and draw(st.integers(0, 5)):
        keys = sorted(content) if isinstance(content, dict) else range(len(content))
        key = draw(st.sampled_from(keys))
        if isinstance(content, dict) and not draw(st.integers(0, 5)):
            return {k: v for k, v in content.items() if k != key}
        changed = content.copy()
        changed[key] = retyped(draw, content[key])
        return changed
    return draw(JSON)


def damaged(draw: Callable[..., Any], whole: bytes, way: str) -> bytes:
    """The bytes of a file after some damage; they may be the same again."""
    lines = whole.splitlines(keepends=True)
    at = draw(st.integers(0, max(len(whole) - 1, 0)))
    if way == "flip":
        return whole[:at] + bytes(b ^ 1 << draw(st.integers(0, 7)) for b in whole[at : at + 1]) + whole[at + 1 :]
    if way == "byte":
        return whole[:at] + bytes([draw(st.integers(0, 255))]) + whole[at + 1 :]
    if way == "cut":
        return whole[:at]
    if way == "longer":
        return whole + draw(st.binary(min_size=1, max_size=20))
    if way == "zeros":
        return whole[:at] + bytes(min(draw(st.sampled_from([1, 10, 4096])), len(whole) - at))
    if way == "empty" or not lines:
        return b""
    line = draw(st.integers(0, len(lines) - 1))
    if way == "line twice":
        return b"".join([*lines[: line + 1], *lines[line:]])
    if way == "line gone":
        return b"".join([*lines[:line], *lines[line + 1 :]])
    if way == "lines swapped":
        return b"".join([*lines[line:], *lines[:line]])
    try:
        return json.dumps(retyped(draw, json.loads(whole))).encode()
    except ValueError:
        pass
    try:
        lines[line] = json.dumps(retyped(draw, json.loads(lines[line]))).encode() + b"\n"
    except ValueError:
        lines[line] = b"{}\n"
    return b"".join(lines)


def hurt(draw: Callable[..., Any], file: Path, others: list[Path]) -> str:
    """Damage a file, or put one of the ``others`` in its place; what was done, for people."""
    way = draw(st.sampled_from([*WAYS, *(["another"] if others else [])]))
    if way == "another":
        other = draw(st.sampled_from(others))
        file.write_bytes(other.read_bytes())
        return f"{file.name} is {other.parent.name}/{other.name}"
    if way in ("gone", "folder"):
        file.unlink()
        if way == "folder":
            file.mkdir()
        return f"{file.name}: {way}"
    file.write_bytes(damaged(draw, file.read_bytes(), way))
    return f"{file.name}: {way}"
