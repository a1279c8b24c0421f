"""Remarks about a text and its tokens that figures do not show: doubts and advice."""

from collections import defaultdict

import regex

from recurrent_lm.lm.base.storage import digest
from recurrent_lm.lm.config import TokensConfig
from recurrent_lm.lm.text.corpora import SPLITS, Corpus, Piece
from recurrent_lm.lm.text.data import Data
from recurrent_lm.lm.text.tokenizer import Tokenizer
from recurrent_lm.lm.text.tokens import LONGEST_PIECE, long_pieces
from recurrent_lm.lm.text.words import word_counts

FEW_WORDS, MUCH_UNKNOWN = 100, 0.3  # fewer known words, or a larger unknown share, make a perplexity meaningless
LITTLE_WORDS = 5_000  # a tenth of fewer words gives a perplexity that another tenth would not repeat
LITTLE_CHARACTERS = 8 * LITTLE_WORDS  # a corpus with more is large enough, also in scripts without spaces
UNSPACED = regex.compile(r"[\p{LB=SA}\p{Han}\p{Hiragana}\p{Katakana}]+")  # scripts that put no spaces between words
UNSPACED_SHARE = 0.1  # of the letters; less does not matter
NO_LETTERS = regex.compile(r"\P{L}+")
LINE = 20  # words; shorter lines may be equal by chance
NAMED = 3  # documents named in a sentence at most


def unknown_share(unknown: int, tokens: int) -> str:
    """The share of unknown tokens, which stands beside each perplexity."""
    return f"{unknown / max(tokens, 1):.1%} of the tokens unknown"


def doubts(tokenizer: Tokenizer, unknown: int, tokens: int) -> list[str]:
    """Warnings beside a perplexity that means little because <unk> is easy to predict.

    Args:
        tokenizer: of the run.
        unknown, tokens: how many tokens are unknown, and how many there are.

    Returns:
        Sentences; none if there is no doubt.
    """
    known = tokenizer.known_words
    warnings = []
    if known is not None and known < FEW_WORDS:
        warnings.append(
            f"warning: the vocabulary knows {known} words and marks, so that perplexity says little; compare bits per byte, or "
            "train on more text or with a lower --min-count"
        )
    if unknown > MUCH_UNKNOWN * tokens:
        warnings.append(
            f"warning: {unknown_share(unknown, tokens)}, so that perplexity says little; compare bits per byte, or take "
            "--tokens char or bpe"
        )
    return warnings


def little_text(corpus: Corpus, tokens: TokensConfig) -> list[str]:
    """A warning for a corpus that is too small for its perplexity to mean much."""
    documents = [text for _, text in corpus.documents]
    if sum(map(len, documents)) >= LITTLE_CHARACTERS:
        return []
    words = word_counts(documents, tokens.split, tokens.lower).total()
    if words >= LITTLE_WORDS:
        return []
    return [
        f"warning: {corpus.name} has {words:,} words; below {LITTLE_WORDS:,} a perplexity means little, "
        "as it hangs on the few words held out: take more text"
    ]


def of_data(data: Data, tokens: TokensConfig) -> list[str]:
    """All remarks about a corpus and its tokens."""
    texts = [text for _, text in data.corpus.documents]
    return [*data.corpus.notes, *twice(data.corpus), *_unspaced(texts, tokens), *_unbroken(texts, tokens)]


def twice(corpus: Corpus) -> list[str]:
    """Name documents that are equal up to white space, first those in two splits. Short lines do not count."""
    same: dict[str, list[int]] = defaultdict(list)
    for number, (_, text) in enumerate(corpus.documents):
        words = text.split()
        if words and not (corpus.eos_bytes and len(words) < LINE):
            same[_digest(words)].append(number)
    groups = [group for group in same.values() if len(group) > 1]
    if not groups:
        return []
    splits = _splits_of_documents(corpus)
    places = {number: "/".join(splits[number]) for group in groups for number in group}
    across = [group for group in groups if len({split for number in group for split in splits[number]}) > 1]
    inside = [group for group in groups if group not in across]
    sentences = []
    for copies, harm in ((across, "what is trained on is also scored, which flatters"), (inside, "it counts that often")):
        for group in copies[:NAMED]:
            named = ", ".join(f"{corpus.documents[number][0]} ({places[number]})" for number in group[:NAMED])
            more = f" and {len(group) - NAMED:,} more" if len(group) > NAMED else ""
            sentences.append(f"the same document {len(group)} times: {named}{more}; {harm}, so keep one")
        if len(copies) > NAMED:
            sentences.append(f"{len(copies) - NAMED:,} more documents come twice; {harm}")
    return sentences


def seen_in_training(scored: list[Piece], trained: list[Piece]) -> list[str]:
    """Warn if long pieces of a scored text are whole pieces of the training text."""
    known = {_digest(piece.text.split()) for piece in trained}
    long = [words for piece in scored if len(words := piece.text.split()) >= LINE]
    count = sum(_digest(words) in known for words in long)
    return [f"{count:,} of the {len(scored):,} documents were trained on, which flatters"] if count else []


def _digest(words: list[str]) -> str:
    return digest(" ".join(words).encode())


def _splits_of_documents(corpus: Corpus) -> list[list[str]]:
    """For each document the splits that contain it."""
    splits, number = corpus.splits(), 0
    places: list[list[str]] = [[] for _ in corpus.documents]
    for name in SPLITS:
        for piece in splits[name]:
            places[number].append(name)
            number += piece.ends
    return places


def _unspaced(texts: list[str], tokens: TokensConfig) -> list[str]:
    """Warn about word tokens for scripts without spaces, such as Thai or Chinese, where a word token would be a clause."""
    if tokens.kind != "word":
        return []
    letters, others = 0, 0
    for text in texts:
        of_text = NO_LETTERS.sub("", text)
        letters, others = letters + len(of_text), others + len(UNSPACED.sub("", of_text))
    share = 1 - others / max(letters, 1)
    if letters == 0 or share < UNSPACED_SHARE:
        return []
    return [
        f"{share:.0%} of the letters are of scripts that put no spaces between words, where a word token is a whole "
        "clause; --tokens char or --tokens bpe serve better"
    ]


def _unbroken(texts: list[str], tokens: TokensConfig) -> list[str]:
    """Report the pieces that the byte-pair tokenizer cuts."""
    count = sum(map(long_pieces, texts)) if tokens.kind == "bpe" else 0
    if not count:
        return []
    pieces = "1 piece of the text goes" if count == 1 else f"{count:,} pieces of the text go"
    return [
        f"{pieces} on for more than {LONGEST_PIECE} bytes without a break, as DNA does; the tokenizer cuts there every "
        f"{LONGEST_PIECE} bytes, and no byte pair reaches across a cut"
    ]
