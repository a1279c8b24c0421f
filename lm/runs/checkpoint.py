"""Checkpoints in safetensors and JSON, written so that a crash at any moment leaves the previous one intact.

A checkpoint is a folder. It is written under a temporary name, synced and renamed; then a pointer file, ``last.json``,
``best.json`` or ``good.json``, is replaced. The folder's ``state.json`` has each file's SHA-256, and the pointer that of
``state.json``.
"""

import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from recurrent_lm.lm.base.errors import InputError
from recurrent_lm.lm.base.storage import digest, sync, write_atomic, write_synced

FORMAT = 1
POINTERS = ("last", "best", "good")
OURS = re.compile(r"step-\d+(\.\d+)?|\.step-\d+(\.\d+)?\.tmp")  # what ``save`` makes; nothing else is ever removed
Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """Named groups of tensors ("model", "optimizer", "state") and a JSON object."""

    groups: dict[str, Tensors]
    meta: dict[str, Any]


def save(run: Path, checkpoint: Checkpoint, best: bool = False) -> None:
    """Store a checkpoint as the run's last and, if asked, its best; checkpoints without a pointer are removed."""
    folder = run / "checkpoints"
    folder.mkdir(exist_ok=True)
    name = f"step-{checkpoint.meta['step']:08d}"
    taken = {p.name for p in folder.iterdir()}
    name = next(n for n in (name, *(f"{name}.{i}" for i in range(1, len(taken) + 2))) if n not in taken)
    temporary = folder / f".{name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        digests = {}
        for group, tensors in checkpoint.groups.items():
            data = save_tensors({k: t.detach().cpu().clone(memory_format=torch.contiguous_format) for k, t in tensors.items()})
            write_synced(temporary / f"{group}.safetensors", data)
            digests[group] = digest(data)
        state = json.dumps({"format": FORMAT, "groups": digests, "meta": checkpoint.meta}, indent=1).encode()
        write_synced(temporary / "state.json", state)
        sync(temporary)
        os.rename(temporary, folder / name)
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync(folder)
    pointer = json.dumps({"folder": name, "sha256": digest(state)}).encode()
    for which in ("best", "last") if best else ("last",):
        write_atomic(run / f"{which}.json", pointer)
    _prune(run, folder)


def keep_as_good(run: Path) -> None:
    """Point ``good`` to the last checkpoint and keep that one until ``good`` moves on."""
    write_atomic(run / "good.json", (run / "last.json").read_bytes())


def load(run: Path, which: str = "last") -> Checkpoint:
    """Read the run's ``last``, ``best`` or ``good`` checkpoint onto the CPU; before any validation ``best`` is the last one.

    Raises:
        InputError: if there is none, or it is damaged or foreign.
    """
    return _read(run, which, whole=True)


def meta(run: Path) -> dict[str, Any]:
    """The JSON object of the last checkpoint, without its tensors."""
    return _read(run, "last", whole=False).meta


def _read(run: Path, which: str, whole: bool) -> Checkpoint:
    pointer = run / f"{which}.json"
    fallen_back = which == "best" and not pointer.exists()
    if fallen_back:
        pointer = run / "last.json"
    if not pointer.exists():
        raise InputError(f"{run} holds no checkpoint; it is no run folder, or its training ended before the first save")
    try:
        target = json.loads(pointer.read_bytes())
        folder = run / "checkpoints" / Path(str(target["folder"])).name
        state = _verified(folder / "state.json", target["sha256"])
        content = json.loads(state)
        if content["format"] != FORMAT:
            raise InputError(f"{folder} has checkpoint format {content['format']}, not {FORMAT}; use the version that wrote it")
        position = content["meta"].get("position") or {}
        if fallen_back and position.get("best_epoch"):
            raise InputError(f"{run / 'best.json'}, which names the best checkpoint, is missing; restore it from a copy")
        ends_best = position.get("best_epoch") == position.get("epoch") and not position.get("batch")
        if which == "best" and not fallen_back and not ends_best:
            raise InputError(f"{pointer} is damaged: it names a checkpoint that is not the best; restore it from a copy")
        groups = {}
        for group, expected in content["groups"].items() if whole else ():
            groups[group] = load_tensors(_verified(folder / f"{group}.safetensors", expected))
        return Checkpoint(groups, content["meta"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"the checkpoint that {pointer} names is damaged or foreign ({error}); restore it from a copy"
        ) from None


def _verified(file: Path, expected: str) -> bytes:
    data = file.read_bytes()
    if digest(data) != expected:
        raise InputError(f"{file} is damaged: its content does not match its checksum; restore it from a copy")
    return data


def _prune(run: Path, folder: Path) -> None:
    try:
        named = {json.loads(p.read_bytes())["folder"] for p in (run / f"{which}.json" for which in POINTERS) if p.exists()}
    except (ValueError, KeyError, TypeError):
        return  # the target of a damaged pointer is unknown, so nothing is removed
    for old in folder.iterdir():
        if old.name not in named and OURS.fullmatch(old.name):
            shutil.rmtree(old, ignore_errors=True)
