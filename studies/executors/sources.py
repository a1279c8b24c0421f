"""The source files that measuring a study uses. A stored run continues if these are unchanged, whatever was committed."""

import ast
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import recurrent_lm
from recurrent_lm import lm

PACKAGE = "recurrent_lm"
LATER = ("claims", "figures", "catalogue")  # modules and folders that measuring never calls


def sources(study: type) -> dict[str, str]:
    """Digest each file that measuring uses.

    These are the module of ``study`` and all modules of this package that they import, inside functions too, but not for types
    only; of a front door, the modules of the names that are used; and JSON files beside them (measured constants). Claims,
    figures and the list of studies are left out. Comments and layout do not count, docstrings do.

    Args:
        study: its dataclass.

    Returns:
        {path below the package, such as "kernels/nn.py": digest}.
    """
    waiting, seen, digests = [study.__module__], set[str](), dict[str, str]()
    while waiting:
        name = waiting.pop()
        file = _file(name)
        if name in seen or file is None or set(LATER) & set(name.split(".")):
            continue
        seen.add(name)
        digest, imported = _read(file.read_text(encoding="utf-8"))
        digests[_label(name, file)] = digest
        waiting += imported
        if name.startswith(f"{PACKAGE}."):
            digests |= {_label(name, data): _digest(data.read_bytes()) for data in file.parent.glob("*.json")}
    return dict(sorted(digests.items()))


def digest_of(files: dict[str, str]) -> str:
    """One digest for all files."""
    return _digest("".join(f"{name}\0{digest}\0" for name, digest in sorted(files.items())).encode())


def _digest(data: bytes) -> str:
    return lm.digest(data)[:16]


@lru_cache(maxsize=512)
def _read(text: str) -> tuple[str, tuple[str, ...]]:
    """A module's digest and the names of the modules that it imports."""
    tree = ast.parse(text)
    return _digest(ast.dump(tree).encode()), tuple(sorted(_imported(tree)))


def _imported(tree: ast.Module) -> Iterator[str]:
    nodes = list(_without_types(tree))
    for node in nodes:
        if isinstance(node, ast.Import):
            names = [(alias.name, alias.asname or alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [(f"{node.module}.{alias.name}", alias.asname or alias.name) for alias in node.names]
        else:
            continue
        for name, local in names:
            if name.startswith(f"{PACKAGE}."):
                yield from _behind(name, local, nodes)


def _without_types(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes except those below ``if TYPE_CHECKING``."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)):
            yield from _without_types(child)


def _behind(name: str, local: str, nodes: list[ast.AST]) -> Iterator[str]:
    """The modules that an imported ``name`` stands for: a module, or the module that defines it."""
    parent, _, last = name.rpartition(".")
    if door := _door(name):
        uses = [node for node in nodes if isinstance(node, ast.Name) and node.id == local]
        attributes = [n.attr for n in nodes if isinstance(n, ast.Attribute) and n.value in uses]
        yield from (door[key] for key in (attributes if len(attributes) == len(uses) else door) if key in door)
    elif door := _door(parent):
        if last in door:
            yield door[last]
    elif _file(name):
        yield name
    else:
        yield parent


def _door(name: str) -> dict[str, str]:
    """The names of a front door, of a room or within it, and their modules; empty for other modules."""
    file = _file(name)
    if file is None or "front_door(__name__" not in file.read_text(encoding="utf-8"):
        return {}
    return recurrent_lm.names(str(file))


def _file(name: str) -> Path | None:
    """The file of a module of this package, or of a module elsewhere that defines a study."""
    if not name.startswith(f"{PACKAGE}."):
        path = getattr(sys.modules.get(name), "__file__", None)
        return Path(path) if path else None
    for part in recurrent_lm.__path__:
        stem = Path(part, *name.split(".")[1:])
        for file in (stem.with_suffix(".py"), stem / "__init__.py"):
            if file.is_file():
                return file
    return None


def _label(name: str, file: Path) -> str:
    """The path of a module's file below the package; the file's name for other modules."""
    if not name.startswith(f"{PACKAGE}."):
        return file.name
    folders = name.split(".")[1:] if file.name == "__init__.py" else name.split(".")[1:-1]
    return "/".join([*folders, file.name])
