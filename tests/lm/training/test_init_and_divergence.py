"""Beginning from another run, and ending where numbers stop being finite."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from recurrent_lm.lm.base.errors import Diverged, InputError
from recurrent_lm.lm.runs import checkpoint
from recurrent_lm.lm.runs import folder as runs
from recurrent_lm.lm.scoring.evaluate import evaluate
from recurrent_lm.lm.text.data import prepare
from recurrent_lm.lm.training.start import new_training

Log = Callable[[Path], list[dict[str, Any]]]
Fit = Callable[..., Any]
Make = Callable[..., Any]


STILL = 1e-30  # a rate at which no weight moves


# -- from another run -----------------------------------------------------------------------------------------------


@pytest.fixture
def other_corpus(tmp_path: Path, make_text: Callable[..., str]) -> Path:
    path = tmp_path / "other.txt"
    path.write_text(make_text(1500, seed=7) + "ZZ Ÿ")
    return path


def test_init_from_takes_over_tokens_model_and_best_weights(
    tmp_path: Path, trained: Path, other_corpus: Path, lm_command: Any, read_log: Log
) -> None:
    run = tmp_path / "run"
    how = ["--epochs", 1, "--lr", STILL, "--optimizer", "sgd", "--dropout", 0, "--threads", 1, "--precision", "float32"]
    code, _, err = lm_command("train", other_corpus, "--init-from", trained, "--run", run, "--quiet", *how)
    assert code == 0, err
    assert (run / "tokens.json").read_bytes() == (trained / "tokens.json").read_bytes()
    source, target = (runs.load(path, device="cpu") for path in (trained, run))
    shape = ("cell", "hidden_size", "embedding_size", "layers", "tie")
    assert [getattr(source.config.model, n) for n in shape] == [getattr(target.config.model, n) for n in shape]
    for name, tensor in source.model.state_dict().items():
        assert torch.equal(target.model.state_dict()[name], tensor), name
    assert source.meta["step"] == checkpoint.load(trained, "best").meta["step"]
    # Its first loss is that of the other run's best model on this text.
    data = prepare(target.config, source.tokenizer)
    expected = evaluate(source.model, data.valid).loss
    assert read_log(run / "epochs.jsonl")[0]["valid_loss"] == pytest.approx(expected, rel=1e-6)
    assert read_log(run / "steps.jsonl")[0]["loss"] < math.log(source.tokenizer.size) - 0.5
    assert target.config.training.init_from == str(trained)


@pytest.mark.parametrize(
    "contradiction, section, key, has",
    [
        ("--cell gru", "model", "cell = 'gru'", "--cell lstm"),
        ("--hidden-size 9", "model", "hidden_size = 9", "--hidden-size 16"),
        ("--tokens word", "tokens", "kind = 'word'", "--tokens char"),
        ("--layers 2", "model", "layers = 2", "--layers 1"),
        ("--no-tie", "model", "tie = false", "--tie"),
        ("--min-count 5", "tokens", "min_count = 5", "--min-count 2"),
    ],
)
def test_init_from_refuses_what_contradicts_the_other_run(
    tmp_path: Path, trained: Path, corpus: Path, refused: Any, contradiction: str, section: str, key: str, has: str
) -> None:
    how = ["train", corpus, "--init-from", trained, "--run", tmp_path / "run"]
    message = refused(*how, *contradiction.split())
    assert f"{contradiction} contradicts --init-from {trained}, which has {has};" in message
    file = tmp_path / "settings.toml"
    file.write_text(f"[{section}]\n{key}\n")
    message = refused(*how, "--config", file)
    assert f"{contradiction}, [{section}] {key.split()[0]} in {file}, contradicts" in message
    assert not (tmp_path / "run").exists()


def test_init_from_refuses_a_preset_of_another_cell(tmp_path: Path, trained: Path, corpus: Path, refused: Any) -> None:
    message = refused("train", corpus, "--init-from", trained, "--preset", "demo", "--run", tmp_path / "run")
    assert re.search(r"--cell gru, \[model\] cell in .*demo\.toml, contradicts", message)


def test_init_from_accepts_what_agrees(tmp_path: Path, trained: Path, corpus: Path, lm_command: Any) -> None:
    how = ["--cell", "lstm", "--hidden-size", 16, "--max-steps", 1, "--weight-drop", 0.1, "--threads", 1, "--quiet"]
    code, _, err = lm_command("train", corpus, "--init-from", trained, "--run", tmp_path / "run", *how)
    assert code == 0, err
    # A whole file of settings that agrees, a file that is silent, and a flag that mends what a file contradicts.
    silent, other = tmp_path / "silent.toml", tmp_path / "other.toml"
    silent.write_text("[model]\nweight_drop = 0.1\n[training]\nmax_steps = 1\n")
    other.write_text("[model]\ncell = 'gru'\n[training]\nmax_steps = 1\n")
    for number, extra in enumerate(
        (["--config", trained / "config.toml"], ["--config", silent], ["--config", other, *how[:2]])
    ):
        run = tmp_path / str(number)
        how_again = ["--init-from", trained, "--run", run, "--max-steps", 1, "--threads", 1, "--quiet", *extra]
        code, _, err = lm_command("train", corpus, *how_again)
        assert code == 0, err
        assert runs.load(run).config.model.cell == "lstm"


def test_init_from_nothing_is_refused(tmp_path: Path, corpus: Path, refused: Any) -> None:
    assert "there is no run" in refused("train", corpus, "--init-from", tmp_path / "none", "--run", tmp_path / "run")
    assert not (tmp_path / "run").exists()


# -- divergence -----------------------------------------------------------------------------------------------------

WILD = {"cell": "rnn-relu", "optimizer": "sgd", "lr": 1e6, "clip": "none", "epochs": 3}


def finite(run: Path) -> dict[str, Tensor]:
    weights = checkpoint.load(run, "last").groups["model"]
    assert all(bool(t.isfinite().all()) for t in weights.values())
    return weights


def test_a_divergence_is_diagnosed_and_the_last_good_checkpoint_stays(
    tmp_path: Path, corpus: Path, flags: Make, lm_command: Any, read_log: Log
) -> None:
    run = tmp_path / "run"
    code, _, err = lm_command("train", corpus, "--run", run, "--quiet", *flags(**WILD))
    assert code == 3
    assert err.count("\n") == 1
    assert "Traceback" not in err
    steps = read_log(run / "steps.jsonl")
    assert re.search(rf"at step {len(steps) + 1}\b", err), "the step that failed"
    norms = re.search(r"norms of the steps before it: ([^A-Z]*)\.", err)
    assert norms
    assert [float(n) for n in norms[1].split(", ")] == pytest.approx([r["grad_norm"] for r in steps][-8:], rel=0.01)
    assert "--lr" in err
    assert f"--clip norm:{max(r['grad_norm'] for r in steps) / 10:.1g}" in err, "which those steps would have felt"
    assert all(math.isfinite(r["loss"]) and math.isfinite(r["grad_norm"]) for r in steps)
    weights = finite(run)
    code, _, err = lm_command("resume", run, "--quiet")
    assert code == 3
    assert all(torch.equal(t, finite(run)[k]) for k, t in weights.items())
    assert not (run / "result.json").exists()


@pytest.mark.parametrize("what", ["loss", "gradient"])
@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_a_loss_or_gradient_that_is_not_finite_moves_no_weight(
    tmp_path: Path, corpus: Path, make_config: Make, what: str, bad: float
) -> None:
    training = new_training(make_config(corpus, checkpoint_every=2, clip="norm:0.5"), tmp_path / "run")
    spoil(training, after=3, factor=bad, what=what)
    with pytest.raises(Diverged, match=rf"the {what} became (inf|nan) at step 4 ") as caught:
        training.run(quiet=True)
    assert f"below norm:{min(0.5, max(training.recent)):.3g}" in str(caught.value)
    assert training.at.step == 3
    assert all(bool(p.isfinite().all()) for p in training.model.parameters())
    finite(tmp_path / "run")
    assert checkpoint.load(tmp_path / "run").meta["step"] == 2


def spoil(training: Any, after: int, factor: float, what: str = "loss") -> None:
    """Multiply what the decoder reads, or its gradient, by ``factor`` once so many updates were made."""

    def hook(module: Any, args: Any, output: Any) -> Any:
        if training.at.step < after or not module.training:
            return None
        hidden, state = output
        if what == "loss":
            return hidden * factor, state
        hidden.register_hook(lambda g: g * factor)
        return hidden, state

    training.model.register_forward_hook(hook)


def grow(training: Any, factor: float) -> None:
    """Let the decoder's bias of one token grow after each update, with everything finite."""
    training.step.optimizer.register_step_post_hook(lambda *_: training.model.decoder.bias.data[1].fill_(factor))


def test_an_exploded_but_finite_loss_is_a_divergence(tmp_path: Path, corpus: Path, make_config: Make) -> None:
    training = new_training(make_config(corpus, epochs=1, bptt=10_000), tmp_path / "run")
    grow(training, 1e28)
    with pytest.raises(Diverged, match=r"the validation loss became 1e\+28 at step 2 .*is intact"):
        training.run(quiet=True)
    assert checkpoint.load(tmp_path / "run").meta["step"] == 0
    assert not (tmp_path / "run" / "result.json").exists()
    training = new_training(make_config(corpus, checkpoint_every=1), tmp_path / "early")
    grow(training, 1e4)
    with pytest.raises(Diverged, match=r"the loss became 1e\+04 at step 2 "):
        training.run(quiet=True)


def test_a_bad_but_bearable_loss_is_none(tmp_path: Path, corpus: Path, make_config: Make) -> None:
    training = new_training(make_config(corpus, epochs=1, bptt=10_000), tmp_path / "run")
    grow(training, 690.0)
    scores = training.run(quiet=True)
    assert 600 < scores["valid"].loss < 700
    assert math.isfinite(scores["valid"].perplexity)


@pytest.mark.parametrize("decay, lr, said", [(0.5, 1e6, True), (3.0, 1e-3, True), (1e-4, 1.0, False), (0.0, 1e6, False)])
def test_a_large_weight_decay_is_named_in_the_diagnosis(
    tmp_path: Path, corpus: Path, make_config: Make, decay: float, lr: float, said: bool
) -> None:
    training = new_training(make_config(corpus, optimizer="sgd", lr=lr, weight_decay=decay), tmp_path / "run")
    spoil(training, after=1, factor=math.nan)
    with pytest.raises(Diverged) as caught:
        training.run(quiet=True)
    assert (f"a smaller --weight-decay (it was {decay:g})" in str(caught.value)) is said


@pytest.mark.parametrize(
    ("how", "helps"),
    [
        ({"cell": "rnn-tanh", "init_width": 0.5}, ["--init-width (it was 0.5)", "--bptt (it was 16)", "--cell lstm"]),
        ({"cell": "gru", "bptt": 1}, ["--seed"]),
    ],
    ids=["Elman", "GRU"],
)
def test_before_the_first_update_neither_rate_nor_threshold_is_advised(
    tmp_path: Path, corpus: Path, make_config: Make, how: dict[str, Any], helps: list[str]
) -> None:
    """Nothing has been moved or clipped yet."""
    training = new_training(make_config(corpus, **({"bptt": 16} | how)), tmp_path / "run")
    spoil(training, after=0, factor=math.inf, what="gradient")
    with pytest.raises(Diverged) as caught:
        training.run(quiet=True)
    assert all(mend in caught.value.advice for mend in helps)
    assert "a smaller --lr" not in caught.value.advice
    assert "threshold" not in caught.value.advice


@pytest.mark.parametrize("clip", ["norm:1", "value:0.5", "none"])
def test_a_gradient_too_large_for_its_squares_is_clipped_and_the_training_goes_on(
    tmp_path: Path, corpus: Path, make_config: Make, read_log: Log, clip: str
) -> None:
    """Its elements are finite, its norm is no float32, and the log stays JSON."""
    training = new_training(make_config(corpus, clip=clip, max_steps=3, epochs=1), tmp_path / "run")
    for parameter in training.model.parameters():
        parameter.register_hook(lambda g: torch.full_like(g, 3e38))
    training.run(quiet=True)
    steps = read_log(tmp_path / "run" / "steps.jsonl")
    truth = 3e38 * math.sqrt(sum(p.numel() for p in training.model.parameters()))
    assert [r["grad_norm"] for r in steps] == pytest.approx([truth] * 3, rel=1e-6)
    assert truth > torch.finfo(torch.float32).max
    assert [r["clipped"] for r in steps] == [clip != "none"] * 3
    assert not re.search(r"Infinity|NaN", (tmp_path / "run" / "steps.jsonl").read_text())
    finite(tmp_path / "run")


def test_the_parameter_whose_gradient_is_not_finite_is_named_with_its_elements(
    tmp_path: Path, corpus: Path, make_config: Make
) -> None:
    """The first in order, on both ways to update; what else follows is not of interest."""
    for graphed in (False, True):
        training = new_training(make_config(corpus, max_steps=6), tmp_path / str(graphed))
        training.config = training.config.replace(graph=graphed)
        spoilt = [p for n, p in training.model.named_parameters() if n in ("layers.0.weight_hh_l0", "decoder.bias")]

        def part(g: Tensor, training: Any = training) -> Tensor:
            g = g.clone()
            g.view(-1)[1:4] = torch.tensor([math.inf, math.nan, -math.inf]) if training.at.step + ahead(training) == 2 else 1.0
            return g

        for parameter in spoilt:
            parameter.register_hook(part)
        with pytest.raises(Diverged) as caught:
            training.run(quiet=True)
        count = spoilt[0].numel() if spoilt[0].ndim == 2 else spoilt[1].numel()
        assert f"3 of the {count:,} elements of layers.0.weight_hh_l0 are inf or nan" in caught.value.what
        assert "at step 3 (epoch 1" in caught.value.what


def ahead(training: Any) -> int:
    return training.graph.ahead if training.graph else 0


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path, corpus: Path, make_config: Make) -> None:
    # The last update of an epoch can spoil the weights without a loss that shows it.
    training = new_training(make_config(corpus, epochs=1, bptt=10_000), tmp_path / "run")
    training.step.optimizer.register_step_post_hook(lambda *_: training.model.decoder.bias.data.fill_(math.inf))
    with pytest.raises(Diverged):
        training.run(quiet=True)
    finite(tmp_path / "run")


def test_training_in_another_thread_works_without_signals(tmp_path: Path, corpus: Path, fit: Fit) -> None:
    from threading import Thread

    errors: list[BaseException] = []

    def work() -> None:
        try:
            fit(tmp_path / "run", corpus, max_steps=2)
        except BaseException as error:
            errors.append(error)

    thread = Thread(target=work)
    thread.start()
    thread.join()
    assert not errors
    assert (tmp_path / "run" / "result.json").exists()


def test_an_existing_run_folder_is_refused(tmp_path: Path, corpus: Path, make_config: Make) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes").write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        new_training(make_config(corpus), tmp_path / "run")
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["notes"]
