"""Run folders: created, listed, and loaded.

A run folder holds config.toml (complete), about.json (versions, commit, machine, corpus), tokens.json (the tokenizer), the
logs steps.jsonl, epochs.jsonl and samples.jsonl (texts of the model), checkpoints/ with the pointers last.json and best.json,
and at the end result.json, or diverged.json; with --on-divergence rollback also the pointer good.json and the log
rollbacks.jsonl. Checkpoints store the digests of the files written before them, so that damage is found. A training holds the
lock on .lock while it may write.
"""

import json
import shlex
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from recurrent_lm.lm.base.errors import InputError
from recurrent_lm.lm.base.machine import resolve_device
from recurrent_lm.lm.base.storage import digest, unseal
from recurrent_lm.lm.config import RunConfig, from_toml, read_toml
from recurrent_lm.lm.model import LanguageModel
from recurrent_lm.lm.runs import checkpoint, logs
from recurrent_lm.lm.text import tokens

PARTS = ("config.toml", "about.json", "last.json")  # two of them identify a run, also if one is missing


@dataclass(frozen=True)
class Run:
    """A trained model with its tokenizer, from ``load``."""

    path: Path
    config: RunConfig
    tokenizer: tokens.Tokenizer
    model: LanguageModel
    meta: dict[str, Any]

    def __str__(self) -> str:
        """Five lines: the model, its text, its tokens, its training, its validation."""
        c, about = self.config, self.path / "about.json"
        corpus = _object(about).get("corpus", {}) if about.exists() else {}
        epochs = list(logs.read(self.path / "epochs.jsonl"))
        best = min(epochs, key=lambda record: record["valid_loss"], default=None)
        share = _share(corpus, "valid")
        return "\n".join(
            [
                f"{self.path}: {c.model.layers} x {c.model.cell}, {c.model.hidden_size} units, embeddings of {c.model.d}, "
                f"{'tied' if c.model.tie else 'not tied'}, {sum(p.numel() for p in self.model.parameters()):,} parameters",
                f"text: {corpus.get('name', 'unknown')}, {corpus.get('tokens', {}).get('train', 0):,} tokens to train on",
                f"tokens: {c.tokens.kind}, |V| = {self.tokenizer.size:,}"
                + (f", {share:.1%} of the validation tokens unknown" if share is not None else ""),
                f"trained: {len(epochs)} epochs, {epochs[-1]['step']:,} updates, the best after epoch {best['epoch']}"
                if best
                else "trained: no epoch yet",
                f"validation: {best['valid_loss']:.4f} nats a token, perplexity {best['valid_perplexity']:,.2f}, "
                f"{best['valid_bits_per_byte']:.3f} bits per byte"
                if best
                else "validation: none yet",
            ]
        )

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"


def load(path: str | Path, which: str = "best", device: str = "auto") -> Run:
    """Load a run's model in evaluation mode.

    Args:
        path: the run folder, or one that holds a single run.
        which: the "best" or the "last" checkpoint.
        device: auto, cpu, cuda or cuda:N.

    Returns:
        The model with its tokenizer, settings and records.

    Raises:
        InputError: if there is no such run, or it is damaged.
    """
    path = only_run(Path(path))
    config, tokenizer = read_settings(path)
    saved = checkpoint.load(path, which)
    check_tokens(path, saved.meta)
    # Not the backend of the training: that may need a GPU which this machine lacks.
    model = LanguageModel(tokenizer.size, config.model)
    load_weights(model, saved, path)
    return Run(path, config, tokenizer, model.to(resolve_device(device)).eval(), saved.meta)


def runs_in(path: Path) -> list[Path]:
    """Find runs.

    Args:
        path: a run folder, or a folder of run folders.

    Returns:
        The run itself, or the runs directly in the folder in name order; ``path`` itself if there is none.
    """
    if is_run(path) or not path.is_dir():
        return [path]
    return sorted(p for p in path.iterdir() if is_run(p)) or [path]


def only_run(path: Path) -> Path:
    """The run that a folder is, or the only one right in it.

    Raises:
        InputError: for a folder of several runs, which it names.
    """
    inside = runs_in(path)
    if len(inside) > 1:
        names = ", ".join(str(p) for p in inside[:4]) + (f" and {len(inside) - 4} more" if len(inside) > 4 else "")
        raise InputError(f"{path} holds {len(inside)} runs: {names}; name one of them")
    return inside[0]


def load_weights(model: LanguageModel, saved: checkpoint.Checkpoint, path: Path) -> None:
    """Copy a checkpoint's weights into a model of the same shape."""
    weights = dict(saved.groups.get("model", {}))
    if model.config.tie and "embedding.weight" in weights:
        weights["decoder.weight"] = weights["embedding.weight"]
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        first = str(error).splitlines()[-1].strip()
        raise InputError(f"the weights of {path} do not fit its model: {first}") from None


def weights_of(model: LanguageModel) -> dict[str, torch.Tensor]:
    """The model's tensors by name, shared ones once."""
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
        config, named = read_toml(path / "config.toml")
        if "backend" not in named:  # the last setting of the file, which a run's own always holds
            raise InputError(f"{path / 'config.toml'} is cut off; restore it from a copy")
        return config, tokens.from_json(json.loads(file.read_text(encoding="utf-8")))
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}; see to its permissions or restore it") from None
    except Exception as error:  # a parser may raise anything on a damaged file
        raise InputError(f"{file} is damaged or foreign ({type(error).__name__}: {error}); restore it from a copy") from None


def check_tokens(path: Path, meta: dict[str, Any]) -> None:
    """Refuse a tokenizer that differs from the one in the run's checkpoints."""
    if changed(path / "tokens.json", meta):
        raise InputError(f"{path / 'tokens.json'} is damaged: it is not what was written; restore it from a copy")


def edited(path: Path, meta: dict[str, Any]) -> list[str]:
    """A sentence if the settings were edited since the run began, which is no error."""
    file = path / "config.toml"
    if not changed(file, meta):
        return []
    with suppress(InputError):  # lm resume --epochs changes it behind the best checkpoint; the last one knows
        if not changed(file, checkpoint.meta(path)):
            return []
    return [f"{file} has changed since the run was begun; it is read as it is now"]


def changed(file: Path, meta: dict[str, Any]) -> bool:
    """Whether a file of a run differs from its state at the beginning; older runs did not record it."""
    begun = meta.get("files", {}).get(file.name)
    return begun is not None and digest(file.read_bytes()) != begun


def create(path: Path | None, name: str) -> Path:
    """Create a run folder: ``path``, which must not exist or be empty, or runs/NAME with a number if that is taken."""
    try:
        if path is not None:
            if path.exists() and (not path.is_dir() or any(path.iterdir())):
                go_on = f", or go on with it: {shlex.join(['lm', 'resume', str(path)])}" if is_run(path) else ""
                raise InputError(f"{path} exists already{'' if go_on else ' and is no run'}; choose another --run{go_on}")
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


def is_run(path: Path) -> bool:
    """Whether a folder is a run, intact or damaged."""
    return (path / "config.toml").exists() and (path / "about.json").exists()


def summaries(folder: Path) -> Iterator[dict[str, Any]]:
    """One row for each run below ``folder``, oldest first: name, settings, steps, best validation figures, state.

    For a run that cannot be read, ``state`` names the damage and the other columns are missing.
    """
    folders = {p.parent for name in PARTS for p in folder.rglob(name) if sum((p.parent / n).exists() for n in PARTS) > 1}
    for path in sorted(folders, key=lambda p: (min((p / n).stat().st_mtime for n in PARTS if (p / n).exists()), p)):
        try:
            yield {"run": str(path), **_summary(path)}
        except (ValueError, TypeError, OSError, RecursionError) as error:  # what damaged files make of the lines below
            yield {"run": str(path), "state": f"damaged: {error}"}


def _summary(path: Path) -> dict[str, Any]:
    config = from_toml(path / "config.toml")
    about = _object(path / "about.json")
    corpus = about.get("corpus", {})
    if not isinstance(corpus, dict):
        raise ValueError("about.json says nothing of a corpus")
    epochs = list(logs.read(path / "epochs.jsonl"))
    for record in epochs:
        _numbers(record, "epochs.jsonl", "epoch", "valid_loss", "valid_perplexity", "valid_bits_per_byte", "seconds")
    meta = _meta(path)
    for name in ("about.json", "tokens.json"):
        if changed(path / name, meta):
            raise ValueError(f"{name} is not what was written")
    if mark := meta.get("logs", {}).get("epochs.jsonl"):
        logs.check(path / "epochs.jsonl", mark)
    counted = [record["epoch"] for record in epochs]  # a log that was removed begins anew later
    if counted != [counted[0] + n for n in range(len(counted))]:
        raise ValueError("the epochs in epochs.jsonl do not follow each other")
    best = min(epochs, key=lambda r: r["valid_loss"], default={})
    return {
        "corpus": corpus.get("name", ""),
        "tokens": config.tokens.kind,
        "types": corpus.get("types"),
        "model": f"{config.model.cell} {config.model.layers}x{config.model.hidden_size}",
        "parameters": about.get("parameters"),
        "epochs": len(epochs),
        "best_epoch": best.get("epoch"),
        "perplexity": best.get("valid_perplexity"),
        "unknown": _share(corpus, "valid"),
        "bits_per_byte": best.get("valid_bits_per_byte"),
        **_tested(path / "result.json", meta),
        "seconds": round(sum(r["seconds"] for r in epochs), 1),
        "command": about.get("command"),
        "commit": about.get("commit"),
    }


def _share(corpus: dict[str, Any], split: str) -> float | None:
    """Share of a split's tokens that the vocabulary lacks; older runs did not record it."""
    try:
        return float(corpus["unknown_tokens"][split] / max(corpus["tokens"][split], 1))
    except (KeyError, TypeError):
        return None


def _meta(path: Path) -> dict[str, Any]:
    """The JSON object of the last checkpoint, which a running training may remove while it is read."""
    for _ in range(3):
        with suppress(InputError):
            return checkpoint.meta(path)
    return checkpoint.meta(path)


def _tested(file: Path, meta: dict[str, Any]) -> dict[str, Any]:
    """The test split's figures of a finished run."""
    perplexity = bits = None
    remark = ", config.toml was edited" if edited(file.parent, meta) else ""
    state = f"unfinished{remark}"
    if file.exists():
        try:
            content = _object(file)
            test: Any = content.get("test")
            _numbers(test, file.name, "perplexity", "bits_per_byte")
            if content.get("config", known := meta.get("files", {}).get("config.toml")) != known:
                raise ValueError(f"{file.name} is of another run")
            state, perplexity, bits = f"done{remark}", test["perplexity"], test["bits_per_byte"]
        except (ValueError, OSError) as error:
            state = f"damaged: {error}"
    return {"state": state, "test_perplexity": perplexity, "test_bits_per_byte": bits}


def _object(file: Path) -> dict[str, Any]:
    try:
        return unseal(file.read_bytes())
    except ValueError as error:
        raise ValueError(f"{file.name} {error}") from None


def _numbers(record: Any, file: str, *names: str) -> None:
    """Refuse a record of a file that lacks one of these figures."""
    for name in names:
        value = record.get(name) if isinstance(record, dict) else None
        if type(value) is not float and (type(value) is not int or value.bit_length() > 1000):
            raise ValueError(f"{name} in {file} is no number")
