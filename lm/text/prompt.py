"""A prompt out of a text itself, so that what a model writes can be looked at without thinking of one."""

import re
from collections import Counter

from recurrent_lm.lm.text.data import Data

BEGINNING = re.compile(r"(?:^|[.!?…][\"'”’)\]]*\s+|\n\s*)([^\W\d_]+ [^\W\d_]+)\b")
SEARCHED = 1_000_000  # characters of the training text; the commonest beginning of more is the same


def prompt_of(data: Data) -> str:
    """The two words with which most sentences of the training text begin, among those that the vocabulary knows.

    "" where there are none, so that a text begins as a document does.
    """
    text = "\n".join(piece.text for piece in data.corpus.splits()["train"])[:SEARCHED]
    begun = Counter(BEGINNING.findall(text))
    pairs = [pair for pair, _ in begun.most_common()] or [" ".join(text.split()[:2])]
    return next((pair for pair in pairs if pair and not data.tokenizer.unknown(pair)), "")
