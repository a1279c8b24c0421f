"""Names that other trainers give to settings lead to ours."""

from pathlib import Path
from typing import Any

import pytest
import typer

from recurrent_lm.lm.commands.cli import app
from recurrent_lm.lm.usual import _USUAL, _USUAL_OF, meant, usual


def options() -> dict[str, set[str]]:
    """{command: its options and the names of its arguments}."""
    root: Any = typer.main.get_command(app)
    values = {}
    commands = {**root.commands, **root.commands["corpora"].commands}
    for name, command in commands.items():
        named = {opt for p in command.params if p.param_type_name == "option" for opt in p.opts}
        values[name] = named | {(p.metavar or "").strip("[]") for p in command.params if p.param_type_name == "argument"}
    return values


def test_every_name_leads_to_an_option_that_exists() -> None:
    commands = options()
    everything = set.union(*commands.values())
    for here in {option for names in _USUAL for option in names.split(", ")}:
        if here.startswith("lm "):
            assert here.split()[1] in commands
        else:
            assert here.split()[0] in everything, here
    for command, names in _USUAL_OF.items():
        for name, here in names.items():
            assert here.split()[0] in commands[command], here
            assert name not in commands[command], "it is an option of its own"


def test_no_name_of_the_table_is_the_option_that_it_leads_to() -> None:
    for name, here in usual().items():
        assert name not in here
        assert name == name.lower().replace("_", "-")


@pytest.mark.parametrize(
    "command, names, here",
    [
        ("train", "--learning-rate --learning_rate -learning_rate", "--lr"),
        ("train", "--batch-size --batch_size --batch --bsz --per_device_train_batch_size", "--rows"),
        ("train", "--seq-len --seq_length --block_size --max_seq_length", "--bptt"),
        ("train", "--hidden --nhid --rnn_size -rnn_size --hidden_size", "--hidden-size"),
        ("train", "--emsize --n_embd", "--embedding-size"),
        ("train", "--nlayers --n-layers --n_layer --num_layers", "--layers"),
        ("train", "--steps --max-iters --max_iters", "--max-steps"),
        ("train", "--grad-clip --grad_clip --clip-grad-norm --max_grad_norm", "--clip"),
        ("train", "--dropout-rate", "--dropout"),
        ("train", "--wd --wdecay", "--weight-decay"),
        ("train", "--optim", "--optimizer"),
        ("train", "--num_train_epochs --max_epochs", "--epochs"),
        ("train", "--data --dataset --corpus", "CORPUS"),
        ("train", "--out_dir --save", "--run"),
        ("resume", "--num-epochs", "--epochs"),
        ("resume", "--data", "--corpus"),
        ("generate", "--temp", "--temperature"),
        ("generate", "--max_new_tokens --tokens --words", "--length"),
        ("generate", "--num_samples", "--samples"),
        ("generate", "--start --primetext", "--prompt"),
        ("generate", "--checkpoint", "RUN"),
        ("next", "--top_k --k", "--top"),
        ("eval", "--batch-size", "--rows"),
        ("eval", "--data", "--corpus"),
        ("score", "--text --prompt", "TEXT|FILE"),
        ("params", "--nhid", "--hidden-size"),
        ("params", "--vocab", "--vocabulary"),
        ("show", "--tokenizer", "--tokens"),
    ],
)
def test_usual_names_are_told_the_option(refused: Any, command: str, names: str, here: str) -> None:
    full = ["corpora", "show"] if command == "show" else [command]
    for name in names.split():
        assert f" is {'the argument ' * here.isupper()}{here}" in refused(*full, name, "1"), name


def test_a_name_leads_nowhere_where_the_command_has_no_such_option(refused: Any) -> None:
    assert meant("--learning-rate", "runs", options()["runs"]) == ""
    assert "--learning-rate" in refused("runs", "--learning-rate", "1")
    assert "--nonsense" in refused("train", "--nonsense", "1")
    assert "--vocabulary" in refused("params", "--vocab-size", "500")


def test_a_settings_file_is_told_the_same(tmp_path: Path, refused: Any) -> None:
    file = tmp_path / "a.toml"
    for text, place in (
        ("[training]\nlearning_rate = 1.0\n", "[training] lr"),
        ("[training]\nbatch_size = 1\n", "[batches] rows"),
        ("[batches]\nhidden_size = 1\n", "[model] hidden_size"),
        ("[tokens]\ntokens = 'char'\n", "[tokens] kind"),
        ("[corpus]\ndata = 'x'\n", "[corpus] source"),
    ):
        file.write_text(text)
        assert place in refused("train", "--config", file)
