import numpy as np
import pytest
from flow_cases import flow, stored_flow

from recurrent_lm.reports import figure
from recurrent_lm.studies import InputError, listings, load, plots, verdicts
from recurrent_lm.studies.gradient_flow.figures import beside_theory as theory
from recurrent_lm.studies.gradient_flow.figures import language_models_over_lag as language
from recurrent_lm.studies.gradient_flow.figures import networks, paths, slopes
from recurrent_lm.studies.plotting.style import NARROW, WIDE


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return load(stored_flow(tmp_path_factory.mktemp("flow") / "gradient_flow.parquet"))


@pytest.fixture(scope="module")
def claims(table):
    return verdicts(table)


@pytest.fixture(scope="module")
def rest(table):
    """The part of which there is no figure, and what it decides."""
    rest = table[table["part"] == "certificate"].copy()
    return rest, verdicts(rest)


def texts(drawing):
    return [text.get_text() for axes in drawing.axes for text in axes.texts]


@pytest.mark.parametrize("plot", plots("gradient_flow"), ids=lambda p: p.name)
@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_every_figure_is_drawn_at_both_sizes_and_says_what_it_found(plot, size, table, claims):
    drawing = plot.draw(table, claims, size)
    drawing.draw_without_rendering()
    assert any(axes.has_data() or axes.texts for axes in drawing.axes)
    caption = plot.caption(table, claims)
    assert caption.endswith(".") and "nan" not in caption and ".I" not in caption
    assert len(plot.understanding) > 200 and plot.title(table)


@pytest.mark.parametrize("plot", plots("gradient_flow"), ids=lambda p: p.name)
def test_a_table_without_the_part_is_a_sentence(plot, rest):
    table, claims = rest
    with pytest.raises(InputError, match="nothing to draw"):
        plot.draw(table, claims, WIDE)
    assert plot.caption(table, claims)


def test_each_path_is_a_product_that_comes_to_its_norm(table):
    """Norms of dL/dh double at each step forward, and the last factor is 1."""
    picture = paths.steps(table)
    assert picture.chain(4) == [8.0, 1.0] and picture.chain(1) == [8.0, 0.5, 0.5, 0.5, 1.0]
    for i in range(1, 5):
        assert np.prod(picture.chain(i)) == pytest.approx(picture.part[i])
    assert (picture.words, picture.total, picture.probability) == (["the", "students", "opened", "their", "schools"], 7.5, 0.5)
    assert picture.cell == "rnn-tanh"


def test_the_four_paths_are_drawn_apart_with_norms_and_words(table, claims):
    drawing = paths.draw(table, claims, WIDE)
    (axes,) = drawing.axes
    lines = [line for line in axes.lines if len(line.get_xdata()) in (2, 5)]
    assert len(lines) == 4 and len({line.get_color() for line in lines}) == 4
    ends = sorted(line.get_xdata()[-1] for line in lines)
    assert ends == [x + 3.2 for x in paths.COLUMNS]
    lanes = {line.get_ydata()[1] for line in lines}
    assert len(lanes) == 4
    shown = texts(drawing)
    assert {
        "= 8.0",
        "= 4.0",
        "= 2.0",
        "= 1.0",
        "the",
        "students",
        "opened",
        "their",
        "norm of the sum of all four: 7.5",
    } <= set(shown)
    assert "−log P(schools | ..) = 0.69" in shown


def test_the_caption_of_the_paths_has_the_ratio_of_far_to_near(table, claims):
    caption = paths.caption(table, claims)
    assert "“the students opened their”" in caption and "0.12 times" in caption and "50% of the sum" in caption


def test_the_terminal_shows_the_products(table, tmp_path):
    lines = figure(stored_flow(tmp_path / "t.parquet")).lines
    assert lines[1] == "path through step 4: 8.0 × 1.0 = 8.0"
    assert lines[-1] == "norm of their sum: 7.5"


def test_the_map_has_rows_t_and_columns_i(table, claims):
    (plot,) = (p for p in plots("gradient_flow") if p.name == "map")
    left, right, _ = plot.draw(table, claims, WIDE).axes
    assert (left.get_title(), right.get_title()) == ("tanh", "LSTM")
    values = np.ma.filled(left.collections[0].get_array().reshape(4, 4), np.nan)
    assert values[3].tolist() == [0.0, 0.25, 0.5, 1.0]
    assert np.isnan(values[np.triu_indices(4, 1)]).all()
    assert [tick.get_text() for tick in left.get_xticklabels()] == ["the", "students", "opened", "their"]
    assert left.get_ylim()[0] > left.get_ylim()[1]


def test_curves_are_the_medians_of_each_scale(table, claims):
    panels = networks.draw(table, claims, WIDE).axes
    assert [axes.get_title() for axes in panels[:2]] == ["tanh", "LSTM"] and panels[0].get_yscale() == "log"
    assert [line.get_label() for line in panels[0].lines] == ["g = 0.7", "g = 1.2", "g = 2"]
    x, y = panels[0].lines[0].get_data()
    assert np.allclose(y, np.exp((np.log(0.7) - 0.5) * np.asarray(x)))
    assert "tanh grows from g = 2 on" in networks.caption(table, claims)


def test_theory_starts_at_one_with_its_slope(table, claims):
    left, right, near = theory.draw(table, claims, WIDE).axes
    assert left.get_title() == "g = 1.2"
    by_label = {line.get_label(): line for line in left.lines}
    x, y = by_label["spectral radius, log ρ"].get_data()
    assert y[0] == 1 and np.log(y[1]) / x[1] == pytest.approx(np.log(1.2))
    (container,) = right.containers
    assert np.allclose(container[0].get_ydata(), np.log([0.7, 1.2, 2.0]) - 0.5)
    gaps = table[table["quantity"].isin(["half_log_chi", "exponent"]) & (table["cell"] == "rnn-tanh")]
    gaps = gaps.pivot_table(index=["scale", "seed"], columns="quantity", values="value")
    assert np.allclose(near.lines[0].get_ydata(), gaps["half_log_chi"] - gaps["exponent"])


def test_slopes_stand_beside_their_theory_for_each_network(table, claims):
    figure = slopes.draw(table, claims, WIDE)
    tanh = next(axes for axes in figure.axes if axes.get_title() == "tanh")
    (container,) = tanh.containers
    assert np.allclose(container[0].get_ydata(), np.log([0.7, 1.2, 2.0]) - 0.5)
    lines = {line.get_label(): line.get_ydata() for line in tanh.lines}
    assert np.allclose(lines["spectral radius, log ρ"], np.log([0.7, 1.2, 2.0]))


def test_numbers_for_a_quick_answer_are_the_tables(table):
    models, random = listings(table)
    assert [row[0] for row in models.rows] == ["tanh", "LSTM"]
    assert models.rows[0][3:5] == ["2", "4"]  # credit horizon, before and after
    assert [row[0] for row in random.rows] == ["0.7", "1.2", "2"] and random.rows[1][1] == "1.20"
    assert [row[-1] for row in random.rows] == ["vanishes", "vanishes", "explodes"]
    assert random.numeric == [True] * 6 + [False]


def test_a_missed_theory_is_explained_and_one_that_holds_is_not(table, claims):
    chi = claims["key"] == "chi"
    where = chi & claims["setting"].str.contains("g = 0.7")
    missed = claims.assign(verdict=claims["verdict"].mask(where, "fails"), reason=claims["reason"].mask(where, "of the moon"))
    assert " It is missed at g = 0.7: of the moon." in theory.caption(table, missed)
    assert "missed" not in theory.caption(table, claims)


def test_language_models_are_shown_before_and_after(table, claims):
    panels = language.draw(table, claims, WIDE).axes
    titles = [axes.get_title() for axes in panels]
    assert titles == [f"{c}, {w}" for c in ("obama", "trump") for w in ("at initialisation", "after training")]
    assert [line.get_label() for line in panels[1].lines] == ["tanh", "LSTM"]
    horizon, _ = language.draw_training(table, claims, WIDE).axes
    assert horizon.lines[0].get_ydata().tolist() == [2.0, 3.0, 4.0]
    assert "tanh 2 to 4, LSTM 2 to 4" in language.training_caption(table, claims)


def test_made_up_numbers_stand_in_no_order(table):
    """Rows in another order make the same figure."""
    shuffled = flow().sample(frac=1, random_state=1).reset_index(drop=True)
    shuffled.attrs = table.attrs
    assert paths.steps(shuffled).part == paths.steps(table).part
