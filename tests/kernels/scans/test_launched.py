"""Launches on their way through Triton, up to where a GPU would begin: arguments and options, compiled for sm_90."""

import json
import os
import subprocess
import sys

import pytest
from paths import ROOT, SUPPORT


@pytest.mark.slow
def test_every_body_is_launched() -> None:
    """All arguments are known to the launcher; exchanges between programs are cooperative launches, nothing else is."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, SUPPORT / "kernels" / "launched.py"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    launches = json.loads(done.stdout)
    around = [name for name, *_ in launches if name in ("prepare", "finish")]
    assert around == ["prepare", "prepare", "finish"] * 5
    scans = [launch for launch in launches if launch[0].startswith("scan_")]
    rest = [launch for launch in launches if launch[0] not in around and launch not in scans]
    directions = ["scan_forward", "scan_backward"]
    assert [name for name, *_ in scans] == directions * 4 + [directions[0]] * 2 + [directions[1]] * 3
    assert [cooperative for _, _, cooperative, _ in scans] == [True] * 6 + [False] * 7
    assert all(1 < blocks * tiles <= 132 for _, (blocks, tiles), cooperative, _ in scans if cooperative)
    assert [scans[i][3] for i in (0, 1)] == [scans[i][3] for i in (2, 3)], "16 steps and 17 share a kernel"
    assert [(name, cooperative) for name, _, cooperative, _ in rest[:4]] == [("exchange_only", True)] * 4
    bodies = {"tiles_forward", "tiles_combine", "tiles_backward", "kept_product", "rows_forward", "rows_backward"}
    assert {name for name, *_ in rest[4:]} == bodies
    assert not any(cooperative for _, _, cooperative, _ in rest[4:])
