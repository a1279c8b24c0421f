"""What models write after the lecture's prompts, how much of it they copy and how often they say it again."""

import math
from collections import Counter
from typing import Any

from recurrent_lm import lm
from recurrent_lm.studies.engine.language_models import Trained

PROMPTS = ("Jobs", "make the country", "the students opened their")  # of the lecture's slides
LIKELY, DRAWN = 0.0, 0.8  # temperatures of the samples
REPEATED = 4  # words in a row that count as said again


def samples(trained_model: Trained, length: int, seed: int) -> list[dict[str, Any]]:
    """One row a prompt and temperature: the text, and what it has in common with the training text and with itself."""
    training = lm.TrainingText([piece.text for piece in trained_model.data.corpus.splits()["train"]])
    rows = []
    for prompt in PROMPTS:
        for temperature in (DRAWN, LIKELY):
            draws = lm.Draws(length=length, temperature=temperature, seed=seed)
            text = lm.generate_batch(trained_model.run, prompt, 1, draws)[0].text
            copied = training.compare(text, prompt)
            novel = copied.novel / copied.ngrams if copied.ngrams else math.nan
            of = {"part": "sample", "prompt": prompt, "temperature": temperature, "sample": text}
            rows.append(
                of | {"longest": copied.longest, "novel": novel, "words": len(text.split()), "repeated": repeated(text)}
            )
    return rows


def repeated(text: str) -> float:
    """Share of a text's 4-grams of words that occurred in it before; nan for fewer than four words."""
    words = text.split()
    grams = Counter(zip(*(words[i:] for i in range(REPEATED)), strict=False))
    total = sum(grams.values())
    return 1 - len(grams) / total if total else math.nan
