"""The lecture's slides in their order, and where each is found: the figures that follow it, or a command that shows it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recurrent_lm.reports.page import Page, Shown

LECTURE = "Language Modeling with Recurrent Neural Networks (Navid Rekab-Saz, Johannes Kepler University Linz)"
# each slide with a command that shows it on a trained run, where there is one
SLIDES = {
    "Language modeling": 'lm next RUN --prompt "the students opened their"',
    "Recurrent neural network": "lm train obama --cell gru",
    "Standard (Elman) RNN": "lm train obama --cell rnn-tanh",
    "RNN language model": "lm train obama",
    "Training": 'lm score RUN "the students opened their schools"',
    "Mini batches, data preparation": "lm train obama --rows 20 --bptt 35",
    "h(0)": "lm train obama --state document",
    "Parameters": "",
    "Weight tying": "lm train obama --tie",
    "Generating text": 'lm generate RUN --prompt "make the country"',
    "Summary of RNNs": "",
    "Backpropagation for RNNs": "",
    "BPTT": "studies run gradient_lag --set run=RUN",
    "Vanishing, exploding": "",
    "Why": "",
    "Why it matters": "",
    "Gradient clipping": "lm train obama --clip norm:0.25",
    "Problem with the vanilla RNN": "",
}


@dataclass(frozen=True)
class Row:
    """A slide of the guide: a command that shows it, and the figures that follow it, each with its page."""

    slide: str
    command: str
    figures: "list[tuple[Page, Shown]]"


def guide(pages: "list[Page]") -> list[Row]:
    """The slides that some figure of these pages follows or a command shows; nothing where no figure follows any. What two
    pages of a study show under one title stands once, that of the first, which shows the tables together."""
    figures: dict[tuple[str, str], tuple[Page, Shown]] = {}
    for page in pages:
        for shown in page.drawn:
            figures.setdefault((page.study, shown.title), (page, shown))
    found = {slide: [(page, shown) for page, shown in figures.values() if slide in shown.slides] for slide in SLIDES}
    if not any(found.values()):
        return []
    return [Row(slide, SLIDES[slide], of) for slide, of in found.items() if of or SLIDES[slide]]
