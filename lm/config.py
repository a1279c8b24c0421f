"""Every setting of a run: one frozen dataclass for each subject, each field with default, flag and reason.

The command line and the TOML file are both made from these fields, so a setting is written down once.
"""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import Field, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from recurrent_lm.lm.base.errors import InputError
from recurrent_lm.lm.base.settings import Flags, check_device, flag_of, setting, shown
from recurrent_lm.lm.usual import meant

CELLS = ("rnn-tanh", "rnn-relu", "rnn-sigmoid", "lstm", "gru", "mingru")


MANY = 10**9  # limit of epochs, updates and occurrences, which every library accepts
PRESETS = Path(__file__).parent / "presets"
LARGE = 10**6  # limit of rates and factors; float32 overflows beyond it
SEEDS = 2**63 - 1  # the largest that torch takes


@dataclass(frozen=True)
class CorpusConfig(Flags):
    """The text."""

    source: str = setting(
        "",
        "obama, another name of lm corpora list, a text file, or a folder of .txt files (./obama for one of that name)",
        flag="CORPUS",
    )
    train_file: str = setting("", "text to train on, for data that is split already", flag="--train")
    valid_file: str = setting("", "its validation text", flag="--valid")
    test_file: str = setting("", "its test text", flag="--test")
    eos_at_newline: bool = setting(False, "every line is a document of its own, as benchmark files count it")
    encoding: str = setting("utf-8", "encoding of the files")
    stage_directions: bool = setting(True, "keep (Applause.), [Laughter] and the like; without them only what was said is read")

    def check(self) -> None:
        files = (self.train_file, self.valid_file, self.test_file)
        if self.source and any(files):
            raise InputError("give either a CORPUS or --train, --valid and --test, not both")
        if any(files) and not all(files):
            raise InputError("--train, --valid and --test belong together; one of them is missing")


@dataclass(frozen=True)
class TokensConfig(Flags):
    """The tokens."""

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
        low=1,
        high=MANY,
    )
    vocab_size: int = setting(
        0, "keep at most this many types; 0 keeps all (word, char) or makes 1000 (bpe)", low=0, high=10**6
    )

    def check(self) -> None:
        if self.split != "punctuation" and self.kind != "word":
            raise InputError("--split-words goes with --tokens word only: char and bpe do not cut words")
        if self.lower and self.kind != "word":
            raise InputError("--lower goes with --tokens word only: char and bpe give the text back exactly")
        if self.kind == "bpe" and 0 < self.vocab_size < 257:
            raise InputError("--vocab-size for bpe must be at least 257: 256 bytes and <eos>")


@dataclass(frozen=True)
class BatchConfig(Flags):
    """The lecture's [k, L] batches."""

    rows: int = setting(20, "k: sub-corpora read in parallel", low=1, high=10**6)
    bptt: int = setting(35, "L: steps in a batch, and so how far back gradients flow", low=1, high=10**6)
    state: str = setting(
        "epoch", "when the carried state is set to zero: epoch, document or never", choices=("epoch", "document", "never")
    )


@dataclass(frozen=True)
class ModelConfig(Flags):
    """Embedding, recurrence, decoder."""

    cell: str = setting("lstm", "the recurrent cell: " + ", ".join(CELLS), choices=CELLS)
    hidden_size: int = setting(256, "h: hidden units a layer", low=1, high=10**5)
    embedding_size: int = setting(0, "d: size of an embedding; 0 takes the hidden size", low=0, high=10**5)
    layers: int = setting(1, "recurrent layers; small corpora rarely repay a second", low=1, high=100)
    tie: bool = setting(True, "the decoder uses the embedding's weights, through a projection where d and h differ")
    dropout: float = setting(0.4, "share of inputs and outputs of each layer that is dropped", low=0, below=1)
    locked: bool = setting(True, "one dropout mask for a whole sequence (Gal & Ghahramani 2016)")
    embedding_dropout: float = setting(0.0, "share of word types whose embedding is dropped in a batch", low=0, below=1)
    weight_drop: float = setting(0.0, "share of W_h that is dropped, once a batch (Merity et al. 2018)", low=0, below=1)
    init_width: float = setting(
        0.0, "draw every weight from U(-w, w); 0 keeps each layer's own initialisation", low=0, high=100
    )
    forget_bias: float = setting(
        0.0,
        "added to the forget gate's initial bias (LSTM); 1 remembers at first (Gers et al. 2000), with no gain on speeches",
        low=-100,
        high=100,
    )
    frequency_bias: bool = setting(
        True, "begin with the decoder's bias at the log frequencies of the training text; never with --init-width"
    )

    def check(self) -> None:
        if self.cell == "mingru" and self.weight_drop:
            raise InputError(
                "--weight-drop drops parts of W_h, which mingru does not have; leave it out or take another --cell"
            )

    @property
    def d(self) -> int:
        """The embedding size in force."""
        return self.embedding_size or self.hidden_size

    @property
    def drops(self) -> bool:
        """Whether anything is dropped in training."""
        return any((self.dropout, self.embedding_dropout, self.weight_drop))


@dataclass(frozen=True)
class TrainingConfig(Flags):
    """Optimizer, schedule, limits and checkpoints."""

    optimizer: str = setting("adam", "sgd (the lecture's), adam or adamw", choices=("sgd", "adam", "adamw"))
    lr: float = setting(0.003, "learning rate; SGD without momentum needs 1 to 20", above=0, high=LARGE)
    schedule: str = setting(
        "plateau",
        "constant; plateau divides the rate when validation stalls; decay divides it every epoch after --decay-after",
        choices=("constant", "plateau", "decay"),
    )
    decay_factor: float = setting(4.0, "divisor of the rate", above=1, high=LARGE)
    decay_after: int = setting(4, "last epoch at the full rate, for the schedule decay", low=0, high=MANY)
    weight_decay: float = setting(0.0, "L2 penalty (sgd, adam) or decoupled decay (adamw)", low=0, high=LARGE)
    average: float = setting(
        0.0,
        "share that a running average of the weights keeps at each update; it is the average that is validated and kept. "
        "0 takes the weights as they are; 0.99 to 0.999 help on little text",
        low=0,
        below=1,
    )
    ar: float = setting(
        0.0,
        "weight in training of the last layer's squared outputs after dropout (Merity et al. 2017); one process only",
        low=0,
        high=LARGE,
    )
    tar: float = setting(
        0.0,
        "weight in training of the squared changes of these outputs from token to token, before dropout; one process only",
        low=0,
        high=LARGE,
    )
    clip: str = setting("norm:1", "norm:THRESHOLD, value:THRESHOLD or none; norm is Algorithm 1 of Pascanu et al. 2013")
    on_divergence: str = setting(
        "stop", "stop; rollback goes on from the last good checkpoint with half the learning rate", choices=("stop", "rollback")
    )
    epochs: int = setting(40, "passes over the training text at most", low=1, high=MANY)
    max_steps: int = setting(0, "stop after this many updates; 0 for no such limit", low=0, high=MANY)
    patience: int = setting(
        3, "stop after this many epochs without a better validation loss; 0 never stops early", low=0, high=MANY
    )
    valid_rows: int = setting(
        1, "rows read in parallel when validating; 1 reads the text as one whole, as it is scored", low=1, high=10**4
    )
    seed: int = setting(1, "seed of initial weights and dropout masks", low=0, high=SEEDS)
    init_from: str = setting("", "a run whose vocabulary, model and best weights to start from")
    sample: str = setting("", "write on from this prompt after each epoch, and print it; without it a prompt of the text's own")
    texts: bool = setting(True, "keep the text that the model writes after each epoch, in samples.jsonl; no loss depends on it")
    checkpoint_every: int = setting(
        500, "updates between checkpoints within an epoch; one is made at each epoch's end too", low=1, high=MANY
    )

    def check(self) -> None:
        if self.sample and not self.texts:
            raise InputError("--sample asks for texts, which --no-texts leaves out; give only one of them")
        parse_clip(self.clip)


@dataclass(frozen=True)
class MachineConfig(Flags):
    """Device, threads, precision and backend."""

    device: str = setting("auto", "cpu, cuda, cuda:N; auto takes a GPU where there is one")
    threads: int = setting(
        0,
        "CPU threads; 0 takes one a core. Bits repeat with the same number, which a run keeps; not with another",
        low=0,
        high=1024,
    )
    precision: str = setting(
        "auto",
        "products in float32 or bf16, with float32 sums in the layers; auto takes bf16 where a trial of both shows it faster",
        choices=("auto", "float32", "bf16"),
    )
    backend: str = setting("auto", "implementation of the recurrence and loss: auto, eager, torch or triton")
    graph: bool = setting(False, "on a GPU: replay each update as one CUDA graph, and read its loss while the next one runs")

    def check(self) -> None:
        check_device(self.device)


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
    """All settings of a run. ``to_toml`` and ``from_toml`` are inverse to each other."""

    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    tokens: TokensConfig = field(default_factory=TokensConfig)
    batches: BatchConfig = field(default_factory=BatchConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    machine: MachineConfig = field(default_factory=MachineConfig)

    def __post_init__(self) -> None:
        for section in fields(self):
            value: Any = getattr(self, section.name)
            kind: Any = section.type
            if not isinstance(value, kind):
                example = "CorpusConfig(source='obama')" if kind is CorpusConfig else f"{kind.__name__}()"
                raise InputError(f"{section.name} must be a {kind.__name__}, such as {example}, not {shown(value)}")

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
            raise InputError(f"unknown setting {unknown[0]!r}; {_elsewhere(unknown[0])}lm train --help-all lists them")
        parts = {}
        for section in fields(self):
            old = getattr(self, section.name)
            new = {f.name: values[f.name] for f in fields(old) if f.name in values}
            parts[section.name] = type(old)(**{**asdict(old), **new})
        return RunConfig(**parts)


LITTLE = 20_000  # words of a text below which the defaults, which were chosen on 100,000 to 200,000, can be bettered
LITTLE_TEXT: dict[str, Any] = {  # docs/little-text.md
    "rows": 5,
    "dropout": 0.6,
    "embedding_dropout": 0.1,
    "lr": 0.005,
    "average": 0.99,
    "patience": 5,
}


def for_little_text(words: int) -> dict[str, Any]:
    """Settings by name that suit a text of so many words better than the defaults; none from ``LITTLE`` words on."""
    return dict(LITTLE_TEXT) if words < LITTLE else {}


def from_toml(path: Path) -> RunConfig:
    """Read a TOML file; sections and settings left out keep their defaults, unknown ones are an error.

    Args:
        path: of the file.

    Returns:
        The settings.

    Raises:
        InputError: names the file, the section and the setting that is wrong.
    """
    return read_toml(path)[0]


def read_toml(path: Path) -> tuple[RunConfig, set[str]]:
    """Read a TOML file as ``from_toml`` does.

    Returns:
        The settings, and the names of those that the file itself gives.

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
    """The right place of a setting that was put into the wrong section or named as in other programs."""
    places = {flag_of(f): f"[{section}] {f.name}" for section, f in RunConfig.settings()}
    places |= {"--" + f.name.replace("_", "-"): f"[{section}] {f.name}" for section, f in RunConfig.settings()}
    place = places.get(meant(key, "train", set(places)).partition(" ")[0])
    return f"{place} is meant; " if place else ""


def _in_keys(message: str, flags: dict[str, str]) -> str:
    """An error about flags, in the names of a file's keys."""
    keys = {flag: key for key, flag in flags.items()}
    return re.sub(r"--[a-z-]*[a-z]|CORPUS", lambda match: keys.get(match[0], match[0]), message)


def _tables(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"there is no settings file {path}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise InputError(f"{path} cannot be read as TOML: {error}") from None
    except (ValueError, RecursionError) as error:  # Python's limits: 4300 digits, about 1000 brackets
        fault = "a number of too many digits" if isinstance(error, ValueError) else "brackets nested too deeply"
        raise InputError(f"{path} cannot be read as TOML: it has {fault}") from None


def preset_file(name: str) -> Path:
    """One of the settings files that come with the package.

    Args:
        name: such as "best-word"; ``presets`` lists them.

    Returns:
        Its path.

    Raises:
        InputError: if there is none of this name.
    """
    if name not in presets():
        raise InputError(f"there is no preset {name!r}; choose from: {', '.join(presets())}")
    return PRESETS / f"{name}.toml"


def presets() -> list[str]:
    """The names of the settings files that come with the package."""
    return sorted(p.stem for p in PRESETS.glob("*.toml"))
