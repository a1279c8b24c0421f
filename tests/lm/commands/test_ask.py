"""The commands eval, next, score and generate: what they print, and what they refuse."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from recurrent_lm import lm
from recurrent_lm.lm.scoring.dynamic import dynamic_losses
from recurrent_lm.lm.scoring.evaluate import token_losses
from recurrent_lm.lm.scoring.interpolate import fit_weight, mix
from recurrent_lm.lm.scoring.next_token import next_token, score_text
from recurrent_lm.lm.scoring.ngram import NGram
from recurrent_lm.lm.text.data import prepare

# -- all of them ----------------------------------------------------------------------------------------------------


def test_asking_on_a_cpu_does_not_import_triton(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A question would take a third longer: what it costs beside torch is mostly imports."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.delenv("KERNELS_BACKEND", raising=False)
    program = f"""
import sys
from recurrent_lm.lm.commands.cli import main
for command in (["next", "--prompt", "we"], ["score", "we"], ["generate", "--length", "3", "--prompt", "we"]):
    try:
        main([command[0], {str(trained)!r}, *command[1:], "--device", "cpu"])
    except SystemExit as end:
        assert not end.code, end.code
print([name for name in ("torch", "triton") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "['torch']"), done.stderr


# -- eval -----------------------------------------------------------------------------------------------------------


def figures(out: str) -> dict[str, list[float]]:
    """The table's rows: name to [nats a token, perplexity, bits per byte]."""
    rows = [re.split(r"\s{2,}", line) for line in out.splitlines()[2:]]
    return {row[0]: [float(x.replace(",", "")) for x in row[1:]] for row in rows}


def test_eval_repeats_the_test_figures_of_the_training(trained: Path, lm_command: Any) -> None:
    code, out, err = lm_command("eval", trained, "--ngram", 0)
    test = json.loads((trained / "result.json").read_text())["test"]
    assert (code, err) == (0, "")
    assert figures(out)["model"] == pytest.approx([test["loss"], test["perplexity"], test["bits_per_byte"]], abs=6e-3)
    assert f"{test['tokens']:,} tokens" in out


def test_eval_in_every_way(trained: Path, lm_command: Any) -> None:
    code, out, _ = lm_command("eval", trained, "--interpolate", "--dynamic", "--dynamic-lr", 0.3, "--ngram", 3, "--json")
    assert code == 0
    values = {score["name"].rstrip("0123456789. "): score for score in json.loads(out)["scores"]}
    run = lm.load(trained, device="cpu")
    data = prepare(run.config, run.tokenizer)
    counted = NGram.fit(data.train.ids, run.tokenizer.size, 3)
    learning = dynamic_losses(run.model, data.test.ids, lr=0.3, bptt=8)
    weight = fit_weight(-dynamic_losses(run.model, data.valid.ids, lr=0.3, bptt=8), counted.log_probs(data.valid.ids))
    expected = [
        token_losses(run.model, data.test.ids),
        learning,
        -counted.log_probs(data.test.ids),
        -mix(-learning, counted.log_probs(data.test.ids), weight),
    ]
    assert [s["loss"] for s in json.loads(out)["scores"]] == pytest.approx([e.mean() for e in expected], rel=1e-5)
    assert len(values) == 4
    assert f"{weight:.2f} learning on + {1 - weight:.2f} 3-gram" in out


def test_the_rate_of_dynamic_evaluation_is_fitted_on_the_validation_split(
    monkeypatch: pytest.MonkeyPatch, trained: Path, lm_command: Any
) -> None:
    import recurrent_lm.lm.scoring.compare

    run = lm.load(trained, device="cpu")
    data = prepare(run.config, run.tokenizer)
    cost = {lr: dynamic_losses(run.model, data.valid.ids, lr=lr, bptt=8).sum() for lr in (0.01, 0.2, 50.0)}
    best = min(cost, key=lambda lr: cost[lr])
    monkeypatch.setattr(recurrent_lm.lm.scoring.compare, "RATES", tuple(cost))
    _, out, _ = lm_command("eval", trained, "--dynamic", "--ngram", 0)
    assert f"learning on, rate {best:g}" in out
    assert best != 50.0, "or the search ended at its edge"


def test_eval_of_another_text(trained_words: Path, tmp_path: Path, lm_command: Any) -> None:
    other = tmp_path / "other.txt"
    other.write_text("We keep zebras. They love peace and jobs.\n")
    code, out, _ = lm_command("eval", trained_words, "--corpus", other, "--split", "all", "--ngram", 0)
    assert code == 0
    run = lm.load(trained_words, device="cpu")
    # A whole document, so its <eos> counts; the unknown word pays its spelling.
    ids = [*run.tokenizer.encode(other.read_text()), 0]
    nats = token_losses(run.model, prepare_ids(ids)).sum() + run.tokenizer.spelling_nats(other.read_text())
    assert figures(out)["model"][2] == pytest.approx(nats / math.log(2) / 42, abs=6e-4)
    assert f"all text of other: {len(ids)} tokens, 42 bytes" in out


def prepare_ids(ids: list[int]) -> Any:
    import numpy as np

    return np.asarray(ids, dtype=np.int32)


def test_a_fit_on_what_is_scored_is_said(trained: Path, lm_command: Any) -> None:
    assert "flatter" in lm_command("eval", trained, "--split", "valid", "--interpolate")[2]
    assert lm_command("eval", trained, "--split", "valid")[2] == ""


def test_how_the_text_was_read_is_said(trained: Path, lm_command: Any) -> None:
    tokens = int(lm_command("eval", trained, "--ngram", 0)[1].split()[4].replace(",", ""))
    _, out, err = lm_command("eval", trained, "--ngram", 0, "--rows", 10**6, "--warmup", 3, "--dynamic", "--dynamic-lr", 0.1)
    assert f"{tokens:,} rows, each after 3 tokens or all before it" in out
    assert "learning on reads the text as one row" in err
    out = lm_command("eval", trained, "--ngram", 0, "--rows", tokens - 1)[1]
    assert f"; {-(-tokens // 2)} rows\n" in out, "two tokens each"
    _, out, err = lm_command("eval", trained, "--ngram", 0, "--rows", 4)
    assert "; 4 rows\n" in out
    assert err == ""


def test_a_corpus_that_changed_is_said(tmp_path: Path, make_text: Any, fit: Any, lm_command: Any) -> None:
    text = tmp_path / "text.txt"
    text.write_text(make_text(1500))
    fit(tmp_path / "run", text, epochs=1)
    text.write_text(make_text(1500, seed=2))
    code, _, err = lm_command("eval", tmp_path / "run")
    assert code == 0
    assert "has changed since" in err


@pytest.mark.parametrize(
    "how, word",
    [
        (["--split", "dev"], "--split"),
        (["--rows", 0], "--rows"),
        (["--warmup", -1], "--warmup"),
        (["--ngram", 21], "--ngram"),
        (["--ngram", -1], "--ngram"),
        (["--dynamic", "--dynamic-lr", "nan"], "--dynamic-lr"),
        (["--dynamic", "--dynamic-lr", "inf"], "--dynamic-lr"),
        (["--dynamic", "--dynamic-lr", -1], "--dynamic-lr"),
        (["--dynamic-lr", 0.1], "--dynamic"),
        (["--masks", -1], "--masks"),
        (["--masks", 10001], "--masks"),
        (["--mask-seed", 2], "--masks"),
        (["--dynamic", "--dynamic-lr", 1e30], "diverges"),
        (["--dynamic", "--dynamic-lr", 1e30, "--interpolate"], "diverges"),
        (["--interpolate", "--ngram", 0], "--interpolate"),
        (["--corpus", "nowhere.txt"], "nowhere.txt"),
        (["--corpus", "obama", "--encoding", "klingon"], "klingon"),
    ],
)
def test_eval_refuses_what_makes_no_sense(trained: Path, refused: Any, how: list[Any], word: str) -> None:
    if "klingon" in how:
        how[1] = trained / "config.toml"
    assert word in refused("eval", trained, *how)


# -- next -----------------------------------------------------------------------------------------------------------


def test_next_shows_the_distribution(trained_words: Path, lm_command: Any) -> None:
    run = lm.load(trained_words, device="cpu")
    distribution = next_token(run, "the people")
    code, out, err = lm_command("next", trained_words, "--prompt", "the people", "--top", 5)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == f"P(v | the people), the likeliest 5 of {run.tokenizer.size}:"
    shown = [line.split() for line in lines[1:6]]
    assert [float(p.rstrip("%")) / 100 for _, p, *_ in shown] == pytest.approx(
        [t.probability for t in distribution.top(5)], abs=6e-5
    )
    assert len(shown[0][2]) == 40, "the longest bar"
    rest = [float(line.split()[1].rstrip("%")) / 100 for line in lines[6:8]]
    assert rest[1] == pytest.approx(distribution.unknown, abs=6e-5)
    assert sum(rest) + sum(t.probability for t in distribution.top(5)) == pytest.approx(1, abs=3e-4)
    assert f"entropy {distribution.bits:.2f} bits" in lines[-1]


def test_next_leaves_unknown_out_unless_asked_and_says_how_much_it_holds(trained_words: Path, lm_command: Any) -> None:
    unknown = lm.load(trained_words, device="cpu").tokenizer.unknown_ids
    values = {}
    for flags in ((), ("--unknown",)):
        values[flags] = json.loads(lm_command("next", trained_words, "--top", 10**6, "--json", *flags)[1])
    without, every = values.values()
    assert every["prompt"] is None
    assert sum(t["probability"] for t in every["top"]) == pytest.approx(1)
    assert sum(t["probability"] for t in without["top"]) == pytest.approx(1 - without["unknown"])
    assert {t["id"] for t in every["top"]} - {t["id"] for t in without["top"]} == set(unknown)
    assert all(t["bits"] == pytest.approx(-math.log2(t["probability"])) for t in every["top"])
    assert every["unknown"] == sum(t["probability"] for t in every["top"] if t["id"] in unknown) > 0


def test_next_says_what_is_unknown_and_refuses_what_makes_no_sense(trained: Path, lm_command: Any, refused: Any) -> None:
    assert "'ж' is not in the vocabulary" in lm_command("next", trained, "--prompt", "ж")[2]
    assert "--top" in refused("next", trained, "--top", 0)
    assert "empty" in refused("next", trained, "--prompt", "")
    assert "nowhere" in refused("next", "nowhere")


# -- score ----------------------------------------------------------------------------------------------------------


def test_score_of_a_text_and_of_the_same_in_a_file(trained_words: Path, tmp_path: Path, lm_command: Any) -> None:
    text = "We want zebras.\n"
    file = tmp_path / "text.txt"
    file.write_text(text)
    scored = score_text(lm.load(trained_words, device="cpu"), text)
    outs = [lm_command("score", trained_words, source) for source in (text, file)]
    assert outs[0] == outs[1]
    assert outs[0][1].count("# warning") == 2, "few words, and most of the text unknown"
    lines = [line for line in outs[0][1].splitlines() if not line.startswith("# warning")]
    assert [float(line.split("\t")[0]) for line in lines[1:-1]] == pytest.approx([p.total for p in scored.pieces], abs=1e-4)
    assert [line.split("\t")[2] for line in lines[1:-1]] == ["We", "␣want", "␣zebras", ".", "\\n"]
    assert f"{scored.bits_per_byte:.3f} bits per byte" in lines[-1]
    as_json = json.loads(lm_command("score", trained_words, text, "--json")[1])
    assert as_json["nats"] == pytest.approx(scored.nats)
    assert [p["text"] for p in as_json["pieces"]] == [p.text for p in scored.pieces]


def test_the_page_holds_the_text_and_is_safe(trained: Path, tmp_path: Path, lm_command: Any, refused: Any) -> None:
    page = tmp_path / "page.html"
    text = "we <b>build</b> & \"keep\" </p><script>alert('x')</script>\n"
    assert lm_command("score", trained, text, "--html", page)[0] == 0
    html = page.read_text()
    spans = re.findall(r'<span style="background:(#\w{6})" title="([^"]*)">(.*?)</span>', html, re.DOTALL)
    import html as library

    assert library.unescape("".join(body for _, _, body in spans)) == text
    assert html.count("<script") == 1, "only the page's own"
    assert "<b>" not in html
    before = page.read_bytes()
    assert "exists already" in refused("score", trained, "we", "--html", page)
    assert page.read_bytes() == before
    assert "no folder" in refused("score", trained, "we", "--html", tmp_path / "none" / "page.html")


def test_a_page_for_which_there_is_no_room_leaves_nothing(trained: Path, tmp_path: Path, spawn: Any) -> None:
    page = tmp_path / "page.html"
    child = spawn(["score", trained, "we", "--html", page], file_size=1000)
    assert child.wait() == 2
    assert child.err.read_text() == f"lm: {page} cannot be written: File too large; choose another --html\n"
    assert "bits per byte" in child.out.read_text()
    assert not list(tmp_path.iterdir())


def test_score_in_a_terminal_is_coloured_from_pale_to_red(
    trained: Path, lm_command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    from recurrent_lm.lm.commands import surprise

    monkeypatch.setenv("COLORTERM", "truecolor")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    scored = score_text(lm.load(trained, device="cpu"), "we w€")
    surprise.print_scored(scored)
    assert [surprise.colour(b) for b in (0.0, 0.99, 1.0, 11.9, 12.0, 1e9, math.inf)] == [
        surprise.COLOURS[i] for i in (0, 0, 1, 4, 5, 5, 5)
    ]


def test_score_in_a_terminal_without_colours_gives_each_token_a_line(
    trained: Path, lm_command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    from rich.console import Console

    from recurrent_lm.lm.commands import surprise

    monkeypatch.setattr(surprise, "Console", lambda **how: Console(**how, force_terminal=True))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm-256color")
    assert "bits: " in lm_command("score", trained, "we")[1]
    for name, value in (("NO_COLOR", "1"), ("TERM", "dumb")):
        monkeypatch.setenv(name, value)
        lines = lm_command("score", trained, "we")[1].splitlines()
        assert [line.split("\t")[2] for line in lines[:-1]] == ["token", "w", "e"]
        monkeypatch.delenv("NO_COLOR", raising=False)


@pytest.mark.parametrize("text", ["", "\x00" * 3, "a" * 5000])
def test_any_text_can_be_scored_but_none(trained: Path, lm_command: Any, refused: Any, text: str) -> None:
    if text:
        assert lm_command("score", trained, text)[0] == 0
    else:
        assert "no token" in refused("score", trained, text)


def test_a_folder_or_undecodable_file_is_refused(trained: Path, tmp_path: Path, lm_command: Any, refused: Any) -> None:
    assert str(tmp_path) in refused("score", trained, tmp_path)
    assert "there is no file 'sepeches.txt'" in refused("score", trained, "sepeches.txt")
    assert "there is no file 'we/they'; it is scored" in lm_command("score", trained, "we/they")[2]
    bad = tmp_path / "bad.txt"
    bad.write_bytes(b"we \xff")
    assert "--encoding" in refused("score", trained, bad)


# -- generate -------------------------------------------------------------------------------------------------------


def test_generate_says_what_is_copied(trained: Path, corpus: Path, lm_command: Any) -> None:
    from recurrent_lm.lm.scoring.copying import TrainingText
    from recurrent_lm.lm.text.corpora import split

    code, out, err = lm_command("generate", trained, "--prompt", "we", "--seed", 1, "--length", 200)
    assert code == 0
    train = [piece.text for piece in split([corpus.read_text()])["train"]]
    assert err == f"lm: {TrainingText(train).compare(out.removeprefix('we').removesuffix(chr(10)), 'we')}\n"


def test_a_training_text_that_is_gone_is_said(tmp_path: Path, make_text: Any, fit: Any, lm_command: Any) -> None:
    text = tmp_path / "text.txt"
    text.write_text(make_text(1500))
    fit(tmp_path / "run", text, epochs=1)
    text.unlink()
    code, out, err = lm_command("generate", tmp_path / "run", "--length", 5)
    assert code == 0
    assert out
    assert err.startswith("lm: not compared with the training text: ")
    assert "--corpus PATH" in err


def test_batches_of_samples_equal_single_ones(trained: Path, lm_command: Any) -> None:
    how = ["--prompt", "we", "--length", 60, "--no-copied"]
    alone = [lm_command("generate", trained, *how, "--seed", 7 + i)[1].removesuffix("\n") for i in range(3)]
    _, out, _ = lm_command("generate", trained, *how, "--seed", 7, "--samples", 3)
    assert out == "".join(f"--- {i + 1} of 3\n{text}\n" for i, text in enumerate(alone))
    content = json.loads(lm_command("generate", trained, *how, "--seed", 7, "--samples", 3, "--json")[1])
    assert ["we" + sample["text"] for sample in content["samples"]] == alone
    assert content["samples"][0]["copied"] is None


@pytest.mark.parametrize(
    "how, word",
    [
        (["--samples", 0], "--samples"),
        (["--samples", 10**9], "--samples"),
        (["--no-repeat-ngram", -1], "--no-repeat-ngram"),
        (["--stop", ""], "--stop"),
        (["--length", 0, "--json"], "--length"),
    ],
)
def test_generate_refuses_what_makes_no_sense(trained: Path, refused: Any, how: list[Any], word: str) -> None:
    assert word in refused("generate", trained, *how, *(["--json"] if "--samples" in how else []))


def test_no_folder_is_touched(trained: Path, lm_command: Any) -> None:
    before = {p: p.stat().st_mtime_ns for p in trained.rglob("*")}
    lm_command("eval", trained, "--dynamic", "--interpolate")
    lm_command("score", trained, "we")
    lm_command("next", trained)
    assert {p: p.stat().st_mtime_ns for p in trained.rglob("*")} == before
