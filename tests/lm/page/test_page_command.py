"""The command lm page: the file that it writes, what it measures, and what it refuses."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from page_content import decoded, read

from recurrent_lm import lm
from recurrent_lm.lm.page import document
from recurrent_lm.lm.page.weights import pack, unpack
from recurrent_lm.lm.runs import checkpoint
from recurrent_lm.lm.runs.folder import weights_of
from recurrent_lm.lm.scoring.evaluate import evaluate
from recurrent_lm.lm.text.data import prepare


@pytest.fixture(autouse=True)
def _few_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies are counted in fewer texts, for speed."""
    monkeypatch.setattr(document, "TEXTS", 5)


@pytest.mark.parametrize("int8", [False, True], ids=["float16", "int8"])
def test_the_page_holds_the_run_and_says_what_rounding_costs(
    int8: bool, trained_words: Path, lm_command: Any, tmp_path: Path
) -> None:
    out = tmp_path / "page.html"
    code, printed, err = lm_command("page", trained_words, "--out", out, *["--int8"] * int8)
    assert (code, err) == (0, "")
    run = lm.load(trained_words, device="cpu")
    told, data = read(out.read_text())
    rounded = unpack(pack(weights_of(run.model), int8))
    assert {name: w.tolist() for name, w in decoded(told, data).items()} == {name: w.tolist() for name, w in rounded.items()}
    valid = prepare(run.config, run.tokenizer).valid
    before = evaluate(run.model, valid).bits_per_byte
    after = evaluate(document.rounded_model(run, pack(weights_of(run.model), int8)), valid).bits_per_byte
    told = told["about"]
    assert told["rounding"] == {"before": before, "after": after, "tokens": len(valid.ids)}
    assert abs(after - before) < (0.05 if int8 else 0.001)
    assert f"{after - before:+.5f} bits per byte" in printed
    assert told["parameters"] == sum(w.numel() for w in rounded.values())
    assert f"{out.stat().st_size / 10**6:.2f} MB" in printed


def test_the_page_says_how_much_of_what_it_writes_is_copied(trained_words: Path, lm_command: Any, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    code, printed, _ = lm_command("page", trained_words, "--out", out, "--prompt", "we build", "--prompt", "they want")
    assert code == 0
    run = lm.load(trained_words, device="cpu")
    corpus = prepare(run.config, run.tokenizer).corpus
    training = lm.TrainingText(piece.text for piece in corpus.splits()["train"])
    rounded = lm.Run(run.path, run.config, run.tokenizer, document.rounded_model(run, pack(weights_of(run.model))), run.meta)
    draws = lm.Draws(100, 0.8, seed=1)
    written = [
        training.compare(sample.text, prompt)
        for prompt in ("we build", "they want")
        for sample in lm.generate_batch(rounded, prompt, 5, draws)
    ]
    told = read(out.read_text())[0]["about"]
    assert told["copied"]["texts"] == 10
    assert told["copied"]["ngrams"] == sum(c.ngrams for c in written) > 0
    assert told["copied"]["share"] == pytest.approx(1 - sum(c.novel for c in written) / sum(c.ngrams for c in written))
    assert told["copied"]["longest"] == max(c.longest for c in written)
    assert 0 <= told["copied"]["held_out"] <= 1
    assert f"{told['copied']['share']:.0%}" in printed
    assert f"<b>{100 * told['copied']['share']:.0f}&nbsp;% copied.</b>" in out.read_text()
    assert told["prompts"] == ["we build", "they want"]


def test_copies_of_a_text_without_words_are_not_counted(fit: Any, lm_command: Any, tmp_path: Path) -> None:
    text, out = tmp_path / "dna.txt", tmp_path / "page.html"
    text.write_text("gattaca" * 300)
    fit(tmp_path / "run", text, kind="char", hidden_size=4, epochs=1)
    code, printed, err = lm_command("page", tmp_path / "run", "--out", out)
    assert (code, err) == (0, "") and "5-grams" not in printed
    told = read(out.read_text())[0]["about"]
    assert told["rounding"] is not None and told["copied"] is None
    assert "copied.</b>" not in out.read_text()


def test_prompts_are_of_the_held_out_text_and_known(trained_words: Path, lm_command: Any, tmp_path: Path) -> None:
    assert lm_command("page", trained_words, "--out", tmp_path / "page.html")[0] == 0
    prompts = read((tmp_path / "page.html").read_text())[0]["about"]["prompts"]
    run = lm.load(trained_words, device="cpu")
    valid = " ".join(piece.text for piece in prepare(run.config, run.tokenizer).corpus.splits()["valid"])
    assert prompts and len(set(prompts)) == len(prompts)
    for prompt in prompts:
        assert prompt in valid and not run.tokenizer.unknown(prompt)


def test_a_character_models_page_has_its_units(
    trained: Path, lm_command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(document.TOKENS, "char", 30)
    assert lm_command("page", trained, "--out", tmp_path / "page.html")[0] == 0
    units = read((tmp_path / "page.html").read_text())[0]["about"]["units"]
    assert len(units["scale"]) == 16 and "place in the word" in units["scores"]
    assert all(len(scores) == 16 and min(scores) >= 0 and max(scores) <= 1 for scores in units["scores"].values())


def test_the_page_stands_in_the_run_and_is_written_anew(trained_words: Path, lm_command: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained_words, run)
    assert lm_command("page", run, "--title", "One <b>")[0] == 0
    first = (run / "page.html").read_text()
    assert "<h1>One &lt;b&gt;</h1>" in first
    assert lm_command("page", run, "--title", "Two")[0] == 0
    second = (run / "page.html").read_text()
    assert "<h1>Two</h1>" in second
    assert re.sub("One (<|&lt;|\\\\u003c)b(>|&gt;)", "Two", first) == second
    assert lm.load(run, device="cpu").path == run  # the run is as it was


def test_without_its_text_a_page_is_made_that_measures_nothing(trained_words: Path, lm_command: Any, tmp_path: Path) -> None:
    run, text = tmp_path / "run", tmp_path / "speech.txt"
    shutil.copytree(trained_words, run)
    config = (run / "config.toml").read_text()
    source = re.search(r'source = "(.+)"', config)
    assert source
    (run / "config.toml").write_text(config.replace(source[1], str(text)))
    out = tmp_path / "page.html"
    code, printed, err = lm_command("page", run, "--out", out)
    assert code == 0 and "--corpus PATH" in err and "bits per byte" not in printed
    told = read(out.read_text())[0]["about"]
    assert told["rounding"] is told["copied"] is None
    text.write_text("quite another text. " * 50)
    code, _, err = lm_command("page", run, "--out", out)
    assert code == 0 and "has changed" in err and "--corpus PATH" in err
    assert lm_command("page", run, "--out", out, "--corpus", source[1])[0] == 0
    assert read(out.read_text())[0]["about"]["rounding"] is not None
    code, _, err = lm_command("page", run, "--out", out, "--corpus", text)
    assert code == 2 and "--corpus PATH" in err


def test_bad_input_is_one_sentence_and_leaves_what_was_there(trained: Path, lm_command: Any, tmp_path: Path) -> None:
    mine = tmp_path / "mine.html"
    mine.write_text("my own page")
    damaged = tmp_path / "damaged"
    shutil.copytree(trained, damaged)
    (damaged / "tokens.json").write_text("{}")
    (tmp_path / "empty").mkdir()
    for arguments, name in [
        ([tmp_path / "none"], "none"),
        ([tmp_path / "empty"], "empty"),
        ([damaged], "tokens.json"),
        ([trained, "--out", mine], "--out"),
        ([trained, "--out", tmp_path], "--out"),
        ([trained, "--out", mine / "x.html"], "--out"),
        ([trained, "--prompt", ""], "prompt"),
        ([trained, "--corpus", tmp_path / "nowhere.txt"], "--corpus"),
        ([trained, "--float16"], "--float16"),
        ([trained, "--output", mine], "--out"),
        ([], "RUN"),
    ]:
        code, out, err = lm_command("page", *arguments)
        assert (code, out) == (2, ""), arguments
        assert err.startswith("lm: ") and err.count("\n") == 1 and name in err, err
    assert mine.read_text() == "my own page"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["damaged", "empty", "mine.html"]
    assert not (trained / "page.html").exists()


def test_weights_that_are_not_finite_are_refused(trained: Path, lm_command: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    saved = checkpoint.load(run, "best")
    saved.groups["model"]["decoder.bias"][0] = float("nan")
    checkpoint.save(run, saved, best=True)
    code, _, err = lm_command("page", run)
    assert code == 2 and "decoder.bias" in err and err.count("\n") == 1
    assert not (run / "page.html").exists()
