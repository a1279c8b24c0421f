"""Every setting of a run: one frozen dataclass a concern, each field with its default, its flag and the reason for it.

The command line and the TOML file are both made from these fields, so a setting is written down once.
"""

import math
import re
import tomllib
from collections.abc import Iterator
from dataclasses import Field, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from recurrent_lm.lm.base.errors import InputError
from recurrent_lm.lm.commands.usual import meant

CELLS = ("rnn-tanh", "rnn-relu", "rnn-sigmoid", "lstm", "gru")


def setting(default: Any, why: str, flag: str = "", choices: tuple[str, ...] = ()) -> Any:
    """A field with its help line; ``flag`` only where the command line uses another name."""
    return field(default=default, metadata={"why": why, "flag": flag, "choices": choices})


@dataclass(frozen=True)
class _Checked:
    """Types and choices are checked where a value arrives, so a wrong one never reaches the training."""

    def __post_init__(self) -> None:
        for f in fields(self):
            value, kind = getattr(self, f.name), type(f.default)
            if kind is float and type(value) is int:
                value = float(value) if abs(value) < 2**1000 else math.inf
                object.__setattr__(self, f.name, value)
            elif type(value) is not kind:
                raise InputError(f"{flag_of(f)} must be {_KINDS[kind]}, not {shown(value)}")
            if kind is float and not math.isfinite(value):
                raise InputError(f"{flag_of(f)} must be finite, not {value}")
            choices = f.metadata["choices"]
            if choices and value not in choices:
                raise InputError(f"{flag_of(f)} must be one of {', '.join(choices)}, not {shown(value)}")
        self.check()

    def check(self) -> None:
        """Ranges, and settings that exclude each other."""

    def between(self, low: float, high: float, *names: str) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if f.name in names and not low <= value <= high:
                bound = f"at least {low:,}" if value < low else f"at most {high:,}"
                raise InputError(f"{flag_of(f)} must be {bound}, not {shown(value)}")

    def probability(self, *names: str) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if f.name in names and not 0 <= value < 1:
                raise InputError(f"{flag_of(f)} must be at least 0 and less than 1, not {value}")


_KINDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
MANY = 10**9  # of epochs, updates, occurrences: more than any training sees, and every library takes it
PRESETS = Path(__file__).parent / "presets"
LARGE = 10**6  # of rates and factors: beyond it float32 overflows at once


def shown(value: Any) -> str:
    """A value as an error names it, short enough for a sentence."""
    if type(value) is int and value.bit_length() > 128:
        return "a number of more than 38 digits"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:50]}..."


def flag_of(f: Any) -> str:
    """The command line's name of a field."""
    return f.metadata["flag"] or "--" + f.name.replace("_", "-")


@dataclass(frozen=True)
class CorpusConfig(_Checked):
    """Where the text comes from."""

    source: str = setting(
        "",
        "obama, another name of lm corpora list, a text file, or a folder of .txt files (./obama for one of that name)",
        flag="CORPUS",
    )
    train_file: str = setting("", "text to train on, for data that is split already", flag="--train")
    valid_file: str = setting("", "its validation text", flag="--valid")
    test_file: str = setting("", "its test text", flag="--test")
    eos_at_newline: bool = setting(False, "every line is a document of its own, as benchmark files count it")
    encoding: str = setting("utf-8", "how the files are encoded")

    def check(self) -> None:
        files = (self.train_file, self.valid_file, self.test_file)
        if self.source and any(files):
            raise InputError("give either a CORPUS or --train, --valid and --test, not both")
        if any(files) and not all(files):
            raise InputError("--train, --valid and --test belong together; one of them is missing")


@dataclass(frozen=True)
class TokensConfig(_Checked):
    """What a token is."""

    kind: str = setting("word", "what a token is: char, word or bpe", flag="--tokens", choices=("char", "word", "bpe"))
    split: str = setting(
        "punctuation",
        "how words are cut: punctuation apart, or at spaces only for text that is tokenised already",
        flag="--split-words",
        choices=("punctuation", "spaces"),
    )
    lower: bool = setting(False, "lower-case the text first (word)")
    min_count: int = setting(
        2,
        "types seen fewer times are unknown: words become <unk>, characters are spelled in bytes; 1 keeps all "
        "(bpe: pairs seen fewer times are not merged)",
    )
    vocab_size: int = setting(0, "keep at most this many types; 0 keeps all (word, char) or makes 1000 (bpe)")

    def check(self) -> None:
        self.between(1, MANY, "min_count")
        self.between(0, 10**6, "vocab_size")
        if self.split != "punctuation" and self.kind != "word":
            raise InputError("--split-words goes with --tokens word only: char and bpe do not cut words")
        if self.lower and self.kind != "word":
            raise InputError("--lower goes with --tokens word only: char and bpe give the text back exactly")
        if self.kind == "bpe" and 0 < self.vocab_size < 257:
            raise InputError("--vocab-size for bpe must be at least 257: 256 bytes and <eos>")


@dataclass(frozen=True)
class BatchConfig(_Checked):
    """The lecture's [k, L] batches."""

    rows: int = setting(20, "k: sub-corpora read in parallel")
    bptt: int = setting(35, "L: steps in a batch, and so how far back gradients flow")
    state: str = setting(
        "epoch", "when the carried state is set to zero: epoch, document or never", choices=("epoch", "document", "never")
    )

    def check(self) -> None:
        self.between(1, 10**6, "rows", "bptt")


@dataclass(frozen=True)
class ModelConfig(_Checked):
    """Embedding, recurrence, decoder."""

    cell: str = setting("lstm", "the recurrent cell: " + ", ".join(CELLS), choices=CELLS)
    hidden_size: int = setting(256, "h: hidden units a layer")
    embedding_size: int = setting(0, "d: size of an embedding; 0 takes the hidden size")
    layers: int = setting(1, "recurrent layers; small corpora rarely repay a second")
    tie: bool = setting(True, "the decoder uses the embedding's weights, through a projection where d and h differ")
    dropout: float = setting(0.4, "share of inputs and outputs of each layer that is dropped")
    locked: bool = setting(True, "one dropout mask for a whole sequence (Gal & Ghahramani 2016)")
    embedding_dropout: float = setting(0.0, "share of word types whose embedding is dropped in a batch")
    weight_drop: float = setting(0.0, "share of W_h that is dropped, once a batch (Merity et al. 2018)")
    init_width: float = setting(0.0, "draw every weight from U(-w, w); 0 keeps each layer's own initialisation")
    forget_bias: float = setting(
        0.0, "added to the forget gate's initial bias (LSTM); 1 remembers at first (Gers et al. 2000), with no gain on speeches"
    )
    frequency_bias: bool = setting(
        True, "begin with the decoder's bias at the log frequencies of the training text; never with --init-width"
    )

    def check(self) -> None:
        self.between(1, 10**5, "hidden_size")
        self.between(0, 10**5, "embedding_size")
        self.between(1, 100, "layers")
        self.between(0, 100, "init_width")
        self.between(-100, 100, "forget_bias")
        self.probability("dropout", "embedding_dropout", "weight_drop")

    @property
    def d(self) -> int:
        """The embedding size in force."""
        return self.embedding_size or self.hidden_size


@dataclass(frozen=True)
class TrainingConfig(_Checked):
    """How the weights move."""

    optimizer: str = setting("adam", "sgd (the lecture's), adam or adamw", choices=("sgd", "adam", "adamw"))
    lr: float = setting(0.003, "learning rate; SGD without momentum wants 1 to 20")
    schedule: str = setting(
        "plateau",
        "constant; plateau divides the rate when validation stalls; decay divides it every epoch after --decay-after",
        choices=("constant", "plateau", "decay"),
    )
    decay_factor: float = setting(4.0, "what the rate is divided by")
    decay_after: int = setting(4, "last epoch at the full rate, for the schedule decay")
    weight_decay: float = setting(0.0, "L2 penalty (sgd, adam) or decoupled decay (adamw)")
    average: float = setting(
        0.0,
        "share that a running average of the weights keeps at each update; it is the average that is validated and kept. "
        "0 takes the weights as they are; 0.99 to 0.999 help on little text",
    )
    clip: str = setting("norm:1", "norm:THRESHOLD, value:THRESHOLD or none; norm is Algorithm 1 of Pascanu et al. 2013")
    on_divergence: str = setting(
        "stop", "stop; rollback goes on from the last good checkpoint with half the learning rate", choices=("stop", "rollback")
    )
    epochs: int = setting(40, "passes over the training text at most")
    max_steps: int = setting(0, "stop after this many updates; 0 for no such limit")
    patience: int = setting(3, "stop after this many epochs without a better validation loss; 0 never stops early")
    valid_rows: int = setting(1, "rows read in parallel when validating; 1 reads the text as one whole, as it is scored")
    seed: int = setting(1, "seed of initial weights and dropout masks")
    init_from: str = setting("", "a run whose vocabulary, model and best weights to start from")
    checkpoint_every: int = setting(500, "updates between checkpoints within an epoch; one is made at each epoch's end too")

    def check(self) -> None:
        self.between(1, MANY, "epochs", "checkpoint_every")
        self.between(0, MANY, "max_steps", "patience", "decay_after")
        self.between(1, 10**4, "valid_rows")
        if not self.lr > 0:
            raise InputError(f"--lr must be greater than 0, not {self.lr}")
        if not self.decay_factor > 1:
            raise InputError(f"--decay-factor must be greater than 1, not {self.decay_factor}")
        self.between(0, LARGE, "lr", "weight_decay", "decay_factor")
        self.probability("average")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"--seed must be at least 0 and less than 2**63, not {shown(self.seed)}")
        parse_clip(self.clip)


@dataclass(frozen=True)
class MachineConfig(_Checked):
    """Where and how precisely the numbers are computed."""

    device: str = setting("auto", "cpu, cuda, cuda:N; auto takes a GPU where there is one")
    threads: int = setting(
        0, "CPU threads; 0 takes one a core. Bits repeat with the same number, which a run keeps; not with another"
    )
    precision: str = setting(
        "auto",
        "products in float32 or bf16, with float32 sums in the layers; auto takes bf16 where a trial of both shows it faster",
        choices=("auto", "float32", "bf16"),
    )
    backend: str = setting("auto", "implementation of the recurrence and loss: auto, eager, torch or triton")
    graph: bool = setting(False, "on a GPU: replay each update as one CUDA graph, and read its loss while the next one runs")

    def check(self) -> None:
        self.between(0, 1024, "threads")
        check_device(self.device)


def check_device(name: str) -> None:
    """Refuse what is no device's name."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", name):
        raise InputError(f"--device must be auto, cpu, cuda or cuda:N, not {shown(name)}")


def parse_clip(text: str) -> tuple[str, float]:
    """("norm" | "value" | "none", threshold)."""
    kind, _, threshold = text.partition(":")
    if text == "none":
        return "none", float("inf")
    try:
        value = float(threshold)
    except ValueError:
        value = 0.0
    if kind in ("norm", "value") and value == float("inf"):
        raise InputError(f"--clip {text} clips nothing; say none, or give a finite threshold")
    if kind not in ("norm", "value") or not value > 0:
        raise InputError(f"--clip must be norm:THRESHOLD, value:THRESHOLD or none, such as norm:0.25, not {shown(text)}")
    return kind, value


@dataclass(frozen=True)
class RunConfig:
    """A whole run. ``to_toml`` and ``from_toml`` are inverse to each other."""

    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    tokens: TokensConfig = field(default_factory=TokensConfig)
    batches: BatchConfig = field(default_factory=BatchConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    machine: MachineConfig = field(default_factory=MachineConfig)

    def to_toml(self) -> str:
        import tomli_w

        return tomli_w.dumps(asdict(self))

    @staticmethod
    def settings() -> Iterator[tuple[str, Field[Any]]]:
        """(section, field) of every setting; their names are unique across the sections."""
        return ((section.name, f) for section in fields(RunConfig) for f in fields(section.type))  # type: ignore[arg-type]

    def replace(self, **values: Any) -> "RunConfig":
        """A copy with settings changed by name."""
        if unknown := sorted(values.keys() - {f.name for _, f in self.settings()}):
            raise InputError(f"unknown setting {unknown[0]!r}")
        parts = {}
        for section in fields(self):
            old = getattr(self, section.name)
            new = {f.name: values[f.name] for f in fields(old) if f.name in values}
            parts[section.name] = type(old)(**{**asdict(old), **new})
        return RunConfig(**parts)


def from_toml(path: Path) -> RunConfig:
    """Read a TOML file; sections and settings left out keep their defaults, unknown ones are an error."""
    return read_toml(path)[0]


def read_toml(path: Path) -> tuple[RunConfig, set[str]]:
    """What ``from_toml`` reads, and the names of the settings that the file itself gives.

    Raises:
        InputError: names the file, the section and the setting that is wrong.
    """
    sections: dict[str, Any] = {f.name: f.type for f in fields(RunConfig)}
    parts: dict[str, Any] = {}
    named: set[str] = set()
    for name, values in _tables(path).items():
        section = sections.get(name)
        if section is None or not isinstance(values, dict):
            raise InputError(f"{path}: {name!r} is no section of settings; the sections are [{'], ['.join(sections)}]")
        keys = {f.name: flag_of(f) for f in fields(section)}
        if unknown := [key for key in values if key not in keys]:
            raise InputError(
                f"{path}: [{name}] has no setting {unknown[0]!r}; {_elsewhere(unknown[0])}it has {', '.join(keys)}"
            )
        try:
            parts[name] = section(**values)
        except InputError as error:
            raise InputError(f"{path}: [{name}] {_in_keys(str(error), keys)}") from None
        named |= values.keys()
    return RunConfig(**parts), named


def _elsewhere(key: str) -> str:
    """Where the setting is that somebody means who puts it into the wrong section or calls it as other programs do."""
    places = {flag_of(f): f"[{section}] {f.name}" for section, f in RunConfig.settings()}
    places |= {"--" + f.name.replace("_", "-"): f"[{section}] {f.name}" for section, f in RunConfig.settings()}
    place = places.get(meant(key, "train", set(places)).partition(" ")[0])
    return f"{place} is meant; " if place else ""


def _in_keys(message: str, flags: dict[str, str]) -> str:
    """An error that speaks of flags, for people who wrote a file: {key: flag}."""
    keys = {flag: key for key, flag in flags.items()}
    return re.sub(r"--[a-z-]*[a-z]|CORPUS", lambda found: keys.get(found[0], found[0]), message)


def _tables(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"there is no settings file {path}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise InputError(f"{path} cannot be read as TOML: {error}") from None
    except (ValueError, RecursionError) as error:  # Python's limits: 4300 digits, about 1000 brackets
        what = "a number of too many digits" if isinstance(error, ValueError) else "brackets nested too deeply"
        raise InputError(f"{path} cannot be read as TOML: it has {what}") from None


def preset_file(name: str) -> Path:
    """One of the settings files that come with the package."""
    if name not in presets():
        raise InputError(f"there is no preset {name!r}; choose from: {', '.join(presets())}")
    return PRESETS / f"{name}.toml"


def presets() -> list[str]:
    """The names of the settings files that come with the package."""
    return sorted(p.stem for p in PRESETS.glob("*.toml"))
