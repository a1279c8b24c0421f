"""The program's version, without heavy imports, for ``lm --version``."""

from importlib.metadata import PackageNotFoundError, version


def program_version() -> str:
    """The installed version, or that of the source tree."""
    try:
        return version("recurrent-lm")
    except PackageNotFoundError:
        return "0 (not installed)"
