"""A training put together: from settings to a new run folder, or from a run folder back to where it stood."""

import json
import shutil
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import torch

from lm import checkpoint, machine, runs
from lm.config import RunConfig
from lm.data import Data, prepare
from lm.errors import InputError
from lm.model import LanguageModel
from lm.streams import Batches
from lm.train import Training


def new_training(config: RunConfig, path: Path | None = None) -> Training:
    """A training at its first step, in a new run folder that holds its complete settings.

    Everything that can be wrong with the settings or the corpus is found before the folder is made.
    """
    source = config.training.init_from
    if source:
        config = config.replace(init_from=str(Path(source).resolve()))
    config = _absolute(config)
    settled, why = machine.settle(config.machine)
    config = replace(config, machine=settled)
    data = prepare(config, runs.read_settings(Path(source))[1] if source else None)
    Batches(data.train.ids, config.batches.rows, config.batches.bptt)  # too short a text is refused here
    torch.manual_seed(config.training.seed)
    model = LanguageModel(data.tokenizer.size, config.model, config.machine.backend)
    if not config.model.init_width:
        counts = np.bincount(data.train.ids, minlength=data.tokenizer.size)
        model.know_frequencies(torch.from_numpy(counts))
    if source:
        runs.load_weights(model, checkpoint.load(Path(source), "best"), Path(source))
    path = runs.create(path, f"{data.corpus.name}-{config.tokens.kind}-{config.model.cell}")
    training = Training(config, data, path, model)
    about = machine.describe_machine() | {"precision": f"{settled.precision}: {why}", "corpus": _summary(data)}
    about |= {"parameters": sum(p.numel() for p in model.parameters()), "trimmed_tokens": training.batches.trimmed}
    files = {"config.toml": config.to_toml(), "tokens.json": json.dumps(data.tokenizer.to_json())}
    files["about.json"] = json.dumps(about, indent=1)
    try:
        for name, text in files.items():
            checkpoint.write_atomic(path / name, text.encode())
    except OSError:
        shutil.rmtree(path, ignore_errors=True)  # it is new, and no run yet
        raise
    return training


def resume(path: Path, device: str = "") -> Training:
    """A training where its last checkpoint left it, on its own device or another."""
    config, tokenizer = runs.read_settings(path)
    if (path / "result.json").exists():
        raise InputError(f"{path} is finished; to go on from its best weights: lm train --init-from {path}")
    if device:
        config = config.replace(device=device)
    settled, _ = machine.settle(config.machine)
    config = replace(config, machine=settled)
    saved = checkpoint.load(path, "last")
    data = prepare(config, tokenizer)
    training = Training(config, data, path, LanguageModel(tokenizer.size, config.model, config.machine.backend))
    if saved.meta.get("data") != training.fingerprint:
        raise InputError(f"the corpus of {path} has changed since it was begun; restore the text, or begin a new run")
    try:
        training.restore(saved)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"the checkpoint of {path} cannot be resumed from ({error}); restore it from a copy") from None
    return training


def inherit(config: RunConfig, given: dict[str, object]) -> RunConfig:
    """For ``--init-from``: the other run's tokens and model are taken over; a flag that contradicts them is refused."""
    if not config.training.init_from:
        return config
    source, _ = runs.read_settings(Path(config.training.init_from))
    shape = {f.name: getattr(source.tokens, f.name) for f in fields(source.tokens)}
    shape |= {name: getattr(source.model, name) for name in ("cell", "hidden_size", "embedding_size", "layers", "tie")}
    for name, value in shape.items():
        if name in given and given[name] != value:
            raise InputError(
                f"--init-from {config.training.init_from} has {name} = {value!r}; leave {name} out to take it over"
            )
    return config.replace(**shape)


def _absolute(config: RunConfig) -> RunConfig:
    """Paths that mean the same from any folder, so that config.toml does too."""
    paths = {}
    for name in ("source", "train_file", "valid_file", "test_file"):
        value = getattr(config.corpus, name)
        if value and Path(value).exists():
            paths[name] = str(Path(value).resolve())
    if config.corpus.source in ("obama", "trump", "sotu"):
        paths.pop("source", None)
    return config.replace(**paths)


def _summary(data: Data) -> dict[str, object]:
    splits = {name: getattr(data, name) for name in ("train", "valid", "test")}
    return {
        "name": data.corpus.name,
        "documents": len(data.corpus.documents),
        "types": data.tokenizer.size,
        "tokens": {name: len(stream.ids) for name, stream in splits.items()},
        "bytes": {name: stream.bytes for name, stream in splits.items()},
        "fingerprint": data.fingerprint(),
        "citation": data.corpus.citation,
    }
