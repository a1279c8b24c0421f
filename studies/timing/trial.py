"""One computation and its contestants: each is compared with the reference, then all are timed in turns."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from recurrent_lm.studies.engine.memory import peak_bytes
from recurrent_lm.studies.timing.cuda import EventTimer, Gpu, graphed
from recurrent_lm.studies.timing.measure import Timer, WallTimer, Weather, race
from recurrent_lm.studies.timing.own import told
from recurrent_lm.studies.timing.work import Peer, Unavailable, Work, relative_error


@dataclass(frozen=True)
class Entry:
    """A variant and its launch: ``eager``, or replayed from a CUDA ``graph``."""

    variant: str
    mode: str = "eager"


def trial(work: Work, entries: list[Entry], caches: tuple[str, ...], rounds: int, device: str) -> list[dict[str, Any]]:
    """Samples of all that agree with the reference, and one row without a time for each that does not take part.

    Rows have ``status`` timed, disagrees (its error is larger than ``allowed``), skipped (it cannot do this here) or failed
    (it ended in an error); ``note`` says more.
    """
    rows: list[dict[str, Any]] = []
    calls: dict[Entry, Callable[[], object]] = {}
    facts: dict[Entry, dict[str, Any]] = {}
    for entry in entries:
        fact: dict[str, Any] = {"error": math.nan, "allowed": work.allowed, "flops": work.flops, "bytes": work.bytes}
        facts[entry] = fact | {"variant": entry.variant, "mode": entry.mode, "peak_bytes": 0}
        status, note = _enter(work, entry, device, calls, facts[entry])
        if status:
            rows += [_row(facts[entry], cache, status=status, note=note) for cache in caches]
    for cache in caches:
        timer, weather = _instruments(cache, device)
        timed = race(calls, timer, rounds, weather=weather)
        for sample in sorted(timed.samples, key=lambda s: (list(calls).index(s.name), s.round)):
            seen = {"clock_mhz": sample.weather.clock_mhz, "watts": sample.weather.watts}
            measured = {"round": sample.round, "seconds": sample.seconds, "dropped": timed.dropped[sample.name]}
            rows.append(_row(facts[sample.name], cache, **measured, **seen))
        for entry in calls.keys() - {s.name for s in timed.samples}:
            lost = {"status": "failed", "note": "the GPU was throttled in every round", "dropped": timed.dropped[entry]}
            rows.append(_row(facts[entry], cache, **lost))
    return rows


def complaint(work: Work, entry: Entry, device: str) -> tuple[str, str]:
    """Why an entry is not timed, as a status and a reason; both are empty if it is right."""
    return _enter(work, entry, device, {}, {})


def _enter(
    work: Work, entry: Entry, device: str, calls: dict[Entry, Callable[[], object]], fact: dict[str, Any]
) -> tuple[str, str]:
    """Add an entry to ``calls`` if it is right; otherwise return the status and the reason."""
    try:
        peer = _peer(work, entry)
        fact["error"] = relative_error(peer.result(), work.reference(entry.variant))
        if not fact["error"] <= work.allowed:
            return "disagrees", f"the relative error is {fact['error']:.1e}, and {work.allowed:.1e} is allowed"
        fact["peak_bytes"] = peak_bytes(peer.call, device)
    except Unavailable as reason:
        return "skipped", str(reason)
    except Exception as error:  # a contestant that breaks must not end the comparison
        return "failed", told(error)
    calls[entry] = peer.call
    return "", ""


def _peer(work: Work, entry: Entry) -> Peer:
    peer = work.peers[entry.variant]()
    if entry.mode == "eager":
        return peer

    return graphed(peer)


def _instruments(cache: str, device: str) -> tuple[Timer, Callable[[], Weather]]:
    if device == "cpu":
        return WallTimer(), Weather

    return EventTimer(cold=cache == "cold"), Gpu().weather


def _row(fact: dict[str, Any], cache: str, **values: Any) -> dict[str, Any]:
    nothing = {"round": 0, "seconds": math.nan, "dropped": 0, "clock_mhz": math.nan, "watts": math.nan}
    return fact | {"cache": cache, "status": "timed", "note": ""} | nothing | values
