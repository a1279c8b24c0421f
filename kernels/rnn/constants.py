"""Measured values of the constants in ``plan.py``, which holds estimates.

``measured.json`` beside this file is what ``studies constants`` made of a table of ``studies run exchange``: for each device
by its name in ``plan.DEVICES`` ("sm_90"), each constant's ``value``, ``low`` and ``high``, and where they were measured. What
is not in it is an estimate.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

MEASURED = Path(__file__).with_name("measured.json")
CONSTANTS = ("LAUNCH", "WAIT.sentinel", "WAIT.counter", "L2_BYTES")


def constant(device: str, name: str, estimate: float) -> float:
    """The value of one of ``CONSTANTS`` on a device: the measured one, or the estimate where there is none."""
    return float(measured(device).get(name, {}).get("value", estimate))


def measured(device: str) -> dict[str, Any]:
    """All that was measured on a device of this name; empty if nothing was."""
    found: dict[str, Any] = _read().get(device, {})
    return found


@cache
def _read() -> dict[str, Any]:
    return json.loads(MEASURED.read_text()) if MEASURED.exists() else {}
