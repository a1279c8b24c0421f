"""Curves of two backends on top of each other, and their speeds."""

import numpy as np
import pytest
from backend_cases import planted

from recurrent_lm import studies
from recurrent_lm.studies import plots
from recurrent_lm.studies.plotting.style import NARROW, WIDE


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_marks_lie_where_the_other_backend_does(size):
    table = planted(distance=0.05)
    curves, speed = plots("backends")
    claims = studies.verdicts(table)
    (axes,) = curves.draw(table, claims, size).axes
    marks = [line for line in axes.lines if line.get_marker() == "o" and len(line.get_xdata())]
    assert len(marks) == 2
    assert np.asarray(marks[0].get_ydata()) == pytest.approx([6.05, 5.1, 4.05])
    assert curves.caption(table, claims).startswith("The same curve within the spread of the seeds: 2 of 2.")
    (axes,) = speed.draw(table, claims, size).axes
    assert sorted(round(bar.get_width(), 1) for bar in axes.patches) == [10, 10, 20, 20]
    assert "triton trains at least as fast as torch" in speed.caption(table, claims).lower()


def test_nothing_to_draw_is_a_sentence():
    table = planted()
    attrs = table.attrs
    table = table.assign(valid_loss=float("nan"), tokens_per_second=float("nan"))
    table.attrs = attrs
    for plot in plots("backends"):
        with pytest.raises(studies.InputError, match="nothing to draw"):
            plot.draw(table, studies.verdicts(table), WIDE)
