"""mypy over the package as an installation has it: ``python tests/lint_types.py``.

mypy does not follow ``__path__`` and would say Success after one file, so it gets a folder of links, and the
number of files that it says it checked must be that of the modules.
"""

import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("kernels", "lm", "studies", "reports")


def main() -> int:
    """mypy's exit code; 1 where it did not look at every module."""
    modules = 1 + sum(1 for room in ROOMS for path in (ROOT / room).rglob("*.py"))
    with TemporaryDirectory() as folder:
        package = Path(folder) / "recurrent_lm"
        package.mkdir()
        (package / "__init__.py").symlink_to(ROOT / "recurrent_lm" / "__init__.py")
        for room in ROOMS:
            (package / room).symlink_to(ROOT / room)
        command = [
            sys.executable,
            "-m",
            "mypy",
            "--config-file",
            str(ROOT / "pyproject.toml"),
            "--cache-dir",
            str(ROOT / ".mypy_cache"),
        ]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    print(done.stdout + done.stderr, end="")
    checked = re.search(r"in (\d+) source files|no issues found in (\d+)", done.stdout)
    if not done.returncode and (not checked or int(checked[1] or checked[2]) < modules):
        print(f"mypy looked at fewer files than the {modules} modules")
        return 1
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
