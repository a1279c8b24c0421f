"""One training on several processes: the losses, files and words of one process; ranks that stop, die, diverge or disagree.

The processes are real and meet by gloo on 127.0.0.1. They are forked from one that has imported everything, which does what
torchrun does: a process that fails ends the others with SIGTERM, a moment later. The store is kept here, as torchrun keeps it.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import Child
from torch.distributed import TCPStore

from recurrent_lm.lm.runs import checkpoint
from recurrent_lm.lm.text.batches import Batches
from recurrent_lm.lm.training import ranks as distributed

Log = Callable[[Path], list[dict[str, Any]]]
Make = Callable[..., Any]

NO_SYNC = "import os; os.fsync = lambda descriptor: None\n"
# What a rank does before each update: end itself, or be another than the others.
AT_STEP = """
import os, torch, recurrent_lm.lm.training.loop
real_update = recurrent_lm.lm.training.loop.Training.update
def update(self, batch):
    if int(os.environ.get("RANK", 0)) == {rank} and self.at.step == {step}:
        {what}
    return real_update(self, batch)
recurrent_lm.lm.training.loop.Training.update = update
"""
# So slow that torchrun's SIGTERM comes in between.
SLOW_TO_SPEAK = """
import time, recurrent_lm.lm.training.process_group
say = recurrent_lm.lm.training.process_group._say
recurrent_lm.lm.training.process_group._say = lambda *arguments: (time.sleep(0.4), say(*arguments))
"""
# What each rank holds at the end, byte for byte, where only the first can read and write.
WEIGHTS = """
import hashlib, os, sys, recurrent_lm.lm.training.start, recurrent_lm.lm.training.loop
if os.environ["RANK"] != "0":
    start = recurrent_lm.lm.training.start
    start.prepare = start.runs.read_settings = start.checkpoint.load = start.checkpoint.save = None
real_conclude = recurrent_lm.lm.training.loop.Training.conclude
def conclude(self):
    held = [*self.model.state_dict().values(), *recurrent_lm.lm.training.loop.optimizer.tensors(self.step.optimizer).values()]
    print(hashlib.sha256(b"".join(t.numpy().tobytes() for t in held)).hexdigest(), file=sys.stderr)
    return real_conclude(self)
recurrent_lm.lm.training.loop.Training.conclude = conclude
"""


@dataclass
class Ended:
    """Processes that have ended; ``said`` is what all of them wrote to stderr."""

    codes: list[int]
    out: list[str]
    err: list[str]

    @property
    def said(self) -> str:
        return "".join(self.err)

    def sentence(self, code: int, *ranks: int) -> str:
        """The one sentence with which all of them (or ``ranks``) ended, none by a signal that cut it off."""
        assert {self.codes[rank] for rank in ranks or range(len(self.codes))} == {code}, (self.codes, self.said)
        assert self.said.startswith("lm: ")
        assert self.said.count("\n") == 1, self.said
        return self.said


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Ended]:
    """``together(N, arguments, first="")`` runs ``lm`` in N processes, each with some Python before it, to their end."""
    folder = tmp_path_factory.mktemp("ranks")

    def run(size: int, arguments: list[Any], first: str = "") -> Ended:
        store = TCPStore("127.0.0.1", 0, None, True, wait_for_workers=False)
        where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
        ranks = []
        for rank in range(size):
            place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)} | where
            files = (folder / f"{rank}.out", folder / f"{rank}.err")
            ranks.append(
                Child("lm", arguments, *files, first=NO_SYNC + first, cwd=folder, environment=place if size > 1 else {})
            )
        running = set(ranks)
        while running:
            wait([child.process.sentinel for child in running])
            ended = {child for child in running if child.poll() is not None}
            running -= ended
            if any(child.poll() for child in ended):
                time.sleep(0.1)
                for other in running:
                    other.process.terminate()
        return Ended([child.wait() for child in ranks], *([getattr(c, n).read_text() for c in ranks] for n in ("out", "err")))

    return run


NOISE = {"cell": "lstm", "dropout": 0.3, "weight_drop": 0.2, "embedding_dropout": 0.1, "clip": "norm:0.15", "lr": 0.01}
KINDS: dict[str, dict[str, Any]] = {
    "noise": {**NOISE, "checkpoint_every": 3},
    "average": {
        "cell": "gru",
        "layers": 2,
        "dropout": 0.3,
        "locked": False,
        "optimizer": "sgd",
        "lr": 2.0,
        "clip": "value:0.02",
        "average": 0.9,
        "state": "document",
        "eos_at_newline": True,
        "valid_rows": 3,
        "embedding_size": 5,
    },
    "eager": {"cell": "rnn-tanh", "backend": "eager", "state": "never", "tie": False, "kind": "word"},
}


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory, make_text: Callable[..., str]) -> dict[str, Path]:
    """Documents of 4 x 73 characters with their <eos>: of the last pass, of one step, the last row's target does not count."""
    folder = tmp_path_factory.mktemp("text")
    lengths = {"train_file": 4 * 73 - 1, "valid_file": 150, "test_file": 90}
    for seed, (name, length) in enumerate(lengths.items()):
        (folder / name).write_text(make_text(400, seed)[:length].replace(". ", ".\n"))
    return {name: folder / name for name in lengths}


@pytest.fixture(scope="module")
def command(text: dict[str, Path], flags: Make) -> Callable[..., list[Any]]:
    def make(run: Path, **settings: Any) -> list[Any]:
        return ["train", "--run", run, *flags(**{**text, "min_count": 1, **settings})]

    return make


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, together: Any, command: Make) -> Callable[[str], Path]:
    """The run of a kind in one process."""
    folder = tmp_path_factory.mktemp("whole")

    def get(kind: str) -> Path:
        if not (folder / kind).exists():
            done = together(1, command(folder / kind, **KINDS[kind]))
            assert done.codes == [0], done.said
        return folder / kind

    return get


def same_run(run: Path, expected: Path, read_log: Log) -> list[dict[str, Any]]:
    """Losses, records, carried state and weights are those of the other run within rounding, the rest exactly."""
    assert {p.name for p in run.iterdir()} == {p.name for p in expected.iterdir()}
    steps, others = read_log(run / "steps.jsonl"), read_log(expected / "steps.jsonl")
    for name in ("loss", "grad_norm"):
        assert [r.pop(name) for r in steps] == pytest.approx([r.pop(name) for r in others], rel=2e-5), name
    assert steps == others
    epochs, expected_epochs = read_log(run / "epochs.jsonl"), read_log(expected / "epochs.jsonl")
    for name in ("train_loss", "valid_loss", "valid_bits_per_byte"):
        assert [r[name] for r in epochs] == pytest.approx([r[name] for r in expected_epochs], rel=2e-5), name
    a, b = (json.loads((p / "result.json").read_text()) for p in (run, expected))
    assert a["test"] == pytest.approx(b["test"], rel=2e-5)
    saved, wanted = checkpoint.load(run), checkpoint.load(expected)
    assert saved.groups.keys() == wanted.groups.keys()
    for group, tensors in wanted.groups.items():
        assert saved.groups[group].keys() == tensors.keys()
        for name, tensor in tensors.items():
            found = saved.groups[group][name]
            torch.testing.assert_close(found, tensor, rtol=2e-3, atol=2e-5, msg=lambda m, n=name: f"{n}: {m}")
            if name.startswith("random"):
                assert torch.equal(found, tensor)
    return others


# -- the same as one process ----------------------------------------------------------------------------------------


def test_the_text_is_one_of_uneven_shares(whole: Any, text: dict[str, Path], read_log: Log) -> None:
    steps = read_log(whole("noise") / "steps.jsonl")
    assert len(steps) == 20
    assert [r["tokens"] for r in steps] == 2 * (9 * [32] + [3])
    assert 5 < sum(r["clipped"] for r in steps) < 20
    assert len(read_log(whole("average") / "steps.jsonl")) == 20
    assert sum(r["clipped"] for r in read_log(whole("average") / "steps.jsonl")) > 0


@pytest.mark.parametrize(("kind", "size"), [("noise", 2), ("noise", 4), ("average", 2), ("eager", 2)])
def test_several_processes_are_one(
    tmp_path: Path, together: Any, command: Make, whole: Any, read_log: Log, kind: str, size: int
) -> None:
    expected = whole(kind)
    done = together(size, command(tmp_path / "run", **KINDS[kind]), WEIGHTS)
    assert done.codes == [0] * size, done.said
    same_run(tmp_path / "run", expected, read_log)
    hashes = [said.splitlines()[-1] for said in done.err]  # behind notes, which the first rank alone prints
    assert len(set(hashes)) == 1, "the same weights and averages on all ranks, bit for bit"
    assert len(hashes[0]) == 64
    assert f"cpu, {size} processes of 1 thread" in done.out[0]
    assert json.loads((tmp_path / "run" / "about.json").read_text())["processes"] == size
    assert done.out[0].count("epoch 2:") == 1
    assert done.out[1:] == [""] * (size - 1)
    folders = [p.name for p in (tmp_path / "run" / "checkpoints").iterdir()]
    assert len(folders) <= 2, folders


def test_runs_go_on_with_another_number_of_ranks_whatever_ended_them(
    tmp_path: Path, together: Any, command: Make, whole: Any, read_log: Log
) -> None:
    run = tmp_path / "run"
    resume = ["resume", run, "--quiet"]

    def at_step(rank: int, step: int, number: int) -> str:
        return AT_STEP.format(rank=rank, step=step, what=f"os.kill(os.getpid(), {number})")

    def saved() -> int:
        return int(checkpoint.load(run).meta["step"])

    done = together(2, [*command(run, **KINDS["noise"]), "--quiet"], at_step(1, 4, 15))  # a signal that one of them gets
    assert f"stopped after step 5, all saved; go on with: lm resume {run}" in done.sentence(143)
    assert saved() == len(read_log(run / "steps.jsonl")) == 5
    carried = checkpoint.load(run).groups["state"]
    assert {tuple(t.shape) for name, t in carried.items() if name.startswith("carried")} == {(1, 4, 8)}
    done = together(1, resume, at_step(0, 7, 2))
    assert "stopped after step 8" in done.sentence(130)
    for killed, size, step in ((0, 4, 11), (1, 2, 13)):
        done = together(size, resume, at_step(killed, step, 9) + SLOW_TO_SPEAK)
        assert done.codes[killed] == -9
        said = done.sentence(2, *({*range(size)} - {killed}))
        assert f"another process of this training has ended after step {step}" in said
        assert f"go on with: lm resume {run}" in said
        assert saved() == step // 3 * 3 or saved() == 10, "a checkpoint every three steps, and at the end of an epoch"
    assert not (run / "result.json").exists()
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    assert "4 rows cannot be divided over 3 processes" in together(3, resume).sentence(2)
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before
    done = together(2, resume)
    assert done.codes == [0, 0], done.said
    same_run(run, whole("noise"), read_log)


# -- signals and waiting --------------------------------------------------------------------------------------------

VALIDATING = """
import os, time, datetime, recurrent_lm.lm.training.ranks, recurrent_lm.lm.training.process_group, recurrent_lm.lm.training.loop
recurrent_lm.lm.training.ranks.BEAT = 0.01
recurrent_lm.lm.training.process_group.TIMEOUT = datetime.timedelta(seconds={timeout})
real_evaluate, real_score = recurrent_lm.lm.training.loop.evaluate, recurrent_lm.lm.training.loop.Training.score
def score(self, *arguments):
    if os.environ["RANK"] == "1" and {signal}:
        os.kill(os.getpid(), {signal})
    return real_score(self, *arguments)
def evaluate(*arguments, between, **how):
    end = time.monotonic() + {seconds}
    while time.monotonic() < end:
        time.sleep(0.02)
        between()
    return real_evaluate(*arguments, between=between, **how)
recurrent_lm.lm.training.loop.evaluate, recurrent_lm.lm.training.loop.Training.score = evaluate, score
"""


def test_a_signal_to_a_rank_that_waits_stops_the_validation(
    tmp_path: Path, together: Any, command: Make, whole: Any, read_log: Log
) -> None:
    run = tmp_path / "run"
    done = together(2, command(run, **KINDS["noise"]), VALIDATING.format(timeout=600, signal=2, seconds=600))
    assert "stopped after step 10" in done.sentence(130)
    assert done.err[0], "after the first rank's last line on the screen"
    assert not (run / "best.json").exists(), "the validation was not done"
    assert together(1, ["resume", run]).codes == [0]
    same_run(run, whole("noise"), read_log)


@pytest.mark.slow
def test_a_validation_may_take_longer_than_ranks_wait_for_each_other(tmp_path: Path, together: Any, command: Make) -> None:
    done = together(2, command(tmp_path / "run", epochs=1), VALIDATING.format(timeout=4, signal=0, seconds=6))
    assert done.codes == [0, 0], done.said


@pytest.mark.slow
def test_a_rank_that_does_not_answer_is_not_waited_for_without_end(tmp_path: Path, together: Any, command: Make) -> None:
    first = "import datetime\nfrom recurrent_lm.lm.training import process_group\n"
    first += "process_group.TIMEOUT = datetime.timedelta(seconds=5)"
    first += AT_STEP.format(rank=1, step=4, what="import time; time.sleep(12); os._exit(0)")
    done = together(2, command(tmp_path / "run"), first)
    assert "does not answer after step 4" in done.sentence(2, 0)


# -- said once ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "size", "code", "said"),
    [
        ({"lr": 1e6, "optimizer": "sgd", "clip": "none"}, 2, 3, "became"),
        ({}, 3, 2, "4 rows cannot be divided over 3 processes"),
        ({"source": "none.txt"}, 2, 2, "none.txt"),
        ({"device": "cuda:0"}, 2, 2, "--device cuda:0 is one GPU"),
        ({"hidden_size": "many"}, 2, 2, "--hidden-size must be a whole number"),
        ({"dropout": 2.0}, 2, 2, "--dropout must be"),
    ],
)
def test_what_is_wrong_is_said_once(
    tmp_path: Path, together: Any, flags: Make, text: dict[str, Path], settings: dict[str, Any], size: int, code: int, said: str
) -> None:
    files = {} if "source" in settings else text
    arguments = [settings["source"]] if "source" in settings else []
    how = flags(**files, **{k: v for k, v in settings.items() if k != "source"})
    run = tmp_path / "run"
    done = together(
        size,
        ["train", *arguments, "--run", run, "--quiet", *how],
        "import recurrent_lm.lm.training.process_group; recurrent_lm.lm.training.process_group.PATIENCE = 1",
    )
    assert said in done.sentence(code, 0)
    assert {*done.codes} <= {code, -15}, "what waits for the first rank ends at once"
    assert (run / "last.json").exists() == run.exists() == (code == 3)


@pytest.mark.parametrize(
    ("rank", "what", "said"),
    [
        (1, "raise torch.OutOfMemoryError", "memory does not suffice after step 4"),
        (0, "raise torch.OutOfMemoryError", "memory does not suffice after step 4"),
        (1, "next(self.model.parameters()).data[1, 1] += 1e-4", "rank 1 no longer has the same weights"),
    ],
)
def test_what_befalls_one_rank_ends_all_with_its_sentence(
    tmp_path: Path, together: Any, command: Make, rank: int, what: str, said: str
) -> None:
    run = tmp_path / "run"
    done = together(2, [*command(run, checkpoint_every=3), "--quiet"], AT_STEP.format(rank=rank, step=4, what=what))
    assert said in done.sentence(2)
    assert checkpoint.load(run).meta["step"] == 3


def test_a_rank_that_cannot_take_part_takes_the_folder_back(tmp_path: Path, together: Any, command: Make) -> None:
    first = """
import os, recurrent_lm.lm.training.start, recurrent_lm.lm.base.errors
def assemble(*arguments):
    raise recurrent_lm.lm.base.errors.InputError("not here")
if os.environ["RANK"] == "1":
    recurrent_lm.lm.training.start._assemble = assemble
"""
    done = together(2, command(tmp_path / "run"), first)
    assert "rank 1: not here" in done.sentence(2)
    assert not (tmp_path / "run").exists()


# -- the parts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_the_rows_are_divided_without_gap_or_overlap(size: int) -> None:
    batch = Batches(torch.arange(61).numpy(), 6, 4)[1]
    parts = [batch.part(distributed.Ranks(rank, size, None).rows(6)) for rank in range(size)]  # type: ignore[arg-type]
    for name in ("inputs", "targets", "begins"):
        found = [row.tolist() for part in parts for row in getattr(part, name)]
        assert found == getattr(batch, name).tolist()
    assert {len(part.inputs) for part in parts} == {6 // size}
