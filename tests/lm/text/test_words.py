"""How text is cut into words, and which white space goes without saying."""

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from recurrent_lm.lm.text.tokens import WordTokenizer
from recurrent_lm.lm.text.words import Line, pieces, spaced, word_counts

scalars = st.characters(exclude_categories=["Cs"])
# marks and white space in every combination are rare in texts of any characters
crowded = st.text(st.sampled_from(" \n\t\r\u3000\u2028\"'’“”‘([{)]}.,;:!?…%-–—/$#@ab1é_"), max_size=40)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("don't we’ll rock'n'roll", ["don't", " ", "we’ll", " ", "rock'n'roll"]),
        ("3,000.50 20th 1990s 9/11", ["3,000.50", " ", "20th", " ", "1990s", " ", "9", "/", "11"]),
        ("in 2010, 5.", ["in", " ", "2010", ",", " ", "5", "."]),
        ("word--word ---", ["word", "--", "word", " ", "---"]),
        ("wait... no.. yes.", ["wait", "...", " ", "no", "..", " ", "yes", "."]),
        ("'tis the people's'", ["'", "tis", " ", "the", " ", "people's", "'"]),
        ("a \n\t b", ["a", " \n\t ", "b"]),
        ("naïve_x-ray", ["naïve_x", "-", "ray"]),
        ("<eos>", ["<", "eos", ">"]),
        ("🙂!?", ["🙂", "!", "?"]),
    ],
)
def test_pieces_by_hand(text: str, expected: list[str]) -> None:
    assert pieces(text) == expected


@settings(deadline=None)
@given(st.text(scalars) | crowded)
def test_pieces_joined_are_the_text(text: str) -> None:
    assert "".join(pieces(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "Thank you, Mr. Speaker: we can; we will!",
        'He said "yes" twice.',
        '"Yes," she said. "No?"',
        "“Yes,” she said, “and ‘no.’”",
        "(Applause.) Thank you [laughter] {sic}",
        "a state-of-the-art plan—ours—and 1990–2000, and/or",
        "$5 or 5% of #1 at @home",
        "wait… no",
        'one "two" "three" four',
    ],
)
def test_ordinary_spacing_needs_no_token(text: str) -> None:
    assert spaced(pieces(text)) == [part for part in pieces(text) if part != " "]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("a b", ["a", "b"]),
        ("a  b", ["a", "  ", "b"]),
        ("a\nb", ["a", "\n", "b"]),
        ("a\u3000b", ["a", "\u3000", "b"]),
        (" a", [" ", "a"]),
        ("a ", ["a", " "]),
        (" ", [" "]),
        ("a ,b", ["a", " ", ",", None, "b"]),
        ("a,b", ["a", ",", None, "b"]),
        ("( a )", ["(", " ", "a", " ", ")"]),
        ("a(b)c", ["a", None, "(", "b", ")", None, "c"]),
        ("a - b", ["a", " ", "-", " ", "b"]),
        ("a--b", ["a", None, "--", None, "b"]),
        ("a -- b", ["a", "--", "b"]),
        ("a...", ["a", None, "..."]),
        ('a"b"', ["a", None, '"', "b", '"']),
        ('"a" b', ['"', "a", '"', "b"]),
        ('a " b " c', ["a", '"', " ", "b", " ", '"', "c"]),
        ('a "b" "c"', ["a", '"', "b", '"', '"', "c", '"']),
        ('a "b\n"c" d', ["a", '"', "b", "\n", '"', "c", '"', "d"]),  # an open quotation does not outlive its line
        ('a "b  c" d', ["a", '"', "b", "  ", "c", '"', "d"]),  # but it does outlive other white space
        ("a\n,b", ["a", "\n", ",", None, "b"]),
        ("(\na", ["(", "\n", "a"]),
    ],
)
def test_unexpected_spacing_is_a_token(text: str, expected: list[str | None]) -> None:
    assert spaced(pieces(text)) == expected


def test_a_line_begins_without_a_gap() -> None:
    line = Line()
    assert line.gap("a") == line.gap('"') == line.gap(",") == ""
    line.add("a")
    assert (line.gap("b"), line.gap('"'), line.gap(",")) == (" ", " ", "")


@settings(deadline=None, max_examples=300)
@given(st.text(scalars) | crowded)
@example('a "b\n"c" d')  # a newline closes the open quotation for the decoder too
@example('a "b  c" d')
@example('a "b, c" "d" e')
def test_spacing_is_lossless(text: str) -> None:
    tokens = spaced(pieces(text))
    types = sorted({t for t in tokens if t is not None})
    decoder = WordTokenizer(types, [], "punctuation", False).decoder()
    ids = [WordTokenizer.JOIN if t is None else 3 + types.index(t) for t in tokens]
    assert "".join(decoder.push(i) for i in ids) + decoder.flush() == text


@pytest.mark.parametrize(
    ("choice", "counts"),
    [
        ({}, {"Jobs": 1, "jobs": 2, "don't": 1, "3,000": 1, "We": 1, "é": 1}),
        ({"lower": True}, {"jobs": 3, "don't": 1, "3,000": 1, "we": 1, "é": 1}),
        ({"split": "spaces"}, {"Jobs,": 1, "jobs--jobs": 1, "don't": 1, "3,000": 1, "We": 1, "é!": 1}),
    ],
)
def test_words_hold_a_letter_or_a_digit(choice: dict[str, Any], counts: dict[str, int]) -> None:
    assert word_counts(["Jobs, jobs--jobs -- don't", "3,000 ... ! We\n_ é!"], **choice) == counts
