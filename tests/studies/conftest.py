"""Kernels in the interpreter are never timed, so studies are tried without it."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module", autouse=True)
def _compiled_kernels() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "0")
        yield
