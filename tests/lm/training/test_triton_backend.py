"""The trainer on the Triton kernels, in the interpreter where there is no GPU: the losses of the eager twin."""

import sys
from pathlib import Path
from typing import Any

import pytest

from recurrent_lm.kernels.backends import runs_triton


@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")  # numpy, where the interpreter computes both branches
@pytest.mark.parametrize("cell", ["lstm", *(pytest.param(cell, marks=pytest.mark.slow) for cell in ("rnn-tanh", "gru"))])
def test_thirty_steps_by_triton_are_thirty_steps_by_the_eager_twin(
    tmp_path: Path, make_text: Any, fit: Any, read_log: Any, cell: str
) -> None:
    corpus = tmp_path / "text.txt"
    corpus.write_text(make_text(700))
    how = {"cell": cell, "bptt": 4, "max_steps": 30, "epochs": 1, "clip": "norm:0.3", "lr": 0.03}
    logs = {}
    for backend in ("eager", "triton"):
        training = fit(tmp_path / backend, corpus, backend=backend, **how)
        assert training.config.machine.backend == backend
        logs[backend] = read_log(tmp_path / backend / "steps.jsonl")
    assert len(logs["triton"]) == 30
    for eager, triton in zip(logs["eager"], logs["triton"], strict=True):
        assert triton["loss"] == pytest.approx(eager["loss"], abs=1e-4)
        assert triton["grad_norm"] == pytest.approx(eager["grad_norm"], abs=1e-4)
    assert any(step["clipped"] for step in logs["triton"])
    assert logs["triton"][-1]["loss"] < logs["triton"][0]["loss"], "something was learnt"


@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
@pytest.mark.parametrize("strategy", ["chunked", "cut"])
def test_both_strategies_train_and_validate(
    tmp_path: Path, make_text: Any, fit: Any, read_log: Any, strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float32 the plan is always "chunked", so the other one is put in its place: in steps and in the validation."""
    from recurrent_lm import kernels

    assert kernels.linear_cross_entropy
    module = sys.modules["recurrent_lm.kernels.loss.linear_cross_entropy"]  # the attribute of that name is the function
    choose, chosen = module.choose_loss_plan, []

    def forced(*sizes: Any, **how: Any) -> Any:
        chosen.append(how["gradients"])
        return choose(*sizes, **how | {"strategy": strategy})

    corpus = tmp_path / "text.txt"
    corpus.write_text(make_text(700))
    how = {"bptt": 4, "max_steps": 3, "epochs": 1}
    fit(tmp_path / "eager", corpus, backend="eager", **how)
    monkeypatch.setattr(module, "choose_loss_plan", forced)
    fit(tmp_path / "triton", corpus, backend="triton", **how)
    assert chosen[:3] == [True] * 3, "three steps"
    assert chosen[3:] and not any(chosen[3:]), "then text that is scored"
    for log, keys in (("steps.jsonl", ("loss", "grad_norm")), ("epochs.jsonl", ("valid_loss",))):
        for eager, triton in zip(read_log(tmp_path / "eager" / log), read_log(tmp_path / "triton" / log), strict=True):
            for key in keys:
                assert triton[key] == pytest.approx(eager[key], abs=1e-4)


def test_without_gpu_or_interpreter_triton_is_refused(
    tmp_path: Path, corpus: Path, refused: Any, flags: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("a GPU runs it")
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    assert not runs_triton(torch.device("cpu"))
    message = refused("train", corpus, "--run", tmp_path / "run", *flags(backend="triton"))
    assert "--backend" in message
    assert "torch" in message
    assert not (tmp_path / "run").exists()
