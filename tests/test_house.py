"""The rule of imports: down the staircase, through the front door, and nothing heavy at the door."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("kernels", "lm", "studies", "reports")
MAY_USE = {"kernels": set(), "lm": {"kernels"}, "studies": {"kernels", "lm"}, "reports": {"studies"}}
FLOW = ("corpora", "tokens", "streams", "model", "train")  # text flows through lm in this order
FILES = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down_the_staircase_and_through_the_front_door(path):
    room = path.relative_to(ROOT).parts[0]
    doors = {other: set(import_module(other).__all__) for other in MAY_USE[room]}
    for name in imported(path):
        top, _, rest = name.partition(".")
        if top in ROOMS and top != room:
            assert top in MAY_USE[room], f"{path} imports {name}"
            assert not rest or rest in doors[top], f"{path} imports {name}, which is not at the door of {top}"


@pytest.mark.parametrize(("later", "earlier"), [(b, a) for i, a in enumerate(FLOW) for b in FLOW[i + 1 :]])
def test_text_flows_one_way(later, earlier):
    assert f"lm.{later}" not in imported(ROOT / "lm" / f"{earlier}.py")


@pytest.mark.parametrize("room", ROOMS)
def test_every_name_at_the_door_is_there(room):
    door = import_module(room)
    for name in door.__all__:
        assert getattr(door, name).__class__.__name__ != "module", f"{room}.{name}"


@pytest.mark.parametrize(
    "code",
    [
        "import kernels, lm, studies, reports",
        "import sys; from lm.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass",
        "import sys; from lm.cli import main\ntry: main(['train', '--help'])\nexcept SystemExit: pass",
        "import sys; from studies.cli import main\ntry: main(['list'])\nexcept SystemExit: pass",
        "import sys; from reports.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass",
    ],
)
def test_doors_and_help_import_neither_torch_nor_pandas(code):
    check = "\nimport sys; heavy = {'torch', 'pandas', 'numpy'} & set(sys.modules); assert not heavy, heavy"
    done = subprocess.run([sys.executable, "-c", code + check], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_function_keeps_its_name_where_its_file_has_the_same():
    import kernels
    import kernels.recurrence
    import lm
    import lm.generate

    assert callable(kernels.recurrence)
    assert callable(lm.generate)


def test_files_hold_one_idea():
    files = [*FILES, *(ROOT / "tests").rglob("*.py")]
    long = {str(p.relative_to(ROOT)): n for p in files if (n := len(p.read_text().splitlines())) > 400}
    assert not long


@pytest.mark.parametrize("room", ["lm", "studies", "reports"])
def test_the_help_of_every_command_shows_an_example(room):
    commands = commands_of(import_module(f"{room}.cli").app, room)
    assert len(commands) >= 3
    assert not [name for name, text in commands.items() if f"[dim]{name}" not in text]


def commands_of(app, prefix):
    found = {f"{prefix} {c.name or c.callback.__name__}": c.callback.__doc__ for c in app.registered_commands}
    for group in app.registered_groups:
        found |= commands_of(group.typer_instance, f"{prefix} {group.name}")
    return found
