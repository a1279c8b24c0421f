"""Figures and texts of models of speeches, and of weight tying."""

import pytest
from report_cases import EVIL, speech_scores, tying

from recurrent_lm.reports import build
from recurrent_lm.studies import InputError, passages, plots, save, verdicts
from recurrent_lm.studies.plotting.style import NARROW, WIDE
from recurrent_lm.studies.speeches.study import Study as Speeches
from recurrent_lm.studies.weight_tying.study import Study as WeightTying


def plot_of(study, name):
    return next(plot for plot in plots(study) if plot.name == name)


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_each_cell_has_its_network_mixture_and_the_count(size):
    table = speech_scores()
    figure = plot_of("speeches", "cells").draw(table, verdicts(table), size)
    left = figure.axes[0]
    assert left.get_title() == "obama" and [t.get_text() for t in left.get_yticklabels()] == ["tanh", "LSTM"]
    by = {line.get_label(): list(line.get_xdata()) for line in left.lines}
    assert by["network"] == pytest.approx([1.8, 1.7]) and by["n-gram model alone"][0] == pytest.approx(1.75)
    assert by["network and n-gram mixed"] == pytest.approx([1.65, 1.6])


def test_the_caption_names_the_best_and_counts_the_claims():
    table = speech_scores()
    caption = plot_of("speeches", "cells").caption(table, verdicts(table))
    assert caption.startswith("Gates help in 0 of 2 comparisons with the best Elman network; 2 are ambiguous.")
    assert "obama: the best network is LSTM with 1.700, the 5-gram model has 1.750, the best mixture 1.600" in caption


def test_the_matrix_has_own_texts_in_bold():
    table = speech_scores()
    (axes,) = plot_of("speeches", "matrix").draw(table, verdicts(table), WIDE).axes
    fields = {t.get_text(): t.get_fontweight() for t in axes.texts}
    assert fields == {"1.80": "bold", "1.70": "bold", "2.30": "normal", "2.20": "normal"}
    assert "4 of 4" in plot_of("speeches", "matrix").caption(table, verdicts(table))


def test_texts_are_those_of_one_cell_and_are_escaped_on_the_page(tmp_path, monkeypatch):
    monkeypatch.setattr("recurrent_lm.reports.page.plots", lambda study: ())  # figures take their time
    table = speech_scores(sample=EVIL)
    titles = [passage.title for passage in passages(table)]
    assert titles == [f"{c}, LSTM, temperature {t}: “Jobs”" for c in ("obama", "trump") for t in ("0.8", "0")]
    save(table, tmp_path / "speeches.parquet", "speeches", Speeches(cell=("rnn-tanh", "lstm")))
    built = build([tmp_path / "speeches.parquet"], tmp_path / "pages")
    for ending in (".html", ".md"):
        page = (built.index.parent / f"speeches{ending}").read_text()
        assert "<script>document" not in page and "&lt;script" in page


def test_bars_are_as_long_as_the_matrices_are_large():
    table = tying()
    (axes,) = plot_of("weight_tying", "counts").draw(table, verdicts(table), WIDE).axes
    totals = [float(t.get_text()) for t in axes.texts]
    assert totals[0] == pytest.approx((2 * 100_000 * 64 + 2 * 64 * 64) / 1e6, abs=0.06)
    lengths = [bar.get_width() for bar in axes.patches]
    assert sum(lengths[::4]) == pytest.approx(totals[0], abs=0.06)
    caption = plot_of("weight_tying", "counts").caption(table, verdicts(table))
    assert "E and U hold 99% of the untied model; tying saves 50% of it." in caption and "(holds)" in caption


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_a_line_joins_a_model_and_its_tied_twin(size):
    table = tying()
    figure = plot_of("weight_tying", "perplexity").draw(table, verdicts(table), size)
    joined = [line for line in figure.axes[0].lines if line.get_linestyle() == "-"]
    assert len(joined) == 2 and all(len(line.get_xdata()) == 2 for line in joined)
    caption = plot_of("weight_tying", "perplexity").caption(table, verdicts(table))
    assert "at the same d and h 0.9" in caption and "through a projection where d < h 0.9" in caption


@pytest.mark.parametrize(
    ("study", "name", "empty"),
    [("speeches", name, "bits_per_byte") for name in ("cells", "matrix")]
    + [("speeches", "copying", "novel"), ("weight_tying", "perplexity", "perplexity")],
)
def test_nothing_to_draw_is_a_sentence(study, name, empty):
    table = speech_scores() if study == "speeches" else tying()
    attrs = table.attrs
    table = table.assign(**{empty: float("nan")})
    table.attrs = attrs
    with pytest.raises(InputError, match="nothing to draw"):
        plot_of(study, name).draw(table, verdicts(table), WIDE)


def test_the_parameters_of_made_up_tables_are_real(tmp_path):
    save(tying(), tmp_path / "t.parquet", "weight_tying", WeightTying(vocabulary=(100_000,), sizes=(64,)))
