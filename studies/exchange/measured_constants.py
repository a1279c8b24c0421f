"""Turns a table of ``exchange`` into times of a step, and into the constants that plans read."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.special import stdtrit

from recurrent_lm import kernels
from recurrent_lm.lm import InputError, check_writable, replacing
from recurrent_lm.studies.engine.statistics import NOTHING, Interval, median, ratio
from recurrent_lm.studies.timing.work import SLACK

PROTOCOLS = ("sentinel", "counter", "none")  # none: loads from L2 without waiting
LAUNCH = "launch"
DEFAULT = kernels.MEASURED


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


def allowed(dtype: torch.dtype) -> float:
    """The allowed error of the state: rounding of numbers below 2."""
    return float(SLACK * 2 * torch.finfo(dtype).eps)


def floors(table: "pd.DataFrame") -> "pd.DataFrame":
    """Time of a step of the exchange, one row for each protocol and size.

    Returns:
        ``us`` a step with ``low`` and ``high`` (median over rounds, 95% BCa interval), ``gathered`` bytes that all programs
        read each step, and ``gbs``, their rate. A ``launch`` has its own time and no size.
    """

    rows = []
    key: Any
    for key, group in table.groupby(["protocol", "programs", "kilobytes"], sort=False):
        protocol, programs, kilobytes = key
        seconds = group.dropna(subset="seconds").pivot_table(index="round", columns="steps", values="seconds")
        counts = sorted(int(steps) for steps in seconds.columns)
        if protocol == LAUNCH and counts:
            interval = median(seconds[counts[0]].dropna() * 1e6)
        elif len(counts) > 1:
            interval = median((seconds[counts[-1]] - seconds[counts[0]]).dropna() / (counts[-1] - counts[0]) * 1e6)
        else:
            interval = NOTHING
        gathered = 1024 * programs * kilobytes
        rate = {
            "gathered": gathered,
            "gbs": ratio(gathered / 1e3, interval.value) if gathered and interval.value > 0 else math.nan,
        }
        rows.append(
            dict(zip(("protocol", "programs", "kilobytes"), key, strict=True))
            | {"us": interval.value, "low": interval.low, "high": interval.high}
            | rate
        )
    summary = pd.DataFrame(rows)
    summary.attrs = table.attrs
    return summary


def constants(table: "pd.DataFrame") -> dict[str, Interval]:
    """Fit ``kernels.CONSTANTS`` with 95% intervals, in microseconds and bytes a microsecond; nan if a table cannot determine
    one.

    The fit is by least squares of relative errors on us = WAIT of the protocol + gathered / L2_BYTES, with one rate for all.
    Only sizes with at least half of the largest number of programs count: with fewer, the loads of one multiprocessor are the
    limit, which no plan of interest reaches. The intervals cover the scatter about that model (Student's t), whether noise or a
    model too simple.
    """

    return constants_of(floors(table))


def constants_of(about: "pd.DataFrame") -> dict[str, Interval]:
    """``constants`` from what ``floors`` gives."""
    intervals = dict.fromkeys(kernels.CONSTANTS, NOTHING)
    launch = about[about["protocol"] == LAUNCH]
    if len(launch):
        intervals["LAUNCH"] = Interval(*launch.iloc[0][["us", "low", "high"]].astype(float))
    seen = about[(about["protocol"] != LAUNCH) & (about["us"] > 0) & np.isfinite(about["us"])]
    seen = seen[2 * seen["programs"] >= seen["programs"].max()]
    protocols = [p for p in PROTOCOLS if p in set(seen["protocol"])]
    if seen["gathered"].nunique() < 3 or len(seen) < len(protocols) + 3:
        return intervals
    us = seen["us"].to_numpy()
    columns = [(seen["protocol"] == p).to_numpy().astype(float) for p in protocols] + [seen["gathered"].to_numpy() / 1e6]
    with np.errstate(all="ignore"):
        design = np.stack(columns, axis=1) / us[:, None]
        usable = np.isfinite(design).all() and np.linalg.matrix_rank(design) == design.shape[1]
    if not usable:  # times next to 0, or sizes that do not tell the wait from the rate
        return intervals
    values, *_ = np.linalg.lstsq(design, np.ones(len(us)), rcond=None)
    freedom = len(us) - design.shape[1]
    variance = float(((design @ values - 1) ** 2).sum()) / freedom
    reach = float(stdtrit(freedom, 0.975)) * np.sqrt(variance * np.diag(np.linalg.inv(design.T @ design)))
    for i, protocol in enumerate(protocols):
        if protocol != "none":
            intervals[f"WAIT.{protocol}"] = Interval(float(values[i]), float(values[i] - reach[i]), float(values[i] + reach[i]))
    slow, fast = values[-1] + reach[-1], values[-1] - reach[-1]  # microseconds a megabyte
    if fast > 0:
        intervals["L2_BYTES"] = Interval(1e6 / float(values[-1]), 1e6 / float(slow), 1e6 / float(fast))
    return intervals


def device_name(table: "pd.DataFrame") -> str:
    """The name of a table's GPU in plans, such as sm_90; empty without a GPU."""
    capability = (table.attrs.get("machine") or {}).get("capability")
    return f"sm_{str(capability).replace('.', '')}" if capability else ""
