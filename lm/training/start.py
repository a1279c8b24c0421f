"""Builds a training: from settings into a new run folder, or from a run folder at its last checkpoint."""

import json
import shlex
import shutil
from collections.abc import Callable, Collection
from dataclasses import Field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recurrent_lm.lm import resources
from recurrent_lm.lm.base.console import say
from recurrent_lm.lm.base.errors import InputError
from recurrent_lm.lm.base.machine import describe_machine
from recurrent_lm.lm.base.settings import flag_of
from recurrent_lm.lm.base.storage import digest, lock, unseal, write_atomic
from recurrent_lm.lm.config import RunConfig, for_little_text, from_toml, preset_file
from recurrent_lm.lm.generation import encode_prompt
from recurrent_lm.lm.model import LanguageModel
from recurrent_lm.lm.runs import checkpoint, logs
from recurrent_lm.lm.runs import folder as runs
from recurrent_lm.lm.text import advice, corpora
from recurrent_lm.lm.text.batches import Batches
from recurrent_lm.lm.text.data import Data, moved, prepare, trained_on
from recurrent_lm.lm.text.tokens import Tokenizer
from recurrent_lm.lm.text.words import word_counts
from recurrent_lm.lm.training import cuda_graph as graph
from recurrent_lm.lm.training import process_group as processes
from recurrent_lm.lm.training.loop import Training


def new_training(
    config: RunConfig, path: Path | None = None, begun: Callable[[Path], object] = lambda folder: None
) -> Training:
    """Start a training in a new run folder with its complete settings and a first checkpoint.

    Settings and corpus are checked before the folder is created. If an error occurs before the first checkpoint is complete,
    the folder is removed again.

    Args:
        config: all settings of the run.
        path: the run folder, which must not exist; None takes runs/NAME.
        begun: called with the folder as soon as it holds all that ``resume`` needs, before another signal can end the process.

    Returns:
        The training before its first update.

    Raises:
        InputError: for settings or a corpus that cannot be trained on, and for a folder that exists.
    """
    processes.check(config)
    source = config.training.init_from
    if source:
        config = config.replace(init_from=str(Path(source).resolve()))
    config = _absolute(config)
    settled, why = resources.settle(config.machine)
    config = replace(config, machine=settled)
    graph.check(config, processes.current().size)
    data = prepare(config, runs.read_settings(Path(source))[1] if source else None)
    Batches(data.train.ids, config.batches.rows, config.batches.bptt)  # too short a text is refused here
    if config.training.valid_rows > len(data.valid.ids):
        raise InputError(
            f"the validation text has {len(data.valid.ids):,} tokens; --valid-rows must be at most that many, not "
            f"{config.training.valid_rows:,}"
        )
    config, why = resources.with_precision(config, why, data.tokenizer.size)
    torch.manual_seed(config.training.seed)
    training = _assemble(config, data, Path(), why)
    model = training.model
    if config.training.sample:
        encode_prompt(runs.Run(Path(), config, data.tokenizer, model, {}), config.training.sample, "--sample")
    if config.model.frequency_bias and not config.model.init_width:
        counts = np.bincount(data.train.ids, minlength=data.tokenizer.size)
        model.know_frequencies(torch.from_numpy(counts).to(training.device))
    if source:
        saved = checkpoint.load(Path(source), "best")
        runs.check_tokens(Path(source), saved.meta)
        runs.load_weights(model, saved, Path(source))
    about = describe_machine() | {"precision": f"{config.machine.precision}: {why}", "corpus": _summary(data)}
    about |= {"parameters": sum(p.numel() for p in model.parameters()), "trimmed_tokens": training.batches.trimmed}
    if (size := processes.current().size) > 1:
        about["processes"] = size
    files = {"config.toml": config.to_toml(), "tokens.json": json.dumps(data.tokenizer.to_json())}
    files["about.json"] = json.dumps(about, indent=1)
    training.notes = advice.of_data(data, config.tokens)
    with training.signals():  # signals wait, so the folder exists with a checkpoint, or not at all
        _begin(training, path, files)
        begun(training.path)
    return training


def train(
    corpus: str | Path | RunConfig,
    path: str | Path | None = None,
    *,
    preset: str = "",
    each_epoch: Callable[[dict[str, Any]], None] | None = None,
    quiet: bool = False,
    **settings: Any,
) -> runs.Run:
    """Train a model on a corpus and return the best one, as ``lm train`` and ``lm.load`` do.

    Args:
        corpus: a corpus's name, a file or a folder; or complete settings, which are then used as they are.
        path: the new run's folder; runs/NAME if left out.
        preset: settings that come with the program, such as "quick-word".
        each_epoch: called after each epoch with its figures as epochs.jsonl has them (``valid_loss``, ``valid_perplexity``,
            ``valid_bits_per_byte``, ..) and with the ``text`` that the model wrote after the ``prompt``.
        quiet: print nothing.
        settings: by the names of the TOML file: ``lr=0.002, cell="gru", kind="char", epochs=5``.

    Returns:
        The best model, as ``lm.load`` returns it.

    Raises:
        InputError: for settings or a text that cannot be trained on, before anything is created.
        Diverged: if a loss or gradient is no longer finite.
    """
    whole = isinstance(corpus, RunConfig)
    base = corpus if isinstance(corpus, RunConfig) else RunConfig()
    if preset and whole:
        raise InputError("give either complete settings or a preset, not both")
    if preset:
        base = from_toml(preset_file(preset))
    given = settings if whole else {"source": str(corpus), **settings}
    training = begin(base.replace(**given), Path(path) if path else None, None if whole or preset else settings)
    if not quiet:
        for note in training.notes:
            say(note)

    def tell(training: Training) -> None:
        if each_epoch and training.journal.latest:
            each_epoch(dict(training.journal.latest))

    training.run(quiet, tell)
    return runs.load(training.path, device=training.config.machine.device)


def begin(
    config: RunConfig,
    path: Path | None,
    given: Collection[str] | None,
    begun: Callable[[Path], object] = lambda folder: None,
) -> Training:
    """``new_training``, with settings that suit little text instead of the defaults.

    Args:
        config, path, begun: as in ``new_training``.
        given: names of settings that the user chose, which stay; None keeps all settings.
    """
    config, sentence = (config, "") if given is None else suited(config, given)
    training = new_training(config, path, begun)
    if sentence:
        training.notes.insert(0, sentence)
    return training


def suited(config: RunConfig, given: Collection[str]) -> tuple[RunConfig, str]:
    """Settings that suit little text instead of the defaults, and a sentence on them.

    They were chosen for words (docs/little-text.md); the corpora that have names are larger.

    Args:
        config: all settings of the run.
        given: names of settings that the user chose, which stay.

    Returns:
        The settings, and the sentence; "" if nothing changes.
    """
    if config.tokens.kind != "word" or config.training.init_from or config.corpus.source in corpora.NAMES:
        return config, ""
    documents = corpora.open_corpus(config.corpus).documents
    words = word_counts((text for _, text in documents), config.tokens.split, config.tokens.lower).total()
    values = {name: value for name, value in for_little_text(words).items() if name not in given}
    if not values:
        return config, ""
    flags = " ".join(_as_flag(f, values[f.name]) for _, f in RunConfig.settings() if f.name in values)
    return config.replace(**values), (
        f"{words:,} words are little text, so these settings replace the defaults: {flags}; give a flag to choose otherwise"
    )


def _begin(training: Training, path: Path | None, files: dict[str, str]) -> None:
    """Create and lock the run folder, and write its files and the first checkpoint; an error removes all of it again."""
    was_there = path is not None and path.exists()
    config = training.config
    folder = runs.create(path, f"{training.data.corpus.name}-{config.tokens.kind}-{config.model.cell}")
    try:
        training.path, training.lock = folder, lock(folder)
    except OSError:
        if not was_there:
            folder.rmdir()
        raise
    try:
        for name, text in files.items():
            write_atomic(folder / name, text.encode())
            training.files[name] = digest(text.encode())
        training.save()
        processes.lead(training)
    except BaseException:
        training.lock.release()
        for file in folder.iterdir():
            shutil.rmtree(file) if file.is_dir() else file.unlink()
        if not was_there:
            folder.rmdir()
        raise


def resume(path: Path, device: str = "", corpus: str = "", **limits: int) -> Training:
    """Continue a training from its last checkpoint.

    Args:
        path: the run folder.
        device: another device than before; "" keeps it.
        corpus: where the text is now, if it was moved; the run remembers it.
        limits: new ``epochs``, ``max_steps`` or ``patience``, with which a finished run continues, too; the run remembers them.

    Returns:
        The training at that checkpoint.

    Raises:
        InputError: if it is finished, damaged, or being trained by another process; nothing is changed then.
    """
    config, tokenizer = runs.read_settings(path)
    if (path / "result.json").exists() and not limits:
        steps = _checked_result(path / "result.json").get("steps")
        most = config.training.max_steps
        wish = ["--max-steps", str(2 * most)] if most and most == steps else ["--epochs", str(2 * config.training.epochs)]
        longer = shlex.join(["lm", "resume", str(path), *wish])
        again = shlex.join(["lm", "train", "--init-from", str(path)])
        raise InputError(f"{path} is finished; to train it longer: {longer}; to begin a new run with its best weights: {again}")
    kept = replace(config.replace(**limits), corpus=moved(config.corpus, corpus))
    config = kept
    if device:
        config = config.replace(device=device, graph=config.machine.graph and device.startswith("cuda"))
    try:
        held = lock(path)
    except OSError as error:
        raise InputError(f"{path} cannot be written to: {error.strerror}; make it writable, or resume a copy of it") from None
    try:
        processes.check(config)
        training = _restored(config, tokenizer, path, corpus)
        if limits:
            _prolong(training, limits)
        if limits or corpus:
            with training.signals():
                _remember(training, kept)
        processes.lead(training)
    except BaseException:
        held.release()
        raise
    training.lock = held
    return training


def _prolong(training: Training, limits: dict[str, int]) -> None:
    """Apply new limits: a patience that has run out starts again, everything else continues.

    No schedule depends on the length of the training: each follows the finished epochs and the validation loss. The learning
    rate therefore continues as it would have in a longer training.

    Raises:
        InputError: if the limits leave nothing to train.
    """
    at, path, wished = training.at, training.path, training.config.training
    if at.epoch >= wished.epochs:
        given = f", not {wished.epochs}" if "epochs" in limits else ""
        raise InputError(f"{path} has {at.epoch} epochs done; to go on, --epochs must be more than that{given}")
    if training.out_of_steps():
        given = f", not {wished.max_steps}" if "max_steps" in limits else ", or 0 for no such limit"
        raise InputError(f"{path} has {at.step} updates done; to go on, --max-steps must be more than that{given}")
    rate = f"the learning rate is {at.lr:.3g}, where the schedule {wished.schedule} has brought it"
    training.notes.append(f"{path} goes on after {at.epoch} epochs and {at.step} updates; {rate}")
    if wished.patience and at.stalled >= wished.patience:
        training.notes.append(f"{at.stalled} epochs without a better validation loss have ended it; patience starts again")
        at.stalled = 0


def _remember(training: Training, config: RunConfig) -> None:
    """Store changed settings, then the checkpoint that refers to them.

    In this order a crash leaves a run that is finished as before, or one that continues with the new settings.
    """
    text = config.to_toml().encode()
    write_atomic(training.path / "config.toml", text)
    (training.path / "result.json").unlink(missing_ok=True)
    training.files["config.toml"] = digest(text)
    training.save()


def follow() -> Training:
    """On another process than the first: build the training that the first process has begun or resumed."""
    return processes.follow(_assemble)


def _restored(config: RunConfig, tokenizer: Tokenizer, path: Path, place: str) -> Training:
    settled, _ = resources.settle(config.machine)
    config = replace(config, machine=settled)
    graph.check(config, processes.current().size)
    saved = checkpoint.load(path, "last")
    runs.check_tokens(path, saved.meta)
    data = trained_on(config, tokenizer, path, saved.meta, place)
    training = _assemble(config, data, path, "as the run was begun")
    if saved.meta.get("data") != training.fingerprint:
        raise InputError(
            f"the corpus of {path} has changed since it was begun; restore the text, name an unchanged copy of it with "
            "--corpus PATH, or begin a new run"
        )
    try:
        training.restore(saved)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"the checkpoint of {path} cannot be resumed ({error}); restore it from a copy") from None
    training.notes = [*runs.edited(path, saved.meta), *_check_logs(training), *_check_best(path)]
    return training


def _check_best(path: Path) -> list[str]:
    """A sentence if the best checkpoint is damaged: a training can continue from its last one, but needs a best one at the end.

    Raises:
        InputError: if no checkpoint can replace it.
    """
    if (path / "best.json").is_dir():
        raise InputError(f"{path / 'best.json'} is a folder, where the best checkpoint's pointer should be; remove it")
    try:
        checkpoint.load(path, "best")
    except InputError as error:
        return [f"{error}, before the training ends without a better one"]
    return []


def _check_logs(training: Training) -> list[str]:
    """Refuse damaged logs; returns sentences on missing ones, which start again."""
    notes = []
    for name, mark in list(training.journal.marks.items()):
        file = training.path / name
        if not file.exists() and mark["bytes"]:
            notes.append(f"{file} is gone, so it holds no record of what was trained before step {training.at.step + 1}")
            del training.journal.marks[name]
        elif file.exists():
            logs.check(file, mark)
    return notes


def _checked_result(file: Path) -> dict[str, Any]:
    try:
        return unseal(file.read_bytes())
    except (ValueError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"{file} is damaged ({reason}); remove it, and lm resume scores the finished model again") from None


def _assemble(config: RunConfig, data: Data, path: Path, why: str) -> Training:
    """Build model and optimizer; an allocation that fails becomes an ``InputError``."""
    with resources.enough_memory(config, data.tokenizer.size, len(data.train.ids)):
        model = LanguageModel(data.tokenizer.size, config.model, config.machine.backend)
        return Training(config, data, path, model, why)


def inherit(config: RunConfig, given: dict[str, Any], named: Collection[str] = (), file: Path | None = None) -> RunConfig:
    """For ``--init-from``: take over the other run's tokens and model, and refuse settings that contradict them.

    Args:
        config: the settings so far.
        given: settings of the command line, by name.
        named: names of the settings in ``file``.
        file: a settings file, named in errors.

    Returns:
        The settings with the other run's tokens and model.

    Raises:
        InputError: for a setting that contradicts the other run.
    """
    path = config.training.init_from
    if not path:
        return config
    source, _ = runs.read_settings(Path(path))
    taken = {
        "tokens": [f.name for f in fields(source.tokens)],
        "model": ["cell", "hidden_size", "embedding_size", "layers", "tie"],
    }
    values: dict[str, Any] = {}
    for section, f in RunConfig.settings():
        if f.name not in taken.get(section, ()):
            continue
        values[f.name] = getattr(getattr(source, section), f.name)
        wanted = given.get(f.name, getattr(getattr(config, section), f.name))
        if wanted != values[f.name] and (f.name in given or f.name in named):
            where = "" if f.name in given else f", [{section}] {f.name} in {file},"
            raise InputError(
                f"{_as_flag(f, wanted)}{where} contradicts --init-from {path}, which has {_as_flag(f, values[f.name])}; "
                "leave it out to take that over"
            )
    return config.replace(**values)


def _as_flag(f: Field[Any], value: object) -> str:
    if isinstance(value, bool):
        return flag_of(f) if value else f"--no-{flag_of(f)[2:]}"
    return f"{flag_of(f)} {value}"


def _absolute(config: RunConfig) -> RunConfig:
    """Paths that are valid in any folder, so that config.toml is, too."""
    paths = {}
    for name in ("source", "train_file", "valid_file", "test_file"):
        value = getattr(config.corpus, name)
        if value and Path(value).exists():
            paths[name] = str(Path(value).resolve())
    if config.corpus.source in corpora.NAMES:
        paths.pop("source", None)
    return config.replace(**paths)


def _summary(data: Data) -> dict[str, object]:
    splits = {name: getattr(data, name) for name in ("train", "valid", "test")}
    return {
        "name": data.corpus.name,
        "documents": len(data.corpus.documents),
        "types": data.tokenizer.size,
        "tokens": {name: len(stream.ids) for name, stream in splits.items()},
        "unknown_tokens": {name: stream.unknown for name, stream in splits.items()},
        "bytes": {name: stream.bytes for name, stream in splits.items()},
        "fingerprint": data.fingerprint(),
        "citation": data.corpus.citation,
    }
