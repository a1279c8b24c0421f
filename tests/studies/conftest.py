"""Kernels in the interpreter are never timed, so studies are tried without it."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(scope="module", autouse=True)
def _compiled_kernels() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "0")
        yield


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """As in processes that tests fork: a table is of one number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
