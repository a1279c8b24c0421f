"""The wheel, installed beside a package that is also called kernels, as Hugging Face's is: both work, from anywhere."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from paths import ROOT

PROGRAM = """
import kernels, sys
assert kernels.OWNER == "somebody else"
from recurrent_lm.kernels import LSTM
from recurrent_lm.lm.config import PRESETS
from recurrent_lm.studies.executors import own_process
import torch, recurrent_lm
assert recurrent_lm.__file__.startswith(sys.argv[1]) and own_process.__file__.startswith(sys.argv[1]), recurrent_lm.__file__
assert (PRESETS / "demo.toml").is_file()
print(tuple(LSTM(3, 4)(torch.zeros(5, 2, 3))[0].shape))
"""


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, since setuptools leaves its build folder in the tree."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file() and not name.startswith(("tests/", "reports/published/")):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    (source / "reports" / "published").mkdir()
    (source / "reports" / "published" / "table.csv").write_text("published results are data and no part of the package")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        folder,
        source,
    ]
    subprocess.run(command, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_one_name_and_no_results(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"recurrent_lm"}
    assert not [name for name in names if "published" in name or "/tests/" in name]
    modules = {str(p.relative_to(ROOT)) for r in ("kernels", "lm", "studies", "reports") for p in (ROOT / r).rglob("*.py")}
    assert {name.removeprefix("recurrent_lm/") for name in names if name.endswith(".py")} - {"__init__.py"} == modules
    templates = ("lm/templates/surprise.html", "lm/page/assets/page.html", "reports/templates/page.html")
    for other in ("lm/presets/demo.toml", *templates):
        assert f"recurrent_lm/{other}" in names
    assert wheel.stat().st_size < 1_500_000


def test_it_disturbs_no_package_of_the_same_name(wheel: Path, tmp_path: Path) -> None:
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    zipfile.ZipFile(wheel).extractall(site)
    (site / "kernels").mkdir()
    (site / "kernels" / "__init__.py").write_text("OWNER = 'somebody else'\n")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(site)], cwd=elsewhere, env={"PYTHONPATH": str(site)}, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "(5, 2, 4)\n"), done.stderr


def test_a_tree_that_is_not_installed_has_the_commands(tmp_path: Path) -> None:
    """A machine with a GPU may have torch and this folder, and nothing else of ours."""
    code = """
import runpy, sys
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in repr(finder)]
sys.argv = ["studies", "list"]
runpy.run_module("recurrent_lm.studies", run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "throughput" in done.stdout, done.stderr
