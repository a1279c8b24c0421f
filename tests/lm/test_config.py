"""Settings: defaults, checks, and the TOML file that holds them all."""

import inspect
import math
from dataclasses import FrozenInstanceError, asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recurrent_lm.lm.base.errors import InputError
from recurrent_lm.lm.base.settings import Flags, flag_of, setting
from recurrent_lm.lm.config import (
    CELLS,
    BatchConfig,
    CorpusConfig,
    MachineConfig,
    ModelConfig,
    RunConfig,
    TokensConfig,
    TrainingConfig,
    from_toml,
    parse_clip,
    preset_file,
)

SECTIONS = {
    "corpus": CorpusConfig,
    "tokens": TokensConfig,
    "batches": BatchConfig,
    "model": ModelConfig,
    "training": TrainingConfig,
    "machine": MachineConfig,
}
# together the two change every setting; some exclude each other
CHANGED = [
    RunConfig(
        CorpusConfig(source='a "b"\n\\c.txt', eos_at_newline=True, encoding="latin-1", stage_directions=False),
        TokensConfig(kind="word", split="spaces", lower=True, min_count=3, vocab_size=10_000),
        BatchConfig(rows=7, bptt=70, state="document"),
        ModelConfig(
            cell="gru",
            hidden_size=33,
            embedding_size=12,
            layers=2,
            tie=False,
            dropout=0.1,
            locked=False,
            embedding_dropout=0.2,
            weight_drop=0.3,
            init_width=0.05,
            forget_bias=1.5,
            frequency_bias=False,
        ),
        TrainingConfig(
            optimizer="sgd",
            lr=1e-7,
            schedule="decay",
            decay_factor=1.2,
            decay_after=6,
            weight_decay=1e-6,
            average=0.9,
            ar=2.0,
            tar=1.0,
            clip="value:5",
            on_divergence="rollback",
            epochs=3,
            max_steps=11,
            patience=0,
            valid_rows=4,
            seed=99,
            init_from="runs/a b",
            sample="we want",
            checkpoint_every=10,
        ),
        MachineConfig(device="cuda:1", threads=2, precision="bf16", backend="eager", graph=True),
    ),
    RunConfig(
        CorpusConfig(train_file="a.txt", valid_file="é.txt", test_file="c.txt"),
        TokensConfig(kind="bpe", vocab_size=500),
        training=TrainingConfig(texts=False),
    ),
]


def written(folder: Path, text: str) -> Path:
    path = folder / "settings.toml"
    path.write_text(text, encoding="utf-8")
    return path


# --- TOML -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [RunConfig(), *CHANGED])
def test_toml_round_trip(tmp_path: Path, config: RunConfig) -> None:
    again = from_toml(written(tmp_path, config.to_toml()))
    assert again == config
    assert again.to_toml() == config.to_toml()


def test_the_round_trips_above_change_every_setting() -> None:
    default = RunConfig()
    for section, f in RunConfig.settings():
        values = [getattr(getattr(config, section), f.name) for config in CHANGED]
        assert any(value != getattr(getattr(default, section), f.name) for value in values), f.name


def test_toml_holds_every_setting_even_a_default_one() -> None:
    import tomllib

    assert tomllib.loads(RunConfig().to_toml()) == asdict(RunConfig())


@settings(deadline=None)
@given(
    source=st.text(st.characters(exclude_categories=["Cs"])),
    lr=st.floats(0, 1e6, exclude_min=True),
    init_width=st.floats(0, 10),
    forget_bias=st.floats(-100, 100),
    dropout=st.floats(0, 1, exclude_max=True),
    seed=st.integers(0, 2**63 - 1),
    tie=st.booleans(),
    cell=st.sampled_from(CELLS),
)
def test_any_values_round_trip(tmp_path_factory: pytest.TempPathFactory, **values: Any) -> None:
    config = RunConfig().replace(**values)
    folder = tmp_path_factory.getbasetemp()
    assert from_toml(written(folder, config.to_toml())) == config


def test_what_a_file_leaves_out_keeps_its_default(tmp_path: Path) -> None:
    assert from_toml(written(tmp_path, "")) == RunConfig()
    config = from_toml(written(tmp_path, "[model]\ncell = 'gru'\ndropout = 0\n"))
    assert config == RunConfig(model=ModelConfig(cell="gru", dropout=0.0))
    assert type(config.model.dropout) is float


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[modell]\n", r"'modell' is no section.*\[corpus\], .*\[machine\]"),
        ("[model]\nunits = 3\n", r"\[model\] has no setting 'units'.*hidden_size"),
        ("[model]\nepochs = 3\n", r"\[model\] has no setting 'epochs'"),
        ("model = 3\n", "section"),
        ("epochs = 3\n", "'epochs' is no section"),
        (
            "[model]\nhidden_size = '3'\n",
            r"/settings\.toml: \[model\] hidden_size must be a whole number .*, not '3'",
        ),
        ("[model]\nhidden_size = 3.0\n", r"\[model\] hidden_size must be a whole number from 1 to 100,000, not 3.0"),
        ("[model]\ntie = 1\n", r"\[model\] tie must be true or false, not 1"),
        ("[training]\nlr = 'fast'\n", r"\[training\] lr must be a number greater than 0 and at most 1,000,000, not 'fast'"),
        ("[training]\nclip = 5\n", r"\[training\] clip must be text, not 5"),
        ("[training]\nclip = 'norm'\n", r"\[training\] clip must be norm:THRESHOLD"),
        ("[corpus]\nsource = ['a']\n", r"\[corpus\] source must be text, not \['a'\]"),
        ("[tokens]\nkind = 'char'\nlower = true\n", r"\[tokens\] lower goes with kind word only"),
        ("[training]\nlr = nan\n", r"\[training\] lr must be a number greater than 0 and at most 1,000,000, not nan"),
        ("[training]\nlr = 1" + 400 * "0" + "\n", r"\[training\] lr must be a number .*, not a number of more than 38 digits"),
        (
            "[model]\nlayers = 1" + 400 * "0" + "\n",
            r"\[model\] layers must be a whole number from 1 to 100, not a number of more than 38 digits$",
        ),
        (
            "[training]\nlr = 1" + 5000 * "0" + "\n",
            r"/settings\.toml cannot be read as TOML: it has a number of too many digits$",
        ),
        (
            "[training]\nlr = " + 3000 * "[" + "\n",
            r"/settings\.toml cannot be read as TOML: it has brackets nested too deeply$",
        ),
        (
            "[model]\ncell = 'lstn'\n",
            r"\[model\] cell must be one of rnn-tanh, rnn-relu, rnn-sigmoid, lstm, gru, mingru, not 'lstn'",
        ),
        ("[model]\ncell = '" + 500 * "x" + "'\n", r"x{30,}\.\.\.$"),
        ("[model\n", "cannot be read as TOML"),
        ("[model]\ncell = 'gru'\n[model]\ncell = 'gru'\n", "cannot be read as TOML"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_toml(written(tmp_path, text))


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no settings file .*none\.toml"):
        from_toml(tmp_path / "none.toml")
    with pytest.raises(InputError, match="cannot be read as TOML"):
        from_toml(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b"[corpus]\nsource = '\xe9'\n")
    with pytest.raises(InputError, match=r"latin\.toml cannot be read as TOML"):
        from_toml(tmp_path / "latin.toml")


# --- checks ---------------------------------------------------------------------------------------------------------

NAN = math.nan


@pytest.mark.parametrize(
    ("name", "good", "bad", "flag"),
    [
        ("source", ["", "x"], [1, None, b"x"], "CORPUS"),
        ("encoding", ["utf-16"], [8], "--encoding"),
        ("eos_at_newline", [True], [1, "yes"], "--eos-at-newline"),
        ("kind", ["char", "word", "bpe"], ["chars", "", 1], "--tokens"),
        ("split", ["spaces", "punctuation"], ["space"], "--split-words"),
        ("lower", [True], [1, "true"], "--lower"),
        ("min_count", [1, 5], [0, -1, 1.0, True, "2"], "--min-count"),
        ("vocab_size", [0, 1], [-1, 300.0, False], "--vocab-size"),
        ("rows", [1], [0, -1, 2.0, True], "--rows"),
        ("bptt", [1], [0, True], "--bptt"),
        ("state", ["epoch", "document", "never"], ["always"], "--state"),
        ("cell", list(CELLS), ["rnn", "LSTM"], "--cell"),
        ("hidden_size", [1], [0, True, 1.5], "--hidden-size"),
        ("embedding_size", [0, 1], [-1, True], "--embedding-size"),
        ("layers", [1, 3], [0], "--layers"),
        ("tie", [False], [0, None], "--tie"),
        ("dropout", [0, 0.0, 0.99], [1, 1.0, -0.1, NAN, True, "0.5"], "--dropout"),
        ("locked", [False], [0], "--locked"),
        ("embedding_dropout", [0.0, 0.5], [1.0, -0.1, NAN], "--embedding-dropout"),
        ("weight_drop", [0.0, 0.5], [1.0, -0.1, NAN], "--weight-drop"),
        ("init_width", [0, 0.1], [-0.1, NAN], "--init-width"),
        ("forget_bias", [-1, 0, 2.5], ["1", False], "--forget-bias"),
        ("optimizer", ["sgd", "adam", "adamw"], ["Adam"], "--optimizer"),
        ("lr", [1e-9, 20], [0, 0.0, -1.0, NAN, True], "--lr"),
        ("schedule", ["constant", "plateau", "decay"], ["cosine"], "--schedule"),
        ("decay_factor", [1.001, 2], [1, 0.5, NAN], "--decay-factor"),
        ("decay_after", [0, 3], [-1], "--decay-after"),
        ("weight_decay", [0, 0.1], [-0.1, NAN], "--weight-decay"),
        ("ar", [0, 2], [-0.1, NAN, True], "--ar"),
        ("tar", [0, 1.5], [-0.1, NAN], "--tar"),
        ("average", [0, 0.999], [1.0, -0.1, NAN, True], "--average"),
        ("clip", ["none", "norm:0.25", "value:5"], ["norm", 5, True], "--clip"),
        ("epochs", [1], [0, -3, True], "--epochs"),
        ("max_steps", [0, 1], [-1], "--max-steps"),
        ("patience", [0, 1], [-1], "--patience"),
        ("valid_rows", [1], [0], "--valid-rows"),
        ("seed", [0, 2**63 - 1], [-1, 1.0, True], "--seed"),
        ("init_from", ["runs/a"], [0], "--init-from"),
        ("checkpoint_every", [1], [0], "--checkpoint-every"),
        ("device", ["auto", "cpu", "cuda", "cuda:0", "cuda:12"], ["gpu", "cuda:", "cuda:x", "cpu:0", "", "cpu "], "--device"),
        ("threads", [0, 1], [-1], "--threads"),
        ("precision", ["auto", "float32", "bf16"], ["fp16"], "--precision"),
    ],
)
def test_a_value_is_checked_where_it_arrives(name: str, good: list[Any], bad: list[Any], flag: str) -> None:
    section, f = next((SECTIONS[section], f) for section, f in RunConfig.settings() if f.name == name)
    for value in good:
        kept = getattr(section(**{name: value}), name)
        assert kept == value
        assert type(kept) is type(f.default)
    for value in bad:
        with pytest.raises(InputError) as error:
            section(**{name: value})
        assert str(error.value).startswith(f"{flag} must be")
        with pytest.raises(InputError, match=flag):
            RunConfig().replace(**{name: value})


def test_a_seed_that_torch_cannot_take_is_refused() -> None:
    with pytest.raises(InputError, match="--seed"):
        TrainingConfig(seed=2**63)


def test_an_initial_width_that_torch_cannot_take_is_refused() -> None:
    with pytest.raises(InputError, match="--init-width"):
        ModelConfig(init_width=math.inf)


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        (CorpusConfig, {"source": "a", "train_file": "b"}, "not both"),
        (CorpusConfig, {"source": "a", "test_file": "b"}, "not both"),
        (CorpusConfig, {"train_file": "a"}, "one of them is missing"),
        (CorpusConfig, {"train_file": "a", "valid_file": "b"}, "one of them is missing"),
        (CorpusConfig, {"valid_file": "a", "test_file": "b"}, "one of them is missing"),
        (TokensConfig, {"kind": "char", "lower": True}, "--lower"),
        (TokensConfig, {"kind": "bpe", "lower": True}, "--lower"),
        (TokensConfig, {"kind": "bpe", "vocab_size": 256}, "--vocab-size"),
        (TokensConfig, {"kind": "bpe", "vocab_size": 1}, "--vocab-size"),
    ],
)
def test_settings_that_exclude_each_other(section: Any, values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        section(**values)


@pytest.mark.parametrize("size", [0, 257])
def test_the_smallest_byte_pair_vocabularies(size: int) -> None:
    assert TokensConfig(kind="bpe", vocab_size=size).vocab_size == size


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("norm:0.25", ("norm", 0.25)),
        ("norm:1", ("norm", 1.0)),
        ("value:5", ("value", 5.0)),
        ("value:1e-3", ("value", 0.001)),
        ("none", ("none", math.inf)),
    ],
)
def test_clip_is_read(text: str, expected: tuple[str, float]) -> None:
    assert parse_clip(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "norm",
        "norm:",
        "value",
        "norm:0",
        "norm:-1",
        "value:-5",
        "norm:nan",
        "norm:a",
        "l2:1",
        "1",
        ":1",
        "none:1",
        "norm:1:2",
    ],
)
def test_a_wrong_clip_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="--clip must be norm:THRESHOLD, value:THRESHOLD or none"):
        parse_clip(text)
    with pytest.raises(InputError, match="--clip"):
        TrainingConfig(clip=text)


@pytest.mark.parametrize("text", ["norm:inf", "value:inf", "norm:infinity", "norm:1e400"])
def test_a_threshold_that_clips_nothing_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=f"--clip {text} clips nothing; say none"):
        TrainingConfig(clip=text)


# --- the whole ------------------------------------------------------------------------------------------------------


def test_every_setting_has_its_own_name_flag_and_reason() -> None:
    result = list(RunConfig.settings())
    assert {section for section, _ in result} == set(SECTIONS)
    assert len(result) == sum(len(fields(section)) for section in SECTIONS.values())
    assert len({f.name for _, f in result}) == len({flag_of(f) for _, f in result}) == len(result)
    assert all(f.metadata["why"] for _, f in result)
    flags = {f.name: flag_of(f) for _, f in result}
    assert (flags["hidden_size"], flags["kind"], flags["train_file"]) == ("--hidden-size", "--tokens", "--train")


def test_settings_cannot_be_changed_in_place() -> None:
    with pytest.raises(FrozenInstanceError):
        RunConfig().model.layers = 2  # type: ignore[misc]


def test_replace_changes_a_copy() -> None:
    config = RunConfig()
    changed = config.replace(cell="gru", epochs=2, source="obama")
    assert (changed.model.cell, changed.training.epochs, changed.corpus.source) == ("gru", 2, "obama")
    assert config == RunConfig()
    assert changed.replace(cell="lstm", epochs=40, source="") == config
    assert CHANGED[0].replace() == CHANGED[0]


def test_replace_refuses_what_it_does_not_know_or_must_not_be() -> None:
    with pytest.raises(InputError, match="unknown setting 'hiden_size'"):
        RunConfig().replace(hiden_size=3)
    with pytest.raises(InputError, match="unknown setting 'model'"):
        RunConfig().replace(model=ModelConfig())
    with pytest.raises(InputError, match="--lower"):
        RunConfig().replace(lower=True).replace(kind="char")


def test_the_embedding_is_as_wide_as_the_hidden_state_unless_told() -> None:
    assert ModelConfig(hidden_size=7).d == 7
    assert ModelConfig(hidden_size=7, embedding_size=3).d == 3


def test_the_help_names_every_preset() -> None:
    from recurrent_lm.lm.commands.cli import app

    train = next(command for command in app.registered_commands if command.callback and command.callback.__name__ == "train")
    annotation = inspect.signature(train.callback).parameters["preset_name"].annotation  # type: ignore[arg-type]
    named = annotation.__metadata__[0].help.partition(": ")[2].split(", ")
    assert named == sorted(p.stem for p in preset_file("demo").parent.glob("*.toml"))
    assert all(from_toml(preset_file(name)) != RunConfig() for name in named)


def test_the_preset_for_characters_is_the_one_that_was_measured() -> None:
    config = from_toml(preset_file("best-char"))
    measured = RunConfig().replace(kind="char", rows=16, bptt=50, hidden_size=512, embedding_size=128, layers=2, dropout=0.35)
    measured = measured.replace(lr=0.004, schedule="decay", decay_after=5, decay_factor=1.6, average=0.998, epochs=10)
    assert config == measured


@pytest.mark.parametrize("name", ["nonesuch", "", "../config", "demo.toml"])
def test_an_unknown_preset_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"there is no preset '{name}'; choose from: best-bpe, best-char, best-word, demo, "):
        preset_file(name)


@pytest.mark.parametrize("corpus", ["obama", Path("speeches"), None, {"source": "obama"}, TokensConfig()])
def test_what_is_no_corpus_is_refused_at_once(corpus: Any) -> None:
    with pytest.raises(InputError, match=r"corpus must be a CorpusConfig, such as CorpusConfig\(source='obama'\), not "):
        RunConfig(corpus=corpus)


@pytest.mark.parametrize("section", [f.name for f in fields(RunConfig)])
def test_every_section_is_of_its_kind(section: str) -> None:
    with pytest.raises(InputError, match=f"{section} must be a "):
        RunConfig(**{section: "obama"})


def test_settings_of_several_kinds_are_checked_alike() -> None:
    """A list from JSON, a number of numpy, None where it is the default; a field without bounds keeps its type."""

    @dataclass(frozen=True)
    class Many(Flags):
        sizes: tuple[int, ...] = setting((1, 2), many=True, low=1, high=9)
        rate: float | None = setting(None, kind=float, above=0, below=math.inf)
        name: str = "a"
        other: object = ()

    assert Many([3, 1], np.float32(0.5)) == Many((3, 1), 0.5)  # type: ignore[arg-type]
    assert type(Many(rate=2).rate) is float and Many().rate is None
    wrong: dict[str, list[Any]] = {
        "sizes": [(), (1, 1), (0,), (1.5,), 3, "12"],
        "rate": [0, -1, math.inf, math.nan, True, "1"],
        "name": [1, None],
    }
    for name, values in wrong.items():
        for value in values:
            with pytest.raises(InputError, match=rf"^--{name} must be [^\n]*, not [^\n]*$"):
                Many(**{name: value})
