"""What is copied, against a search through all substrings of words."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recurrent_lm.lm.scoring.copying import Copying, TrainingText
from recurrent_lm.lm.text.words import pieces

DOCUMENTS = ["We build the wall, and the people want jobs.", "The country is great. The country is ours!"]


def words(text: str) -> list[str]:
    return [p for p in pieces(text) if not p.isspace()]


def by_search(documents: list[list[str]], sample: list[str]) -> tuple[int, int, int]:
    """(longest overlap, new 5-grams, 5-grams)"""
    seen = {tuple(d[a:b]) for d in documents for a in range(len(d)) for b in range(a + 1, len(d) + 1)}
    longest = max(
        (b - a for a in range(len(sample)) for b in range(a + 1, len(sample) + 1) if tuple(sample[a:b]) in seen), default=0
    )
    grams = [tuple(sample[a : a + 5]) for a in range(len(sample) - 4)]
    return longest, sum(g not in seen for g in grams), len(grams)


TEXTS = st.lists(st.sampled_from(["a", "b", "c", "."]), max_size=30).map(" ".join)


@given(st.lists(TEXTS, min_size=1, max_size=3), TEXTS)
def test_every_overlap_is_found(documents: list[str], sample: str) -> None:
    copying = TrainingText(documents).compare(sample)
    assert (copying.longest, copying.novel, copying.ngrams) == by_search([words(d) for d in documents], words(sample))
    assert len(words(copying.overlap)) == copying.longest
    assert copying.overlap in sample


def test_a_known_overlap() -> None:
    copying = TrainingText(DOCUMENTS).compare(" and the people want peace. The country is great, too")
    assert copying == Copying(12, 4, "and the people want", novel=8, ngrams=8)
    assert "4 words, 'and the people want'; 100% of its 8 5-grams are new" in str(copying)


def test_no_overlap_goes_across_two_documents() -> None:
    assert TrainingText(["one two", "three four"]).compare("one two three four").longest == 2


def test_the_prompt_s_whole_words_do_not_count_but_the_word_it_begins_does() -> None:
    training = TrainingText(DOCUMENTS)
    assert training.compare(" the wall", prompt="We build").longest == 2
    assert training.compare("ild the wall", prompt="We bu").longest == 3


def test_case_counts_unless_the_model_lower_cases() -> None:
    assert TrainingText(DOCUMENTS).compare("THE PEOPLE").longest == 0
    copying = TrainingText(DOCUMENTS, lower=True).compare("We THE PEOPLE")
    assert (copying.longest, copying.overlap) == (2, "THE PEOPLE")


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("", "there is no word to compare with the training text"),
        (" \n", "there is no word to compare with the training text"),
        ("xyzzy", "no word of it is in the training text"),
        ("xyzzy plugh", "no word of it is in the training text"),
    ],
)
def test_nothing_copied_is_said_so(text: str, sentence: str) -> None:
    copying = TrainingText(DOCUMENTS).compare(text)
    assert copying.longest == 0
    assert str(copying) == sentence


def test_words_of_benchmark_files_are_cut_at_spaces() -> None:
    copying = TrainingText(["we <unk> n't go"], split="spaces").compare("they <unk> n't stay")
    assert (copying.words, copying.longest, copying.overlap) == (4, 2, "<unk> n't")


def test_a_long_overlap_is_shortened_for_people_only() -> None:
    speech = " ".join(f"word{i}" for i in range(60))
    copying = TrainingText([speech]).compare(speech)
    assert copying.overlap == speech
    assert re.search(r"60 words, 'word0 .*\[\.\.\.\]'; 0% of its 56", str(copying))
