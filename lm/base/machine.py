"""The machine: its devices, their memory, and its description for runs and tables."""

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import recurrent_lm
from recurrent_lm.lm.base.errors import InputError
from recurrent_lm.lm.base.settings import check_device
from recurrent_lm.lm.base.version import program_version

PACKAGES = ("numpy", "scipy", "pandas", "triton", "flashrnn", "liger-kernel", "cut-cross-entropy", "nvidia-ml-py")
GROUPS, OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
FAILED_ALLOCATIONS = ("allocate memory", "out of memory", "Storage size calculation overflowed")  # as torch and CUDA say it


def resolve_device(name: str) -> str:
    """The device for a setting: cpu, cuda or cuda:N.

    Raises:
        InputError: for a GPU that does not exist.
    """
    check_device(name)
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda"):
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        wanted = int(name.partition(":")[2] or 0)
        if wanted >= count:
            raise InputError(f"--device {name}: this machine has {count} CUDA devices; use --device cpu")
    return name


def check_memory(needed: float, subject: str, advice: str, device: str = "cpu") -> None:
    """Refuse work that needs more memory than the device has. Checked up front, because the OOM killer leaves no message.

    Args:
        needed: bytes.
        subject: subject of the error's sentence, which says what needs how much.
        advice: what to reduce; the end of that sentence.
        device: cpu, cuda or cuda:N.

    Raises:
        InputError: if ``needed`` exceeds the device's memory.
    """
    if needed > (available := memory(device)):
        raise InputError(f"{subject}, and {device} has {available / 1e9:,.1f} GB; {advice}")


def memory(device: str) -> int:
    """Bytes of a device's memory; for a CPU the machine's, or the smallest limit of this process's control groups."""
    if device != "cpu":
        return int(torch.cuda.get_device_properties(device).total_memory)
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for group in _groups():
        for file in ("memory.max", "memory.limit_in_bytes"):  # of version 2 and 1
            with suppress(OSError, ValueError):  # not there, or "max"
                limits.append(int((group / file).read_text()))
    return min(limits)


def _groups() -> Iterator[Path]:
    """The control groups of this process with those around them; in a container its own one is the outermost."""
    yield from (GROUPS, GROUPS / "memory")
    with suppress(OSError):
        for line in OWN_GROUPS.read_text().splitlines():  # 0::/system.slice/job, or 9:memory:/system.slice/job
            controller, _, path = line.partition(":")[2].partition(":")
            if controller in ("", "memory"):
                inner = Path(path.lstrip("/"))
                yield from (GROUPS / controller / part for part in (inner, *inner.parents))


def out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch, CUDA or Python reports a failed allocation.

    Args:
        error: the exception.

    Returns:
        True for Python's and torch's own error types, and for messages that name an allocation.
    """
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(part in str(error) for part in FAILED_ALLOCATIONS)


def describe_machine() -> dict[str, Any]:
    """Describe the machine and the program for a run's folder or a study's table.

    Returns:
        Versions, platform, CPU, number of cores, GPU, command line and more, as JSON holds it; commit and whether the tree is
        changed, in a git clone.
    """
    about: dict[str, Any] = {
        "version": program_version(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "versions": {name: _version(name) for name in PACKAGES},
        "gpu": None,
        "driver": None,
        "cuda": torch.version.cuda,
        "cudnn": None,
        "command": shlex.join([_program(), *sys.argv[1:]]),
    }
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(torch.cuda.current_device())
        about |= {
            "gpu": torch.cuda.get_device_name(),
            "driver": _driver(),
            "cudnn": torch.backends.cudnn.version(),
            "capability": f"{properties.major}.{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
            "gpu_bytes": properties.total_memory,
        }
    if ((root := recurrent_lm.ROOT) / ".git").exists():
        about["commit"] = _git(root, "rev-parse", "HEAD")
        about["dirty"] = bool(_git(root, "status", "--porcelain", "--untracked-files=no"))
    return about


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _driver() -> str | None:
    """The version of NVIDIA's driver, through nvidia-ml-py where it is installed."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        version = pynvml.nvmlSystemGetDriverVersion()
    except pynvml.NVMLError:
        return None
    return version.decode() if isinstance(version, bytes) else str(version)


def _program() -> str:
    """lm or studies, also when started with ``python -m``."""
    path = Path(sys.argv[0])
    return path.parent.name if path.name == "__main__.py" else path.name


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()
