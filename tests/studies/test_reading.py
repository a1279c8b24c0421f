"""How a model reads: the loss by position with the state carried and not, the cut of a text, and what a table decides."""

import json
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from report_cases import READ, readings

from recurrent_lm import lm
from recurrent_lm.lm.scoring.next_token import Next
from recurrent_lm.studies import load, save, verdicts
from recurrent_lm.studies.reading.claims import gains, misplaced
from recurrent_lm.studies.reading.study import PRESETS, Study, by_position


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return lm.LanguageModel(20, lm.ModelConfig(cell="lstm", hidden_size=8))


def truth(model, ids, before=None):
    """-log P of each next token by reading all of it at once."""
    with torch.no_grad():
        hidden, _ = model(ids[None, :-1], before or model.zero_state(1))
        return -model.logits(hidden[:, 0]).double().log_softmax(dim=-1).gather(1, ids[1:, None])[:, 0]


def test_carried_reads_the_text_as_one_and_zero_forgets_it(model):
    ids = torch.from_numpy(np.random.default_rng(0).integers(0, 20, 13))
    losses = by_position(model.eval(), ids, 4)
    whole = truth(model, ids).reshape(3, 4)
    assert torch.allclose(losses["carried"], whole.mean(dim=0), atol=1e-6)
    alone = torch.stack([truth(model, ids[4 * s : 4 * s + 5]) for s in range(3)])
    assert torch.allclose(losses["zero"], alone.mean(dim=0), atol=1e-6)
    assert not torch.allclose(losses["zero"], losses["carried"], atol=1e-4)


def decided(table):
    table.attrs = {"study": "reading", "parameters": json.loads(json.dumps(asdict(READ))), "machine": {}}
    return dict(zip(verdicts(table)["key"], verdicts(table)["verdict"], strict=True))


def test_the_cut_is_the_lectures_and_one_out_of_place_is_found():
    table = readings()
    assert decided(table) == {"sums": "holds", "cut": "holds", "carried": "holds"}
    assert misplaced(table) == 0
    wrong = readings(misplaced=2)
    assert decided(wrong)["cut"] == "fails" and misplaced(wrong) == 2


def test_a_state_that_harms_fails_and_a_sum_off_one_fails():
    assert decided(readings(carried=-0.2))["carried"] == "fails"
    table = readings()
    table.loc[table["way"] == "sum", "value"] = 0.9
    assert decided(table)["sums"] == "fails"


def test_what_carrying_saves_is_the_difference_by_position():
    saved = gains(readings(carried=0.5)).set_index(["seed", "column"])["value"]
    assert saved[1, 1] == pytest.approx(0.501) and saved[2, 1] == pytest.approx(0.502) and saved[1, 3] == 0


def test_a_small_model_is_measured(tmp_path):
    (tmp_path / "texts").mkdir()
    words = ["the students opened their books .", "they read them all day .", "the doors were closed at night ."]
    for i in range(8):
        (tmp_path / "texts" / f"{i}.txt").write_text(" ".join(words[(i + j) % 3] for j in range(20)))
    study = replace(PRESETS["smoke"], corpus=str(tmp_path / "texts"), bptt=5, min_count=1)
    table = study()
    save(table, tmp_path / "t.parquet", "reading", study)
    table = load(tmp_path / "t.parquet")
    cut = table[table["part"] == "cut"].sort_values("place")
    assert cut["place"].tolist() == list(range(1, 25)) and cut["row"].tolist() == [1] * 12 + [2] * 12
    first = cut[cut["way"] == "pass 1"]
    assert first["place"].tolist() == [1, 2, 3, 4, 13, 14, 15, 16]  # x(1) .. x(L) and x(tau + 1) .. x(tau + L)
    likely = table[table["part"] == "next"]
    assert likely["value"].is_monotonic_decreasing and "<unk>" not in set(likely["token"])
    whole = table[table["way"] == "sum"]["value"]
    assert whole.tolist() == pytest.approx([1.0], abs=1e-9)
    assert set(table[table["part"] == "state"]["way"]) == {"carried", "zero"}


def test_unknown_words_are_all_that_the_vocabulary_lacks(monkeypatch):
    """A text that spells <unk> has two ids for them; neither is a word that may be expected."""
    tokenizer = SimpleNamespace(unknown_ids=(1, 3), never=(1,), show=str)
    distribution = Next(np.array([0.1, 0.2, 0.3, 0.15, 0.25]), 0.0, tokenizer)
    monkeypatch.setattr("recurrent_lm.lm.next_token", lambda run, prompt: distribution)
    rows = READ._next(SimpleNamespace(tokenizer=tokenizer))
    assert [row["token"] for row in rows if row["part"] == "next"] == ["2", "4", "0"]
    assert {row["way"]: row["value"] for row in rows if row["part"] == "whole"} == pytest.approx({"sum": 1.0, "unknown": 0.35})


@pytest.mark.parametrize(
    ("changes", "words"), [({"prompt": ""}, "prompt must hold a word"), ({"bptt": 1000}, "bptt of less than")]
)
def test_what_cannot_be_measured_is_refused(changes, words, tmp_path):
    (tmp_path / "text.txt").write_text("the students opened their books . " * 60)
    study = replace(PRESETS["smoke"], corpus=str(tmp_path / "text.txt"), min_count=1, **changes)
    with pytest.raises(lm.InputError, match=words):
        study()


def test_a_table_of_another_kind_is_refused():
    from recurrent_lm.studies.reading.study import complaint

    table = readings()
    assert complaint(Study(), table) == ""
    assert "part" in complaint(Study(), table.assign(part="x"))
    assert "twice" in complaint(Study(), table.iloc[[0, 0]])
