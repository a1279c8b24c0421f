"""What a GPU check found, in files that are complete at every moment: checks.csv, timings.csv, results.json, summary.md."""

import csv
import json
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CHECK = ("part", "shard", "check", "status", "seconds", "note", "numbers")
TIMING = ("shard", "work", "variant", "status", "median", "lower_quartile", "upper_quartile", "us_a_step", "peak_bytes",
          "error", "allowed", "bytes", "flops", "note")  # fmt: skip
TARGETS = (  # work, variant, seconds at most, on an H100
    ("lstm bfloat16 B=16 H=768 T=1024 forward", 1.6e-3),
    ("lstm bfloat16 B=16 H=768 T=1024 forward+backward", 3.8e-3),
)
TIMES_FASTER = (  # than torch.nn in the same dtype
    ("lstm bfloat16 B=16 H=768 T=1024 forward+backward", 3.0),
    ("lstm float16 B=16 H=768 T=1024 forward+backward", 1.3),
)
TRACE_SHARE, COPY_SHARE = 0.05, 0.9


class Results:
    """Collects results from several threads, and writes them down as they come.

    Args:
        go_on: shards that go on after an earlier run in the same folder: what passed is kept, and all of other shards.
    """

    def __init__(self, folder: Path, about: dict[str, Any], go_on: Sequence[str] = ()) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.about = folder, about
        self.checks: list[dict[str, Any]] = []
        self.timings: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        self._seconds: float | None = None
        if go_on and (folder / "results.json").exists():
            earlier = json.loads((folder / "results.json").read_text())
            self.checks = [c for c in earlier["checks"] if c["status"] == "ok" or c["shard"] not in go_on]
            names = {(c["shard"], c["check"]) for c in self.checks}
            self.timings = [t for t in earlier["timings"] if (t["shard"], t["work"]) in names]
        for name, columns in (("checks.csv", CHECK), ("timings.csv", TIMING)):
            with (folder / name).open("w", newline="") as file:
                csv.DictWriter(file, columns, lineterminator="\n").writeheader()
        self._append("checks.csv", CHECK, [c | {"numbers": json.dumps(c["numbers"])} for c in self.checks])
        self._append("timings.csv", TIMING, self.timings)
        self._write()

    def passed(self, shard: str) -> list[str]:
        """Names of a shard's checks that passed in an earlier run."""
        return [c["check"] for c in self.checks if c["shard"] == shard]

    def add(self, part: str, shard: str, told: dict[str, Any]) -> None:
        rows, wrong = told.pop("rows", []), told.pop("wrong", [])
        known = {name: told.pop(name) for name in ("check", "status", "seconds", "note") if name in told}
        if wrong and known["status"] == "ok":
            known |= {"status": "failed", "note": "; ".join(wrong)}
        check = {"part": part, "shard": shard, "seconds": None, "note": ""} | known | {"numbers": told}
        timings = [{"shard": shard, "work": check["check"]} | row for row in rows]
        with self._lock:
            self.checks.append(check)
            self.timings += timings
            self._append("checks.csv", CHECK, [check | {"numbers": json.dumps(told)}])
            self._append("timings.csv", TIMING, timings)
            self._write()
            if check["status"] != "ok":
                print(f"{check['status']}: {part}, {check['check']}: {check['note']}", flush=True)

    def finish(self, seconds: float) -> None:
        with self._lock:
            self._seconds = seconds
            self._write()

    def bad(self, shards: Sequence[str] = ()) -> bool:
        """Whether anything (of these shards) failed or was not run; nothing at all is no success."""
        own = [c for c in self.checks if not shards or c["shard"] in shards]
        return not own or any(c["status"] in ("failed", "not run") for c in own)

    def _append(self, name: str, columns: tuple[str, ...], rows: list[dict[str, Any]]) -> None:
        with (self.folder / name).open("a", newline="") as file:
            csv.DictWriter(file, columns, lineterminator="\n", extrasaction="ignore").writerows(rows)

    def _write(self) -> None:
        whole = {"about": self.about, "seconds": self._seconds, "checks": self.checks, "timings": self.timings}
        (self.folder / "results.json").write_text(json.dumps(whole, indent=1))
        (self.folder / "summary.md").write_text(self.summary())

    def summary(self) -> str:
        """Failures first, then how many passed of what, then times with their targets."""
        about = ", ".join(f"{name} {value}" for name, value in self.about.items() if name != "command" and value is not None)
        state = "did not end" if self._seconds is None else f"took {self._seconds:.0f} s"
        lines = ["# GPU check", "", f"`{self.about['command']}` {state}. {about}.", ""]
        for title, statuses in (("Failed", ("failed",)), ("Not run", ("not run",)), ("Skipped", ("skipped",))):
            results = [c for c in self.checks if c["status"] in statuses]
            if results:
                lines += [f"## {title}: {len(results)}", ""]
                lines += [f"* {c['part']}, {c['check']}: {c['note']}" for c in results] + [""]
        lines += [
            "## Checks",
            "",
            "| part | passed | failed | skipped | largest error, of what is allowed |",
            "|---|---|---|---|---|",
        ]
        for part in dict.fromkeys(c["part"] for c in self.checks):
            own = [c for c in self.checks if c["part"] == part]
            count = {s: sum(c["status"] == s for c in own) for s in ("ok", "failed", "skipped")}
            worst = max((c["numbers"]["of_allowed"] for c in own if c["numbers"].get("of_allowed") is not None), default=None)
            share = "" if worst is None else f"{worst:.0%}"
            lines.append(f"| {part} | {count['ok']} | {count['failed']} | {count['skipped']} | {share} |")
        if self.timings:
            head = ("work", "variant", "ms", "us a step", "of torch's time", "memory, MB", "GB/s or TFLOP/s")
            lines += ["", "## Times", "", "| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
            lines += [self._line(row) for row in self.timings]
            lines += ["", *self._targets()]
        return "\n".join(lines) + "\n"

    def table(self, shards: Sequence[str], lines: int = 60) -> list[str]:
        """At most so many lines of these shards, what failed first, with numbers, and times beside peers'."""
        own = [c for c in self.checks if c["shard"] in shards]
        order = sorted(own, key=lambda c: (c["status"] != "failed", shards.index(c["shard"])))
        table = []
        for check in order:
            rows = [r for r in self.timings if (r["shard"], r["work"]) == (check["shard"], check["check"])]
            numbers = [f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
                       for name, value in check["numbers"].items()]  # fmt: skip
            numbers += [f"{r['variant']} {_time(r)}" for r in rows]
            words = [
                check["status"],
                check["check"] + ":",
                *([check["note"][:160]] if check["note"] else []),
                ", ".join(numbers),
            ]
            table.append(" ".join(filter(None, words)))
        left = len(table) - (lines - 1)
        if left > 1:
            table = [*table[: lines - 2], f"and {left + 1} more in {self.folder / 'summary.md'}"]
        counts = Counter(c["status"] for c in own)
        return [*table, ", ".join(f"{count} {status}" for status, count in sorted(counts.items())) or "nothing was run"]

    def _line(self, row: dict[str, Any]) -> str:
        if row["median"] is None:
            return f"| {row['work']} | {row['variant']} | {row['status']}: {row.get('note', '')[:80]} | | | | |"
        rival = self._median(row["work"], "torch.nn") or self._median(row["work"], "torch")
        step = "" if row.get("us_a_step") is None else f"{row['us_a_step']:.2f}"
        ratio = "" if rival is None else f"{row['median'] / rival:.2f}"
        flops, moved = row.get("flops") or 0.0, row.get("bytes") or 0.0
        rate = f"{flops / row['median'] / 1e12:.1f} TFLOP/s" if flops else f"{moved / row['median'] / 1e9:.0f} GB/s"
        cells = (
            row["work"],
            row["variant"],
            f"{row['median'] * 1e3:.3f}",
            step,
            ratio,
            f"{row.get('peak_bytes', 0) / 1e6:.1f}",
            rate,
        )
        return "| " + " | ".join(cells) + " |"

    def _median(self, work: str, variant: str) -> float | None:
        return next((r["median"] for r in self.timings if (r["work"], r["variant"]) == (work, variant)), None)

    def _targets(self) -> list[str]:
        """The aims for an H100, met or missed; where one was not measured, nothing is said."""
        lines = []
        for work, most in TARGETS:
            if (ours := self._median(work, "kernels:triton")) is not None:
                lines.append(f"{work}: {ours * 1e3:.2f} ms, aim {most * 1e3:.1f} ms: {_met(ours <= most)}")
        for work, least in TIMES_FASTER:
            ours, theirs = self._median(work, "kernels:triton"), self._median(work, "torch.nn")
            if ours is not None and theirs is not None:
                lines.append(
                    f"{work}: {theirs / ours:.2f} times as fast as torch.nn, aim {least}: {_met(theirs / ours >= least)}"
                )
        for check in self.checks:
            share = check["numbers"].get("share_of_backward")
            if share is not None:
                lines.append(
                    f"{check['check']}: {share:.1%} of the backward pass, aim {TRACE_SHARE:.0%}: {_met(share <= TRACE_SHARE)}"
                )
        copy = next((r for r in self.timings if r["work"] == "copy" and r["median"]), None)
        for row in self.timings:
            if copy and row["shard"] == "logits" and row["variant"] == "kernels:triton" and row["median"]:
                share = row["bytes"] / row["median"] / (copy["bytes"] / copy["median"])
                lines.append(
                    f"{row['work']}: {share:.0%} of the bandwidth of a copy, aim {COPY_SHARE:.0%}: {_met(share >= COPY_SHARE)}"
                )
        return [f"* {line}" for line in lines]


def _time(row: dict[str, Any]) -> str:
    if row["median"] is None:
        return f"{row['status']} ({(row.get('note') or '')[:60]})"
    step = f" = {row['us_a_step']:.2f} us a step" if row.get("us_a_step") is not None else ""
    return f"{row['median'] * 1e3:.3f} ms{step}"


def _met(yes: bool) -> str:
    return "met" if yes else "**missed**"
