"""Checkpoints through crashes, full disks, damage and foreign files."""

import errno
import json
import os
import pathlib
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from recurrent_lm.lm.base.errors import InputError
from recurrent_lm.lm.base.storage import write_atomic
from recurrent_lm.lm.runs import checkpoint
from recurrent_lm.lm.runs import folder as runs
from recurrent_lm.lm.runs.checkpoint import Checkpoint, load, save


def make(step: int) -> Checkpoint:
    generator = torch.Generator().manual_seed(step)
    groups = {
        "model": {"w": torch.randn(3, 4, generator=generator), "b": torch.randn(2, generator=generator).bfloat16()},
        "optimizer": {"0.step": torch.tensor(float(step))},
        "state": {"random.cpu": torch.randint(0, 255, (50,), dtype=torch.uint8, generator=generator)},
    }
    return Checkpoint(groups, {"step": step, "position": {"lr": 0.1 + step, "best_loss": None}})


def same(a: Checkpoint, b: Checkpoint) -> bool:
    if a.meta != b.meta or a.groups.keys() != b.groups.keys():
        return False
    for group, tensors in a.groups.items():
        other = b.groups[group]
        if tensors.keys() != other.keys():
            return False
        if not all(t.dtype == other[k].dtype and torch.equal(t, other[k]) for k, t in tensors.items()):
            return False
    return True


def folders(run: Path) -> list[str]:
    return sorted(p.name for p in (run / "checkpoints").iterdir())


def named(run: Path) -> list[str]:
    return sorted(
        {json.loads((run / f"{w}.json").read_text())["folder"] for w in ("last", "best") if (run / f"{w}.json").exists()}
    )


def test_a_checkpoint_comes_back_bit_for_bit(tmp_path: Path) -> None:
    save(tmp_path, make(3), best=True)
    assert same(load(tmp_path, "last"), make(3))
    assert same(load(tmp_path, "best"), make(3))


def test_best_and_last_are_kept_and_all_others_removed(tmp_path: Path) -> None:
    save(tmp_path, make(1), best=True)
    assert len(folders(tmp_path)) == 1, "best and last are the same"
    for step in (2, 3, 4):
        save(tmp_path, make(step))
    assert same(load(tmp_path, "best"), make(1))
    assert same(load(tmp_path, "last"), make(4))
    assert len(folders(tmp_path)) == 2
    save(tmp_path, make(5), best=True)
    assert len(folders(tmp_path)) == 1
    assert folders(tmp_path) == named(tmp_path)


def test_best_falls_back_to_last_before_any_validation(tmp_path: Path) -> None:
    save(tmp_path, make(1))
    assert same(load(tmp_path, "best"), make(1))


def test_a_second_checkpoint_of_the_same_step_is_a_new_folder(tmp_path: Path) -> None:
    save(tmp_path, make(7), best=True)
    other = Checkpoint(make(8).groups, {"step": 7})
    save(tmp_path, other)
    assert same(load(tmp_path, "best"), make(7))
    assert same(load(tmp_path, "last"), other)


def test_views_and_transposed_tensors_are_stored_as_they_read(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    save(tmp_path, Checkpoint({"state": {"t": base.t(), "v": base[:, 1]}}, {"step": 0}))
    loaded = load(tmp_path).groups["state"]
    assert torch.equal(loaded["t"], base.t())
    assert torch.equal(loaded["v"], base[:, 1])


def test_nothing_is_a_pickle(trained: Path) -> None:
    files = [p for p in trained.rglob("*") if p.is_file() and p.name != ".lock"]
    assert {p.suffix for p in files} == {".json", ".jsonl", ".toml", ".safetensors"}
    for file in files:
        assert not file.read_bytes().startswith((b"\x80", b"PK")), file
        if file.suffix == ".json":
            json.loads(file.read_text())


# -- crashes --------------------------------------------------------------------------------------------------------


class Crash(BaseException):
    """Stops the process where it stands, as SIGKILL does: no handler of the program catches it."""


@contextmanager
def failing(monkeypatch: pytest.MonkeyPatch, at: int, make_error: Callable[[], BaseException]) -> Iterator[list[str]]:
    """Let the ``at``-th change of the disk fail; a write fails with half of its bytes written. Yields the calls made."""
    calls: list[str] = []

    def guarded(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            calls.append(name if name != "replace" else f"replace {Path(args[1]).name}")
            if len(calls) == at:
                raise make_error()
            return real(*args, **kwargs)

        return call

    real_open = pathlib.Path.open

    def open_file(path: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        file = real_open(path, mode, *args, **kwargs)
        if "w" not in mode:
            return file
        calls.append(f"write {path.name}")
        if len(calls) != at:
            return file

        class Half:
            def __enter__(self) -> "Half":
                return self

            def __exit__(self, *_: object) -> None:
                file.close()

            def write(self, data: bytes) -> None:
                file.write(data[: len(data) // 2])
                file.flush()
                raise make_error()

        return Half()

    with monkeypatch.context() as patch:
        for name in ("replace", "rename", "fsync", "mkdir"):
            patch.setattr(os, name, guarded(name, getattr(os, name)))
        patch.setattr(pathlib.Path, "open", open_file)
        yield calls


def changes_of_a_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    save(tmp_path / "count", make(1), best=True)
    with failing(monkeypatch, 0, Crash) as calls:
        save(tmp_path / "count", make(2), best=True)
    assert sum(c.startswith("write") for c in calls) == 6, "three groups, their state, two pointers"
    assert calls.count("rename") == 1
    assert [c for c in calls if c.startswith("replace")] == ["replace best.json", "replace last.json"]
    # Every file and folder is on the disk before anything points to it.
    assert calls[calls.index("rename") - 1] == "fsync"
    assert calls[calls.index("replace last.json") - 1] == "fsync"
    assert calls.count("fsync") >= 4 + 2 + 2 * 2, "four files, two folders, two pointers with their folder"
    return len(calls)


@pytest.mark.parametrize("kind", ["full disk", "crash"])
@pytest.mark.parametrize("best", [False, True])
def test_a_failure_at_any_stage_leaves_a_whole_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, best: bool
) -> None:
    (tmp_path / "count").mkdir()
    stages = changes_of_a_save(tmp_path, monkeypatch)
    for at in range(1, stages + 1):
        run = tmp_path / f"run{at}"
        run.mkdir()
        save(run, make(1), best=True)
        save(run, make(2))
        with failing(
            monkeypatch, at, Crash if kind == "crash" else lambda: OSError(errno.ENOSPC, "No space left on device")
        ) as calls:
            try:
                save(run, make(3), best=best)
                failed = False
            except (OSError, Crash):
                failed = True
        # Stage 1 makes a folder that is there already; without a new best there are fewer stages.
        assert failed or at == 1 or not best, f"stage {at} was swallowed: {calls[-1]}"
        replaced = [c for c in calls[:-1] if c.startswith("replace")] if failed else ["replace last.json", "replace best.json"]
        assert same(load(run, "last"), make(3) if "replace last.json" in replaced else make(2)), f"after {calls}"
        assert same(load(run, "best"), make(3) if best and "replace best.json" in replaced else make(1)), f"after {calls}"
        if kind == "full disk" and failed and not any(c.startswith("fsync") for c in calls[-1:]):
            assert not list(run.rglob(".*.tmp")), "the space is given back"
        save(run, make(4))  # the next one works and tidies up
        assert same(load(run, "last"), make(4))
        assert folders(run) == named(run)
        assert {p.name for p in run.iterdir()} == {"checkpoints", "last.json", "best.json"}


def test_a_crash_in_the_very_first_save_leaves_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with failing(monkeypatch, 4, Crash), pytest.raises(Crash):
        save(tmp_path, make(1))
    with pytest.raises(InputError, match="holds no checkpoint"):
        load(tmp_path)
    save(tmp_path, make(2))
    assert same(load(tmp_path), make(2))
    assert folders(tmp_path) == named(tmp_path)


def test_write_atomic_shows_the_old_content_or_the_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "f.json"
    write_atomic(file, b"old")
    for at in (1, 2, 3):
        with failing(monkeypatch, at, lambda: OSError(errno.ENOSPC, "full")), pytest.raises(OSError, match="full"):
            write_atomic(file, b"new content")
        assert file.read_bytes() == b"old"
        assert [p.name for p in tmp_path.iterdir()] == ["f.json"]
    write_atomic(file, b"new content")
    assert file.read_bytes() == b"new content"


# -- damage ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    save(tmp_path, make(1), best=True)
    save(tmp_path, make(2))
    return tmp_path


def files_of_last(run: Path) -> list[Path]:
    folder = run / "checkpoints" / json.loads((run / "last.json").read_text())["folder"]
    files = [run / "last.json", *sorted(folder.iterdir())]
    assert len(files) == 5
    return files


def refuses(run: Path, damage: str) -> None:
    with pytest.raises(InputError) as caught:
        load(run, "last")
    message = str(caught.value)
    assert "\n" not in message, damage
    assert "damaged" in message or "no checkpoint" in message or "format" in message, f"{damage}: {message}"
    assert same(load(run, "best"), make(1)), "the other checkpoint is not affected"


def test_every_damaged_byte_is_noticed(stored: Path) -> None:
    draw = random.Random(0)
    for file in files_of_last(stored):
        whole = file.read_bytes()
        positions = (
            range(len(whole)) if file.name == "last.json" else sorted(draw.sample(range(len(whole)), min(60, len(whole))))
        )
        for position in positions:
            damaged = bytearray(whole)
            damaged[position] ^= draw.randrange(1, 256)
            file.write_bytes(damaged)
            try:
                loaded = load(stored, "last")
            except InputError as error:
                assert "\n" not in str(error)
            else:
                assert same(loaded, make(2)), f"{file.name}, byte {position}"
                assert file.name == "last.json", "only white space of the pointer may change unnoticed"
        file.write_bytes(whole)
    assert same(load(stored, "last"), make(2))


def test_every_truncation_is_noticed(stored: Path) -> None:
    for file in files_of_last(stored):
        whole = file.read_bytes()
        for size in sorted({0, 1, 7, 8, 9, len(whole) // 2, len(whole) - 1}):
            file.write_bytes(whole[:size])
            refuses(stored, f"{file.name} cut to {size}")
        file.write_bytes(whole + b"\0")
        refuses(stored, f"{file.name} with a byte more")
        file.write_bytes(whole)


def test_every_missing_file_is_noticed(stored: Path) -> None:
    for file in files_of_last(stored):
        whole = file.read_bytes()
        file.unlink()
        refuses(stored, f"without {file.name}")
        file.mkdir()
        refuses(stored, f"a folder for {file.name}")
        file.rmdir()
        file.write_bytes(whole)
    shutil.rmtree(stored / "checkpoints")
    with pytest.raises(InputError):
        load(stored, "best")


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"null", b"[]", b"{}", b"17", b'"text"', b"\xff\xfe\x00", b"PK\x03\x04", b'{"folder": 3, "sha256": null}'),
        *(b'{"folder": "..", "sha256": ""}', b'{"folder": "/etc", "sha256": "00"}', b'{"folder": "a\\u0000b", "sha256": ""}'),
    ],
)
def test_foreign_files_are_refused(stored: Path, content: bytes) -> None:
    for file in files_of_last(stored):
        whole = file.read_bytes()
        file.write_bytes(content)
        refuses(stored, file.name)
        file.write_bytes(whole)


def test_a_pointer_never_leads_out_of_the_run(stored: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    save(other, make(9))
    pointer = json.loads((other / "last.json").read_text())
    pointer["folder"] = f"../other/checkpoints/{pointer['folder']}"
    (stored / "last.json").write_text(json.dumps(pointer))
    refuses(stored, "a path that leads elsewhere")


def test_a_format_of_the_future_is_named(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "FORMAT", checkpoint.FORMAT + 1)
    save(stored, make(3))
    monkeypatch.undo()
    with pytest.raises(InputError, match="format 2"):
        load(stored)


def test_a_damaged_pointer_to_the_best_is_a_sentence_when_the_next_one_is_saved(stored: Path) -> None:
    (stored / "best.json").write_bytes(b"{")
    try:
        save(stored, make(3))
    except InputError as error:
        assert "best.json" in str(error)
    assert load(stored, "last").meta["step"] in (2, 3)
    save(stored, make(4), best=True)
    assert same(load(stored, "best"), make(4))


# -- whole runs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["char", "word", "bpe"])
def test_damaged_settings_and_tokens_of_a_run_are_sentences(
    tmp_path: Path, corpus: Path, fit: Callable[..., Any], kind: str
) -> None:
    run = tmp_path / "run"
    fit(run, corpus, kind=kind, max_steps=1, vocab_size=260 if kind == "bpe" else 0)
    draw = random.Random(kind)
    for name in ("tokens.json", "config.toml"):
        file = run / name
        whole = file.read_bytes()
        for _ in range(80):
            damaged = bytearray(whole)
            for _ in range(draw.choice((1, 1, 3))):
                damaged[draw.randrange(len(whole))] = draw.randrange(256)
            file.write_bytes(damaged)
            try:
                runs.load(run, device="cpu")
            except InputError as error:
                assert "Traceback" not in str(error)
        for content in (whole[: len(whole) // 2], b"\xff", b"[]", b"{}", b"null", b'{"kind": "other"}'):
            file.write_bytes(content)
            with pytest.raises(InputError):
                runs.load(run, device="cpu")
        file.write_bytes(whole)
    runs.load(run, device="cpu")


def test_weights_of_another_shape_are_refused_with_a_sentence(tmp_path: Path, corpus: Path, fit: Callable[..., Any]) -> None:
    fit(tmp_path / "a", corpus, max_steps=1)
    fit(tmp_path / "b", corpus, max_steps=1, hidden_size=9)
    for name in ("checkpoints", "last.json", "best.json"):
        source, target = tmp_path / "b" / name, tmp_path / "a" / name
        if source.is_dir():
            shutil.rmtree(target)
            shutil.copytree(source, target)
        else:
            shutil.copy(source, target)
    with pytest.raises(InputError, match="do not fit its model") as caught:
        runs.load(tmp_path / "a")
    assert "\n" not in str(caught.value)


def test_a_checkpoint_with_weights_on_another_device_loads_on_the_cpu(tmp_path: Path) -> None:
    save(tmp_path, make(1))
    assert all(t.device.type == "cpu" for group in load(tmp_path).groups.values() for t in group.values())


def test_what_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no run"):
        runs.load(tmp_path / "none")
    with pytest.raises(InputError, match="not a run folder"):
        runs.load(tmp_path)
