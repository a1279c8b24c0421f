"""Words of scripts whose letters carry marks, and scripts without spaces."""

from pathlib import Path
from typing import Any

import pytest
import regex
from hypothesis import example, given, settings
from hypothesis import strategies as st

from recurrent_lm.lm.config import TokensConfig
from recurrent_lm.lm.text.tokens import WordTokenizer, build
from recurrent_lm.lm.text.words import FIRST_PIECE, PIECE, SPACE, WORD, X, pieces, word_counts

ONE_WORD = {
    "Hindi": "हिन्दी",
    "Thai": "ที่นี่",
    "vocalised Arabic": "السَّلَامُ",
    "pointed Hebrew": "בְּרֵאשִׁית",
    "decomposed French": "e\u0301te\u0301",
    "Yoruba": "o\u0323\u0300ro\u0323\u0300",
    "Persian with a zero-width non-joiner": "می\u200cخواهم",
    "Malayalam with a zero-width joiner": "അവന\u0d4d\u200d",
    "a soft hyphen": "co\u00adoperation",
    "an apostrophe behind a mark": "d’e\u0301te\u0301",
    "a number with a mark": "3\u0305,000\u0305.5",
}
marked = st.text(st.sampled_from("ae1 \n\r\t.,-'’\"(\u0301\u0323\u200c\u200d\u00ad\ufe0f\uff9e\u094d❤की😀"), max_size=30)


@pytest.mark.parametrize("word", ONE_WORD.values(), ids=list(ONE_WORD))
def test_marks_belong_to_the_word(word: str) -> None:
    assert pieces(f"{word} ({word}), {word}.") == [word, " ", "(", word, ")", ",", " ", word, "."]
    assert word_counts([f"{word} {word}"]) == {word: 2}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\u0301a", ["\u0301", "a"]),
        ("a \u0301b", ["a", " ", "\u0301", "b"]),
        ("a\r\n\u0301", ["a", "\r\n", "\u0301"]),
        ("❤\ufe0f!", ["❤\ufe0f", "!"]),
        ("--\ufe0f-", ["--\ufe0f", "-"]),
        ("हिन्दी।", ["हिन्दी", "।"]),
        ("a\u200bb", ["a", "\u200b", "b"]),  # a zero-width space separates
        ("a\x1cb", ["a", "\x1c", "b"]),
    ],
)
def test_marks_elsewhere(text: str, expected: list[str]) -> None:
    assert pieces(text) == expected


@settings(deadline=None, max_examples=200)
@given(marked)
@example("cafe\u0301 cafe\u0301")
def test_marked_text_comes_back(text: str) -> None:
    assert "".join(pieces(text)) == text
    tokenizer = build([text, "two words"], TokensConfig(min_count=1))
    ids = tokenizer.encode(text)
    assert WordTokenizer.UNK not in ids
    assert tokenizer.decode(ids) == text
    assert "".join(tokenizer.cut(text)) == text


@settings(deadline=None, max_examples=200)
@given(
    st.text(st.characters(exclude_categories=["Cs", "Cn", "Co"]).filter(lambda c: not regex.match(f"[{X}]", c)), max_size=40)
)
@example("Don't – we’ll pay $3,000.50 (20th)...")
def test_text_without_marks_is_cut_as_before(text: str) -> None:
    assert PIECE.findall(text) == FIRST_PIECE.findall(text)


def test_letters_and_white_space_are_python_s() -> None:
    assigned = regex.compile(r"\P{Cn}")
    word, space = regex.compile(f"[{WORD}]"), regex.compile(SPACE)
    for code in [*range(0x3100), *range(0xFB00, 0x10000), *range(0x1D400, 0x1D800), 0x2F800]:
        c = chr(code)
        assert bool(space.match(c)) == c.isspace(), hex(code)
        if assigned.match(c) and c.isprintable():  # older Pythons know fewer characters
            assert bool(word.match(c)) == (c.isalnum() or c == "_"), hex(code)


@pytest.mark.parametrize(
    "text",
    ["ภาษาไทยไม่มีช่องว่างระหว่างคำ ", "我们想要工作。", "私たちは仕事が欲しい。", "ភាសាខ្មែរមិនមានចន្លោះ ", "ພາສາລາວບໍ່ມີຊ່ອງຫວ່າງ "],
    ids=["Thai", "Chinese", "Japanese", "Khmer", "Lao"],
)
def test_scripts_without_spaces_are_told_of_better_tokens(tmp_path: Path, lm_command: Any, text: str) -> None:
    file = tmp_path / "text.txt"
    file.write_text(text * 40)
    code, out, _ = lm_command("corpora", "show", file, "--min-count", 1)
    assert code == 0
    assert "--tokens char" in out
    assert "--tokens char" not in lm_command("corpora", "show", file, "--tokens", "char")[1]


def test_scripts_with_spaces_are_not(tmp_path: Path, lm_command: Any) -> None:
    file = tmp_path / "text.txt"
    file.write_text("हम नौकरियाँ चाहते हैं। We want jobs, they said (我们). नौकरियाँ! " * 20)
    assert "--tokens char" not in lm_command("corpora", "show", file)[1]
