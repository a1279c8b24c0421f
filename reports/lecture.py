"""The lecture's slides in order, each with the figures that follow it or a command that shows it."""

import re
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
    """A slide of the guide: a command that shows it, the figures that follow it, each with its page, and the one that stands
    for it in the gallery."""

    slide: str
    command: str
    figures: "list[tuple[Page, Shown]]"
    picture: "tuple[Page, Shown] | None"

    @property
    def name(self) -> str:
        """The slide as part of an address."""
        return re.sub(r"[^a-z0-9]+", "-", self.slide.lower()).strip("-")


def guide(pages: "list[Page]") -> list[Row]:
    """The slides with figures or commands; empty if these pages have no figure of any slide.

    If two pages of a study show a figure under one title, the first page, which shows the tables together, is taken.
    """
    figures: dict[tuple[str, str], tuple[Page, Shown]] = {}
    for page in pages:
        for shown in page.drawn:
            figures.setdefault((page.study, shown.title), (page, shown))
    of_slides = {slide: [(page, shown) for page, shown in figures.values() if slide in shown.slides] for slide in SLIDES}
    if not any(of_slides.values()):
        return []
    pictures = _pictures(of_slides)
    return [Row(slide, SLIDES[slide], of, pictures.get(slide)) for slide, of in of_slides.items() if of or SLIDES[slide]]


def _pictures(of_slides: "dict[str, list[tuple[Page, Shown]]]") -> "dict[str, tuple[Page, Shown]]":
    """One figure a slide, each once where there are enough: first for the slides that a figure names first, then for those
    that fewest figures follow."""
    chosen: dict[str, tuple[Page, Shown]] = {}
    used: set[str] = set()

    def take(slide: str, of: "list[tuple[Page, Shown]]") -> None:
        free = [pair for pair in of if pair[1].name not in used]
        if free and slide not in chosen:
            chosen[slide] = free[0]
            used.add(free[0][1].name)

    for slide, of in of_slides.items():
        take(slide, [pair for pair in of if pair[1].slides[0] == slide])
    for slide, of in sorted(of_slides.items(), key=lambda item: len(item[1])):
        take(slide, of)
    return chosen | {slide: of[0] for slide, of in of_slides.items() if of and slide not in chosen}
