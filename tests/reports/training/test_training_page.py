"""The page of trainings: its numbers are those of the logs, in a real browser, and while a training goes on."""

import json
import math
import re
import shutil
from pathlib import Path

import pytest

from recurrent_lm import lm
from recurrent_lm.lm import InputError
from recurrent_lm.reports.cli import app
from recurrent_lm.reports.training import Models, place_of, watch, write_page
from recurrent_lm.reports.training.curves import MOST, SHARE_OF, curves
from recurrent_lm.reports.training.told import differences, facts, labels, troubles
from recurrent_lm.studies import run_app

TINY = {"kind": "word", "hidden_size": 8, "rows": 4, "bptt": 8, "threads": 1, "device": "cpu", "min_count": 1, "dropout": 0.0}
EVIL = '<script>alert(1)</script> & "jobs"'


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "speech.txt"
    path.write_text(f"We want jobs. They want peace. {EVIL}. All of us build good roads (Applause.) and schools. " * 40)
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory, text):
    """A tanh network and an LSTM of one text, and a run that diverged."""
    folder = tmp_path_factory.mktemp("runs")
    lm.train(text, folder / "tanh", quiet=True, cell="rnn-tanh", epochs=4, lr=0.02, **TINY)
    lm.train(text, folder / "lstm", quiet=True, cell="lstm", epochs=3, lr=0.03, clip="norm:0.2", sample=EVIL, **TINY)
    with pytest.raises(lm.Diverged):
        lm.train(text, folder / "burst", quiet=True, cell="rnn-relu", optimizer="sgd", lr=1e6, clip="none", epochs=9, **TINY)
    return [folder / name for name in ("burst", "lstm", "tanh")]


@pytest.fixture(scope="module")
def page(runs, tmp_path_factory):
    out = tmp_path_factory.mktemp("page") / "page.html"
    write_page(runs, out, [], Models())
    return out


def data_of(page):
    (match,) = re.findall(r'<script type="application/json" id="curves">(.*?)</script>', page.read_text(), re.DOTALL)
    return json.loads(match)


def test_the_curves_are_the_logs_own_numbers(runs, page):
    data = data_of(page)
    assert [run["name"] for run in data["runs"]] == ["burst", "lstm", "tanh"]
    for path, run in zip(runs[1:], data["runs"][1:], strict=True):
        history = lm.history(path)
        assert [step[0] for step in run["steps"]] == [r["step"] for r in history.steps]
        for column, key in ((1, "loss"), (2, "grad_norm"), (3, "grad_norm"), (4, "lr")):
            assert [step[column] for step in run["steps"]] == pytest.approx([r[key] for r in history.steps], rel=1e-5)
        assert [e[1] for e in run["epochs"]] == pytest.approx([r["valid_loss"] for r in history.epochs], rel=1e-5)
        assert [e[2] for e in run["epochs"]] == pytest.approx([r["valid_bits_per_byte"] for r in history.epochs], rel=1e-5)
        assert run["best"] == history.best["step"]
        a, b = run["bits"]
        for record in history.epochs:
            assert a * record["train_loss"] + b == pytest.approx(record["train_bits_per_byte"], rel=1e-4)
        share = 100 * sum(r["clipped"] for r in history.steps[:SHARE_OF]) / len(history.steps[:SHARE_OF])
        assert run["clipped"][0] == [history.steps[:SHARE_OF][-1]["step"], pytest.approx(share)]
        assert len(run["lags"]) == 40 and all(norm is None or norm > 0 for _, norm in run["lags"])
    assert data["runs"][1]["threshold"] == 0.2
    assert data["runs"][0]["threshold"] is None


def test_many_updates_are_few_points_with_the_same_means(runs):
    history = lm.history(runs[2])
    record = history.steps[0]
    norms = [float(1 + n % 7) for n in range(5 * MOST + 3)]
    many = [record | {"step": n + 1, "grad_norm": norm, "loss": norm} for n, norm in enumerate(norms)]
    points = curves(lm.History(**{**vars(history), "steps": many}))
    assert len(points["steps"]) <= MOST
    assert points["steps"][-1][0] == len(norms)
    assert points["steps"][0][1:4] == pytest.approx([sum(norms[:6]) / 6, sum(norms[:6]) / 6, max(norms[:6])])


def test_what_is_not_finite_is_left_out(runs):
    history = lm.history(runs[2])
    record = history.steps[0] | {"loss": math.inf, "grad_norm": math.nan}
    points = curves(lm.History(**{**vars(history), "steps": [record]}))
    assert points["steps"][0][1:4] == [None, None, None]


def test_texts_next_words_and_the_divergence_are_on_the_page(runs, page):
    content = page.read_text()
    for path in runs[1:]:
        history = lm.history(path)
        for sample in history.samples:
            assert len(history.samples) >= 3
            shown = content.count(f"after epoch {sample['epoch']}")
            assert shown
    assert EVIL not in content, "text from outside is escaped"
    assert content.count("<script") == 2, "the numbers and the page's own script"
    (_, norms), *_ = troubles(lm.history(runs[0]))
    assert norms and f"{norms[-1]:.3g}" in content
    assert "diverged" in dict(facts([lm.history(runs[0])]))["training"][0]
    run = lm.load(runs[2], device="cpu")
    likely = lm.next_token(run, lm.history(runs[2]).samples[0]["prompt"]).top(1)[0]
    assert f"<span>{100 * likely.probability:.1f}%</span>" in content


def test_settings_that_differ_and_facts(runs):
    histories = [lm.history(run) for run in runs[1:]]
    rows = dict(differences(histories))
    assert rows["model.cell"] == ["lstm", "rnn-tanh"]
    assert rows["training.clip"] == ["norm:0.2", "norm:1"]
    assert "batches.rows" not in rows, "the same in both"
    assert dict(differences(histories[:1]))["batches.rows"] == ["4"], "of one run what is not the default"
    told = dict(facts(histories))
    assert told["training"] == ["done", "done"]
    for value, history in zip(told["vocabulary |V|"], histories, strict=True):
        assert value == f"{history.about['corpus']['types']:,}"
    assert told["best epoch"] == [str(h.best["epoch"]) for h in histories]


def test_names_of_runs_can_be_told_apart():
    assert labels([Path("a/x"), Path("a/y")]) == ["x", "y"]
    assert labels([Path("a/x"), Path("b/x")]) == ["a/x", "b/x"]
    assert labels([Path("a/x"), Path("a/x")])[0].endswith("a/x")


def test_the_page_goes_into_the_run_or_beside_several():
    assert place_of([Path("runs/a")]) == Path("runs/a/training.html")
    assert place_of([Path("runs/a"), Path("runs/b")]) == Path("runs/training.html")
    assert place_of([Path("runs/a"), Path("/tmp/b")]).is_absolute()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_browser_shows_every_chart_and_nothing_is_cut_off(look, page, dark):
    seen, console = look([page], (1280, 390), dark)
    assert console == []
    for view in seen:
        assert view["found"] == [], view["width"]
        assert view["loaded"] == 0, "the page asks the network"
        assert view["drawings"] == 5


def test_the_command_makes_the_page_of_a_folder_of_runs(runs, tmp_path, capsys):
    for run in runs[1:]:
        shutil.copytree(run, tmp_path / run.name)
    assert run_app(app, "reports", ["training", str(tmp_path), "--prompt", "We want"]) == 0
    assert capsys.readouterr().out == f"page: {tmp_path / 'training.html'}\n"
    content = (tmp_path / "training.html").read_text()
    assert "P(v | We want)" in content and "the students opened their" not in content


@pytest.mark.parametrize("case", ["nowhere", "no run", "not ours", "no page", "damaged"])
def test_bad_input_is_one_sentence(runs, tmp_path, capsys, case):
    run, out = tmp_path / "run", tmp_path / "page.html"
    shutil.copytree(runs[2], run)
    if case == "nowhere":
        run = tmp_path / "nowhere"
    elif case == "no run":
        run = tmp_path / "empty"
        run.mkdir()
    elif case == "not ours":
        out.write_text("somebody's own page")
    elif case == "no page":
        out = tmp_path / "page.txt"
    else:
        (run / "about.json").write_text("{")
    before = out.read_text() if out.exists() else None
    assert run_app(app, "reports", ["training", str(run), "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("reports: ") and error.count("\n") == 1
    assert (out.read_text() if out.exists() else None) == before


def test_watching_writes_the_page_anew_until_the_training_has_ended(text, tmp_path):
    """The first look comes before the run is there, the next ones while it trains."""
    out, run, told, states = tmp_path / "page.html", tmp_path / "run", [], []
    training = None

    def wait(seconds):
        nonlocal training
        states.append(data_of(out) if out.exists() else None)
        if len(states) == 1:
            config = lm.RunConfig().replace(source=str(text), cell="lstm", epochs=2, **TINY)
            training = lm.new_training(config, run)
        elif len(states) == 3:
            training.run(quiet=True)
        elif len(states) > 9:
            raise AssertionError("the watch does not end")

    opened = []
    watch([run], out, [], told.append, opened.append, wait)
    assert states[0] is None, "nothing is there yet"
    assert states[1]["refresh"] > 0 and states[1]["runs"][0]["epochs"] == []
    last = data_of(out)
    assert last["refresh"] == 0
    assert len(last["runs"][0]["epochs"]) == 2
    assert len(last["runs"][0]["lags"]) == 40
    assert opened == [out.as_uri()]


def test_an_interrupt_ends_the_watch_with_a_page_that_stays(runs, text, tmp_path):
    out = tmp_path / "page.html"
    training = lm.new_training(lm.RunConfig().replace(source=str(text), epochs=1, **TINY), tmp_path / "run")

    def interrupt(seconds):
        assert data_of(out)["refresh"] > 0
        raise KeyboardInterrupt

    watch([runs[2], tmp_path / "run"], out, [], lambda line: None, None, interrupt)
    assert data_of(out)["refresh"] == 0
    training.lock.release()


def test_models_are_asked_once_a_checkpoint(runs, tmp_path, monkeypatch):
    models, loads = Models(), []
    load = lm.load
    monkeypatch.setattr("recurrent_lm.lm.load", lambda *a, **k: loads.append(a) or load(*a, **k))
    for _ in range(2):
        write_page(runs[1:2], tmp_path / "page.html", ["We want", "They want"], models)
    asked = [a for a in loads if a == (runs[1],)]
    assert len(asked) == 1, "for all prompts, and not again for the second page"


def test_a_run_whose_text_is_gone_has_everything_but_the_gradient(runs, text, tmp_path):
    moved = text.with_suffix(".away")
    text.rename(moved)
    try:
        write_page(runs[2:], tmp_path / "page.html", [], Models())
    finally:
        moved.rename(text)
    (run,) = data_of(tmp_path / "page.html")["runs"]
    assert run["lags"] == [] and run["epochs"]
    assert "is not at" in (tmp_path / "page.html").read_text()


def test_an_empty_prompt_is_told_on_the_page(runs, tmp_path):
    write_page(runs[2:], tmp_path / "page.html", [""], Models())
    assert "the prompt is empty" in (tmp_path / "page.html").read_text()


def test_pages_of_other_programs_are_never_written_over(runs, tmp_path):
    (tmp_path / "page.html").write_text("mine")
    with pytest.raises(InputError, match="was not made by reports"):
        write_page(runs[2:], tmp_path / "page.html", [], Models())
    assert (tmp_path / "page.html").read_text() == "mine"
