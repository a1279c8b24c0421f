"""What figures say of measurements of 0, missing or infinite: a caption, or the sentence that there is nothing to draw."""

import pytest
from small_tables import PLACES, WRONG, judged

from recurrent_lm.studies import InputError, answer, finding, listings, plots
from recurrent_lm.studies.plotting.style import WIDE

SHOWN = ("value", "seconds", "weight_norm", "bits_per_byte", "perplexity", "valid_loss", "tokens_per_second", "nats")
DRAWN = [(*place, kind) for place in PLACES for kind in ("zero", "missing") if place[1] in SHOWN]


@pytest.mark.parametrize(("name", "column"), PLACES)
@pytest.mark.parametrize("kind", [*WRONG, "same"])
def test_a_caption_is_text_whatever_was_measured(name, column, kind):
    table, claims = judged(name, column, kind)
    for plot in plots(name):
        try:
            lines = [plot.title(table), plot.caption(table, claims)]
        except InputError as error:
            lines = [str(error)]
        assert all(lines) and not any("nan%" in text for text in lines), lines
    answered = answer(table, claims)
    told = [finding(table, claims, plot.name) for plot in plots(name)] + [answered.sentence if answered else ""]
    assert not any("nan" in text.split() for text in told) and all(text[-1:] in ("", ".") for text in told), told
    assert all(listing.columns is not None for listing in listings(table))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "column", "kind"), DRAWN)
def test_a_figure_is_drawn_or_refused_in_a_sentence(name, column, kind):
    from matplotlib import pyplot

    table, claims = judged(name, column, kind)
    for plot in plots(name):
        try:
            plot.draw(table, claims, WIDE)
        except InputError as error:
            assert str(error) and "\n" not in str(error)
        finally:
            pyplot.close("all")
