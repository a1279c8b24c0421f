"""The plan of the headline table, rehearsed with tiny trainings."""

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recurrent_lm.lm import InputError, NGram, RunConfig, prepare
from recurrent_lm.studies import quality
from recurrent_lm.studies.engine.statistics import mean
from recurrent_lm.studies.quality import (
    CHANGES,
    Member,
    ablation_plan,
    ablation_table,
    fill_ablation,
    fill_quality,
    orders,
    plan,
    quality_table,
)

TINY = ["--hidden-size", "4", "--embedding-size", "4", "--layers", "1", "--max-steps", "2", "--epochs", "1", "--rows", "2"]


def written(folder: Path, names: tuple[str, ...] = ("trump-campaign",)) -> Path:
    words = np.array(["we", "will", "make", "it", "great", "again", "jobs", "and", "."])
    for number, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        (folder / name / "a.txt").write_text(" ".join(np.random.default_rng(number).choice(words, 900)))
    return folder


def test_the_plan_has_every_training_once_and_the_campaign_first() -> None:
    members = plan()
    assert len(members) == len({member.name for member in members}) == 27
    assert [m.corpus for m in members] == ["trump-campaign"] * 9 + ["obama"] * 9 + ["trump"] * 9
    assert [(m.preset, m.seed) for m in members[:4]] == [
        ("best-char", 1),
        ("best-bpe", 1),
        ("best-word", 1),
        ("best-char", 2),
    ]


def test_one_training_goes_through_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is trained once; after a stop without a checkpoint it begins anew; a failed one is named."""
    monkeypatch.setattr(quality, "CORPORA", ("trump-campaign",))
    monkeypatch.setattr(quality, "PRESETS", ("best-char",))
    monkeypatch.setattr(quality, "SEEDS", (1,))
    speeches, out = written(tmp_path / "speeches"), tmp_path / "out"
    (out / "trump-campaign-best-char-1").mkdir(parents=True)
    text = fill_quality(speeches, out, options=TINY, most=3)
    result = json.loads((out / "trump-campaign-best-char-1" / "result.json").read_text())
    best = min(orders(speeches / "trump-campaign", "char", 3), key=lambda score: score["valid"])
    figures = f"{result['valid']['bits_per_byte']:.3f} | {result['test']['bits_per_byte']:.3f}"
    counted = f"{best['order']} | {best['valid']:.3f} | {best['test']:.3f}"
    assert text.splitlines()[2] == f"| trump-campaign | best-char | 1 | {figures} | {counted} |"
    assert (out / "quality.md").read_text() == text
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("a finished training was begun again"))
    assert fill_quality(speeches, out, options=TINY, most=3) == text


class Lm:
    """Stands for the program ``lm``: notes the commands, and finishes all runs but those in ``fails``."""

    def __init__(self, fails: tuple[str, ...] = ()) -> None:
        self.commands: list[list[str]] = []
        self.fails = fails

    def __call__(self, command: list[str], **_: Any) -> "subprocess.CompletedProcess[str]":
        self.commands.append(command[3:])
        run = Path(command[command.index("--run") + 1] if "--run" in command else command[4])
        if run.name in self.fails:
            return subprocess.CompletedProcess(command, 1)
        run.mkdir(exist_ok=True)
        bits = 1 + int(run.name[-1]) / 10
        (run / "result.json").write_text(json.dumps({s: {"bits_per_byte": bits} for s in ("valid", "test")}))
        return subprocess.CompletedProcess(command, 0)


def test_what_was_stopped_goes_on_and_what_failed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "PRESETS", ("best-char",))
    speeches, out = written(tmp_path / "speeches"), tmp_path / "out"
    stopped = out / Member("trump-campaign", "best-char", 2).name
    stopped.mkdir(parents=True)
    (stopped / "last.json").write_text("{}")
    lm = Lm(fails=("trump-campaign-best-char-3",))
    monkeypatch.setattr(subprocess, "run", lm)
    with pytest.raises(InputError, match="not trained: trump-campaign-best-char-3; "):
        fill_quality(speeches, out, at_once=1, most=2)
    assert [command[0] for command in lm.commands] == ["train", "resume", "train"]
    assert lm.commands[1][1] == str(stopped)
    assert "| trump-campaign | best-char | 2 | 1.150 (1.100 to 1.200) | 1.150 (1.100 to 1.200) | 2 |" in quality_table(out)
    lm.fails = ()
    assert "| 3 | 1.200 (1.100 to 1.300) |" in fill_quality(speeches, out, at_once=1, most=2)
    assert len(lm.commands) == 4


def test_the_ablation_has_every_change_with_every_seed_and_first_seeds_first() -> None:
    members = ablation_plan()
    assert len(members) == len({member.name for member in members}) == 3 * len(CHANGES)
    assert [(member.change, member.seed) for member in members[:2]] == [("none", 1), ("no-dropout", 1)]
    assert {member.preset for member in members} == {"quick-word"}


def test_the_ablation_trains_with_the_changed_option_and_compares_within_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quality, "CHANGES", {"none": (), "two-layers": ("--layers", "2")})
    lm = Lm(fails=("trump-campaign-two-layers-3",))
    monkeypatch.setattr(subprocess, "run", lm)
    out = tmp_path / "out"
    with pytest.raises(InputError, match="not trained: trump-campaign-two-layers-3; "):
        fill_ablation(written(tmp_path / "speeches"), out, at_once=1)
    assert [command[-3:-1] for command in lm.commands[:2]] == [["--run", str(out / "trump-campaign-none-1")], ["--layers", "2"]]
    for seed, bits in ((1, 1.15), (2, 1.22)):  # the whole preset has 1.1 and 1.2
        result = {split: {"bits_per_byte": bits} for split in ("valid", "test")}
        (out / f"trump-campaign-two-layers-{seed}" / "result.json").write_text(json.dumps(result))
    whole, changed = ablation_table(out).splitlines()[2:]
    assert whole == "| `quick-word` | 3 | 1.200 (1.100 to 1.300) |  | 1.200 (1.100 to 1.300) |  |"
    more = mean([0.05, 0.02])
    assert more.low < 0 < more.high
    assert changed.split(" | ")[3] == f"+0.035 [{more.low:+.3f}, {more.high:+.3f}]"


def test_without_speeches_it_says_so(tmp_path: Path) -> None:
    for fill in (fill_quality, fill_ablation):
        with pytest.raises(InputError, match="--speeches"):
            fill(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_orders_are_those_of_the_n_gram_models(tmp_path: Path) -> None:
    speeches = written(tmp_path / "speeches")
    config = RunConfig().replace(source=str(speeches / "trump-campaign"), kind="char")
    data = prepare(config)
    found = orders(speeches / "trump-campaign", "char", 3)
    assert [score["order"] for score in found] == [2, 3]
    for score in found:
        model = NGram.fit(data.train.ids, data.tokenizer.size, int(score["order"]))
        for split in ("valid", "test"):
            stream = getattr(data, split)
            assert score[split] == pytest.approx(-model.log_probs(stream.ids).sum() / np.log(2) / stream.bytes)
