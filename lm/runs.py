"""Run folders: made, listed, and loaded for use.

A run folder holds config.toml (complete), about.json (versions, commit, machine, corpus), tokens.json (the tokenizer),
steps.jsonl and epochs.jsonl (the logs), checkpoints/ with the pointers last.json and best.json, and at the end result.json.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lm import checkpoint, logs, tokens
from lm.config import RunConfig, from_toml
from lm.errors import InputError
from lm.machine import resolve_device
from lm.model import LanguageModel


@dataclass(frozen=True)
class Run:
    """A trained model with its tokenizer, as ``load`` returns it."""

    path: Path
    config: RunConfig
    tokenizer: tokens.Tokenizer
    model: LanguageModel
    meta: dict[str, Any]


def load(path: str | Path, which: str = "best", device: str = "auto") -> Run:
    """A run's model on the device, in evaluation mode, from its ``best`` (or ``last``) checkpoint.

    Raises:
        InputError: when there is no such run, or it is damaged.
    """
    path = Path(path)
    config, tokenizer = read_settings(path)
    saved = checkpoint.load(path, which)
    # Not the backend of the training: that may need a GPU which this machine lacks.
    model = LanguageModel(tokenizer.size, config.model)
    load_weights(model, saved, path)
    return Run(path, config, tokenizer, model.to(resolve_device(device)).eval(), saved.meta)


def load_weights(model: LanguageModel, saved: checkpoint.Checkpoint, path: Path) -> None:
    """Put a checkpoint's weights into a model of the same shape."""
    weights = dict(saved.groups.get("model", {}))
    if model.config.tie and "embedding.weight" in weights:
        weights["decoder.weight"] = weights["embedding.weight"]
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        first = str(error).splitlines()[-1].strip()
        raise InputError(f"the weights of {path} do not fit its model: {first}") from None


def weights_of(model: LanguageModel) -> dict[str, torch.Tensor]:
    """The model's tensors, a shared one once."""
    weights = model.state_dict()
    if model.config.tie:
        del weights["decoder.weight"]
    return weights


def read_settings(path: Path) -> tuple[RunConfig, tokens.Tokenizer]:
    """A run's complete settings and its tokenizer."""
    if not path.is_dir():
        raise InputError(f"there is no run {path}; lm runs lists the runs, lm train makes one")
    if not (path / "config.toml").exists():
        raise InputError(f"{path} is not a run folder: it holds no config.toml; lm runs lists the runs")
    file = path / "tokens.json"
    try:
        return from_toml(path / "config.toml"), tokens.from_json(json.loads(file.read_text(encoding="utf-8")))
    except InputError:
        raise
    except Exception as error:  # whatever a damaged file makes a parser say
        raise InputError(f"{file} is damaged or foreign ({type(error).__name__}: {error}); restore it from a copy") from None


def create(path: Path | None, name: str) -> Path:
    """A new run folder: ``path``, which must not exist or be empty, or runs/NAME with a number where it is taken."""
    try:
        if path is not None:
            if path.exists() and (not path.is_dir() or any(path.iterdir())):
                raise InputError(f"{path} exists already; choose another --run, or go on with it: lm resume {path}")
            path.mkdir(parents=True, exist_ok=True)
            return path
        for number in range(1, 100_000):
            path = Path("runs") / (name if number == 1 else f"{name}-{number}")
            try:
                path.mkdir(parents=True)
                return path
            except FileExistsError:
                continue
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"the run folder {path} cannot be made: {error.strerror}; choose another with --run") from None
    raise InputError(f"runs/{name} exists 100,000 times; choose a name with --run")


def summaries(folder: Path) -> Iterator[dict[str, Any]]:
    """One row a run below ``folder``, oldest first: name, settings, steps, best validation figures, state."""
    found = [p.parent for p in folder.rglob("config.toml") if (p.parent / "about.json").exists()]
    for path in sorted(found, key=lambda p: (p / "config.toml").stat().st_mtime):
        try:
            config = from_toml(path / "config.toml")
            about = json.loads((path / "about.json").read_text())
        except (InputError, OSError, ValueError) as error:
            yield {"run": str(path), "state": f"damaged: {error}"}
            continue
        epochs = list(logs.read(path / "epochs.jsonl"))
        best = min(epochs, key=lambda r: r["valid_loss"], default={})
        yield {
            "run": str(path),
            "corpus": about.get("corpus", {}).get("name", ""),
            "tokens": config.tokens.kind,
            "types": about.get("corpus", {}).get("types"),
            "model": f"{config.model.cell} {config.model.layers}x{config.model.hidden_size}",
            "parameters": about.get("parameters"),
            "epochs": len(epochs),
            "best_epoch": best.get("epoch"),
            "perplexity": best.get("valid_perplexity"),
            "bits_per_byte": best.get("valid_bits_per_byte"),
            **_tested(path / "result.json"),
            "seconds": round(sum(r["seconds"] for r in epochs), 1),
            "command": about.get("command"),
            "commit": about.get("commit"),
        }


def _tested(file: Path) -> dict[str, Any]:
    """The test split's figures of a finished run."""
    try:
        test = json.loads(file.read_bytes())["test"]
        return {"state": "done", "test_perplexity": test["perplexity"], "test_bits_per_byte": test["bits_per_byte"]}
    except FileNotFoundError:
        return {"state": "unfinished", "test_perplexity": None, "test_bits_per_byte": None}
    except (ValueError, KeyError, TypeError):
        return {"state": "damaged result.json", "test_perplexity": None, "test_bits_per_byte": None}
