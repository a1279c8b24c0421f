"""A study that was run in part has a page, too: what was not measured is not drawn, and says so."""

import pytest
from flow_cases import stored_flow
from report_cases import speech_scores, stored_clippings, stored_reaches, stored_speeds, tying

import recurrent_lm.reports.page
from recurrent_lm.reports.page import make
from recurrent_lm.reports.svg import inline
from recurrent_lm.studies import load, save
from recurrent_lm.studies.speeches.study import Study as Speeches
from recurrent_lm.studies.weight_tying.study import Study as WeightTying

STORED = {
    "long_range": stored_reaches,
    "gradient_flow": stored_flow,
    "clipping": stored_clippings,
    "throughput": lambda path: stored_speeds(path, rounds=6, cell=("lstm",), steps=(64, 16, 32), tokens=(64,)),
    "speeches": lambda path: save(speech_scores(), path, "speeches", Speeches(cell=("rnn-tanh", "lstm"))),
    "weight_tying": lambda path: save(tying(), path, "weight_tying", WeightTying(vocabulary=(100_000,), sizes=(64,))),
}


@pytest.mark.parametrize("study", STORED)
def test_each_part_alone_makes_a_page(study, tmp_path, monkeypatch):
    """Each figure is drawn at both sizes and becomes SVG at one; whole tables' become SVG elsewhere."""
    monkeypatch.setattr(recurrent_lm.reports.page, "inline", lambda *_: "")
    STORED[study](tmp_path / "table.parquet")
    table = load(tmp_path / "table.parquet")
    whole = [shown.name for shown in make(table, "whole", "").figures if not shown.problem]
    monkeypatch.setattr(recurrent_lm.reports.page, "inline", lambda *how: inline(*how) if how[1].endswith("1") else "")
    drawn = []
    for part in table["part"].unique():
        figures = make(table[table["part"] == part].reset_index(drop=True), "whole", "").figures
        assert len(figures) >= len(whole)
        for shown in figures:
            assert bool(shown.problem) != bool(shown.drawing)
            if shown.problem:
                assert shown.problem.startswith("there is nothing to draw")
            else:
                assert shown.caption
                drawn.append(shown.name)
    assert drawn
    assert set(drawn) <= set(whole)
