"""Everything that only a GPU can prove, in minutes: ``python tests/gpu_check.py --out DIR`` from the source tree, no install.

Where a GPU can be had for a quarter of an hour only: ``--story 1``, then 2 and 3, which put first what is worth most.

Runs the checks of tests/gpu in processes of their own, so that a hang, or a fault that costs a process its GPU, ends one check
and is reported. What is known is in DIR at every moment: summary.md, checks.csv, timings.csv, results.json. Exit code 0 if all
checks ran and passed, 1 if not, 2 without a CUDA GPU. Speed is reported and fails nothing.
"""

import argparse
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(HERE / "gpu"))

from results import Results  # noqa: E402

# Parts in order. Those of a stage run side by side; timing and repetitions have the GPU for themselves.
STAGES = (("sanitize", "scan", "loss", "module", "cuda"), ("repeat",), ("timing",))
SHARDS = {
    "scan": [f"{cell} {half}" for cell in ("lstm", "gru", "rnn-tanh", "rnn-relu", "rnn-sigmoid", "rnn-identity")
             for half in ("types", "options")],
    "loss": ["logits", "cut", "chunked", "torch"],
    "module": ["all"],
    "cuda": ["stepwise", "resident", "cooperative", "others"],
    "sanitize": [f"{tool} {what}" for tool in ("memcheck", "racecheck")
                 for what in ("cooperative sentinel", "cooperative counter", "resident", "stepwise", "losses")],
    "repeat": ["all"],
    "timing": ["peaks", "recurrence", "linear", "logits", "trace"],
}  # fmt: skip
STORIES = {  # shards of the part "story" in order: those of a story run one after the other
    1: ("machine", "peaks", "headline", "waits", "launches", "cells"),
    2: ("flashrnn-build", "exchange", "sizes", "losses", "trace", "flashrnn"),
    3: ("steps", "capture", "language", "sanitize"),
}
SECONDS = {None: 470, 1: 170, 2: 230, 3: 230}  # of a run without a story, and of each story
PARTS = tuple(part for stage in STAGES for part in stage)
NO_GPU = "a CUDA GPU is needed, and torch sees none here; everything that needs none is in make test and make test-all"


@dataclass
class Shard:
    """A part's piece: its process, and where it stands."""

    part: str
    name: str
    done: int = 0
    total: int = 1
    begun: str = ""
    leave: list[str] = field(default_factory=list)  # checks that an earlier run did
    lines: "queue.Queue[str | None]" = field(default_factory=queue.Queue)


def run_shard(shard: Shard, device: str, results: Results, end: float) -> None:
    """All checks of a shard; after a hang or a lost process a new one goes on behind the check that was its last."""
    while shard.done < shard.total:
        process = _start(shard, device)
        allowed = 180.0  # to import everything
        try:
            while True:
                left = end - time.monotonic()
                try:
                    line = shard.lines.get(timeout=max(0.1, min(allowed, left)))
                except queue.Empty:
                    if left <= allowed:
                        missing = shard.total - shard.done
                        results.add(shard.part, shard.name, {"check": shard.begun, "status": "not run", "note":
                                    f"the time was up, and {missing} checks of this shard were not done"})  # fmt: skip
                        return
                    _lost(shard, results, f"hangs: nothing was heard for {allowed:.0f} s")
                    break
                if line is None:
                    if shard.done < shard.total:
                        process.wait()
                        _lost(shard, results, f"the process ended with exit code {process.returncode}: {_last_words(process)}")
                    break
                told = json.loads(line)
                if "of" in told:
                    shard.total = told["of"]
                elif "begin" in told:
                    shard.begun, allowed = told["begin"], told["seconds"]
                else:
                    results.add(shard.part, shard.name, told)
                    shard.done, shard.begun = shard.done + 1, ""
        finally:
            _kill(process)


def _lost(shard: Shard, results: Results, why: str) -> None:
    """A process that ended or hangs within a check has failed it; between two checks it had lost its GPU, and goes on anew."""
    if shard.begun or shard.done == 0:
        results.add(shard.part, shard.name, {"check": shard.begun or "start", "status": "failed", "note": why})
        shard.done, shard.begun = shard.done + 1, ""


def _start(shard: Shard, device: str) -> "subprocess.Popen[str]":
    path = [str(ROOT), str(HERE / "support" / "kernels"), str(HERE / "support"), os.environ.get("PYTHONPATH", "")]
    command = [
        sys.executable,
        str(HERE / "gpu" / "check.py"),
        shard.part,
        shard.name,
        "--device",
        device,
        "--after",
        str(shard.done),
        "--leave",
        *shard.leave,
    ]
    process = subprocess.Popen(
        command,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, path))},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    shard.lines = queue.Queue()
    threading.Thread(target=_read, args=(process, shard.lines), daemon=True).start()
    threading.Thread(target=_remember, args=(process,), daemon=True).start()
    return process


def _read(process: "subprocess.Popen[str]", lines: "queue.Queue[str | None]") -> None:
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            if line.startswith("{"):
                lines.put(line)
    lines.put(None)


WORDS: dict[int, list[str]] = {}  # the last lines that a process said, by its number


def _remember(process: "subprocess.Popen[str]") -> None:
    assert process.stderr is not None
    words = WORDS.setdefault(process.pid, [])
    with process.stderr:
        for line in process.stderr:
            words.append(line.strip())
            del words[:-20]


def _last_words(process: "subprocess.Popen[str]") -> str:
    time.sleep(0.2)  # until the other thread has read them
    return " ".join(WORDS.get(process.pid, [])[-3:])[:500]


def _kill(process: "subprocess.Popen[str]") -> None:
    """The process and all that it started; one that the driver does not let go is left behind."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=15)
    except (ProcessLookupError, subprocess.TimeoutExpired):
        pass


def about(device: str) -> dict[str, Any]:
    """The machine, asked in a process of its own, so that this one holds no part of the GPU. Empty without a GPU."""
    code = """
import json, platform, torch, triton
if torch.cuda.is_available():
    p = torch.cuda.get_device_properties(0)
    name, more = p.name, {"capability": f"{p.major}.{p.minor}", "multiprocessors": p.multi_processor_count}
    more["memory_gb"] = round(p.total_memory / 1e9)
else:
    name, more = "", {}
versions = {"torch": torch.__version__, "triton": triton.__version__, "cuda": torch.version.cuda}
versions |= {"cudnn": torch.backends.cudnn.version(), "python": platform.python_version()}
print(json.dumps({"gpu": name} | versions | more))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if done.returncode:
        return {"error": f"{sys.executable} cannot import what is needed: {done.stderr.strip().splitlines()[-1]}"}
    content: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if device == "cuda" and content["gpu"] and (missing := cannot_launch()):
        return {"error": missing}
    if device == "cpu":
        content["gpu"] = "none: a dry run in Triton's interpreter, whose times mean nothing"
    if device == "stub":
        content["gpu"] = "none: a dry run that launches nothing, whose numbers mean nothing"
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    return content | {"commit": commit.stdout.strip() or None} if content["gpu"] else {}


def cannot_launch() -> str:
    """What Triton lacks here to build the few lines of C by which it launches kernels; nothing where it has all."""
    compilers = [os.environ["CC"]] if os.environ.get("CC") else ["gcc", "clang"]
    if not any(map(shutil.which, compilers)):
        return f"Triton needs a C compiler to launch kernels, and there is no {' or '.join(compilers)}; install it, or set CC"
    scheme = sysconfig.get_default_scheme().replace("posix_local", "posix_prefix")  # as Triton has it, for Debian's sake
    if not (Path(sysconfig.get_paths(scheme)["include"]) / "Python.h").exists():
        return f"Triton needs the headers of {sys.executable} to launch kernels, and there is no Python.h; install python3-dev"
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/gpu-check"), help="folder of the results")
    parser.add_argument("--part", nargs="+", default=list(PARTS), choices=PARTS, metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--only", default="", help="only the shards whose name holds this, such as lstm")
    parser.add_argument("--jobs", type=int, default=min(20, os.cpu_count() or 1), help="processes at once, where they may be")
    parser.add_argument("--seconds", type=float, help="after so many nothing more is begun, and that is a failure")
    parser.add_argument(
        "--story", type=int, choices=STORIES, help="one of three calls of three to four minutes; goes on in --out"
    )
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu", "stub"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    begin = time.monotonic()
    machine = about(arguments.device)
    if not machine or "error" in machine:
        print(machine.get("error", NO_GPU), file=sys.stderr)
        return 2
    command = "python " + " ".join([str(Path(__file__).relative_to(ROOT)), *sys.argv[1:]])
    shards = STORIES.get(arguments.story, ())
    results = Results(arguments.out, machine | {"command": command, "device": arguments.device}, go_on=shards)
    end = begin + (arguments.seconds or SECONDS[arguments.story])
    if arguments.story:
        for name in shards:
            if arguments.only in name:
                run_shard(Shard("story", name, leave=results.passed(name)), arguments.device, results, end)
    else:
        run_stages(arguments, results, end)
    results.finish(time.monotonic() - begin)
    if arguments.story:
        print("\n".join(results.table(shards)))
    else:
        print((arguments.out / "summary.md").read_text())
    return int(results.bad(shards))


def run_stages(arguments: argparse.Namespace, results: Results, end: float) -> None:
    """The stages in turn, and the shards of each side by side."""
    for stage in STAGES:
        chosen = [Shard(part, name) for part in stage if part in arguments.part
                  for name in SHARDS[part] if arguments.only in name]  # fmt: skip
        at_once = arguments.jobs if len(stage) > 1 else 1
        waiting: queue.Queue[Shard] = queue.Queue()
        for shard in chosen:
            waiting.put(shard)

        def work(waiting: "queue.Queue[Shard]" = waiting) -> None:
            while True:
                try:
                    shard = waiting.get_nowait()
                except queue.Empty:
                    return
                run_shard(shard, arguments.device, results, end)

        threads = [threading.Thread(target=work) for _ in range(min(at_once, len(chosen)))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


if __name__ == "__main__":
    sys.exit(main())
