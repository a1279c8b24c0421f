"""Turns a table of ``exchange`` into the constants that plans read."""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recurrent_lm import kernels
from recurrent_lm.lm import InputError, check_writable, replacing
from recurrent_lm.studies.exchange.study import constants, device_name

if TYPE_CHECKING:
    import pandas as pd


def record(table: "pd.DataFrame", path: Path) -> str:
    """Write a table's constants into a file like ``kernels.MEASURED``, replacing those of the same device.

    Args:
        table: of the study exchange.
        path: the file.

    Returns:
        The written constants as lines of text.

    Raises:
        InputError: if the table is of another study, or cannot determine every constant; the file then stays.
    """
    if table.attrs["study"] != "exchange":
        raise InputError(f"this is a table of {table.attrs['study']}; constants come of one of exchange: studies run exchange")
    device, intervals = device_name(table), constants(table)
    missing = [name for name, interval in intervals.items() if not math.isfinite(interval.value) or interval.value <= 0]
    if missing or not device:
        raise InputError(f"the table cannot tell {', '.join(missing) or 'its GPU'}; measure more sizes: studies run exchange")
    check_writable(path, "--out")
    constants_of_devices = _constants_in(path) if path.exists() else {}
    machine = table.attrs.get("machine", {})
    about = {key: machine.get(key) for key in ("gpu", "multiprocessors", "driver", "commit", "command")}
    constants_of_devices[device] = {name: interval._asdict() for name, interval in intervals.items()} | about
    with replacing(path, "--out") as temporary:
        temporary.write_text(json.dumps(constants_of_devices, indent=1, sort_keys=True) + "\n")
    lines = [f"{name:14}{i.value:12.4g}  [{i.low:.4g}, {i.high:.4g}]" for name, i in intervals.items()]
    return "\n".join([f"{device} in {path}, microseconds and bytes a microsecond:", *lines])


def _constants_in(path: Path) -> dict[str, Any]:
    try:
        constants_of_devices = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        constants_of_devices = None
    if not isinstance(constants_of_devices, dict):
        raise InputError(f"{path} exists and holds no constants; restore it from a copy, or choose another --out")
    return constants_of_devices


DEFAULT = kernels.MEASURED
