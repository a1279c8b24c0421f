"""Text to ids and back."""

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from recurrent_lm.lm.base.errors import InputError
from recurrent_lm.lm.config import TokensConfig
from recurrent_lm.lm.text.tokens import EOS, BpeTokenizer, CharTokenizer, Tokenizer, WordTokenizer, build, from_json

SPEECH = (
    'Thank you. Jobs, jobs: we will make the country "great," and we will do it – together.\n'
    "The people (of this café) don't want words; the people want jobs! <eos> is text. 🙂 3,000 jobs 🙂\n"
)
KINDS = ("char", "word", "bpe")
scalars = st.characters(exclude_categories=["Cs"])
texts = st.text(scalars)
crowded = st.text(st.sampled_from(" \n\t\r\u3000\"'’“”([)].,!?-—$#abAİßé<>"), max_size=30)


def reloaded(tokenizer: Tokenizer) -> Tokenizer:
    return from_json(json.loads(json.dumps(tokenizer.to_json())))


def built(kind: str, text: str = SPEECH, **settings: Any) -> Tokenizer:
    return build([text], TokensConfig(kind=kind, **settings))


EXACT = {kind: built(kind) for kind in ("char", "bpe")}
EXACT |= {f"{kind} again": reloaded(EXACT[kind]) for kind in ("char", "bpe")}
EXACT["char of few"] = built("char", vocab_size=19)
EXACT["bpe without merges"] = built("bpe", vocab_size=257)


# --- round trips ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", EXACT)
@settings(deadline=None)
@given(text=texts | crowded)
@example(text="")
@example(text="\x00 \ufeff \ufffd \U0010ffff e\u0301 \r\n")
@example(text=SPEECH)
def test_char_and_bpe_give_any_text_back(which: str, text: str) -> None:
    tokenizer = EXACT[which]
    ids = tokenizer.encode(text)
    assert all(0 < i < tokenizer.size for i in ids)
    assert tokenizer.decode(ids) == text


@settings(deadline=None, max_examples=200)
@given(text=texts | crowded)
@example(text=SPEECH)
@example(text="<unk><join> <eos>")
def test_word_gives_texts_without_unknown_words_back(text: str) -> None:
    tokenizer = build([text, "two words"], TokensConfig(kind="word", min_count=1))
    ids = tokenizer.encode(text)
    assert WordTokenizer.UNK not in ids
    assert all(0 < i < tokenizer.size for i in ids)
    assert tokenizer.decode(ids) == text
    again = reloaded(tokenizer)
    assert again.encode(text) == ids
    assert again.decode(ids) == text


@settings(deadline=None)
@given(text=texts | crowded)
def test_lower_gives_the_lower_cased_text_back(text: str) -> None:
    tokenizer = build([text, "two words"], TokensConfig(lower=True, min_count=1))
    assert tokenizer.decode(tokenizer.encode(text)) == text.lower() == tokenizer.raw(text)
    assert reloaded(tokenizer).decode(tokenizer.encode(text)) == text.lower()


@settings(deadline=None)
@given(text=texts | crowded)
def test_spaces_gives_every_white_space_back_as_one_space(text: str) -> None:
    tokenizer = build([text, "two words"], TokensConfig(split="spaces", min_count=1))
    ids = tokenizer.encode(text)
    assert len(ids) == len(text.split())
    assert tokenizer.decode(ids) == reloaded(tokenizer).decode(ids) == " ".join(text.split())


def test_spaces_keeps_marks_on_their_words() -> None:
    tokenizer = build(["we can, (we) will"], TokensConfig(split="spaces", min_count=1))
    assert sorted(tokenizer.show(i) for i in tokenizer.encode("we can, (we) will")) == ["(we)", "can,", "we", "will"]


@pytest.mark.parametrize("choice", [{}, {"lower": True}, {"split": "spaces"}, {"split": "spaces", "lower": True}])
def test_bits_per_byte_are_counted_on_the_text_that_the_tokens_say(choice: dict[str, Any]) -> None:
    text = "We  can,\n\n\n\n we WILL \n"
    tokenizer = build([text], TokensConfig(min_count=1, **choice))
    assert tokenizer.raw(text) == tokenizer.decode(tokenizer.encode(text))


@pytest.mark.parametrize("kind", ["char", "bpe"])
def test_char_and_bpe_count_the_raw_text(kind: str) -> None:
    assert EXACT[kind].raw("Ab  C\n") == "Ab  C\n"
    assert EXACT[kind].spelling_nats("Ab  C ŝ") == 0.0


# --- text that looks like a special token ---------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "split"), [*((kind, "punctuation") for kind in KINDS), ("word", "spaces")])
@pytest.mark.parametrize(
    "text", ["<eos>", "<unk>", "<join>", "a <eos> <unk> <join> b <pad> <s>", "<eos><eos>", "<|endoftext|>"]
)
def test_text_that_looks_special_stays_text(kind: str, split: str, text: str) -> None:
    first = build([text, "two words"], TokensConfig(kind=kind, split=split, min_count=1))
    for tokenizer in (first, reloaded(first)):
        ids = tokenizer.encode(text)
        assert EOS not in ids
        assert tokenizer.decode(ids) == text
        if kind == "word" and split == "spaces":
            assert min(ids) > WordTokenizer.JOIN


@pytest.mark.parametrize("kind", KINDS)
def test_eos_is_silent_and_begins_anew(kind: str) -> None:
    tokenizer = built(kind, min_count=1)
    ids = [*tokenizer.encode('the people "want'), EOS, *tokenizer.encode('"jobs')]
    assert tokenizer.decode(ids) == 'the people "want"jobs'
    assert tokenizer.decode([EOS, EOS]) == ""
    assert tokenizer.show(EOS) == "<eos>"


# --- decoding as it comes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["char", "bpe"])
@settings(deadline=None)
@given(text=texts)
def test_a_decoder_only_ever_says_what_is_certain(kind: str, text: str) -> None:
    tokenizer = EXACT[kind]
    decoder = tokenizer.decoder()
    text_so_far = ""
    for i in tokenizer.encode(text):
        text_so_far += decoder.push(i)
        assert text.startswith(text_so_far)
    # every token of a complete text is complete, so nothing is left to flush
    assert (text_so_far, decoder.flush()) == (text, "")


def test_words_are_said_at_once() -> None:
    tokenizer = built("word", min_count=1)
    decoder = tokenizer.decoder()
    assert [decoder.push(i) for i in tokenizer.encode("Jobs, we will\n(make)")] == [
        "Jobs",
        ",",
        " we",
        " will",
        "\n",
        "(",
        "make",
        ")",
    ]
    assert decoder.flush() == ""


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None)
@given(data=st.data())
def test_any_ids_decode_to_text(kind: str, data: st.DataObject) -> None:
    tokenizer = built(kind, min_count=1) if kind == "word" else EXACT[kind]
    ids = data.draw(st.lists(st.integers(0, tokenizer.size - 1)))
    decoder = tokenizer.decoder()
    text = "".join(decoder.push(i) for i in ids) + decoder.flush()
    assert text == tokenizer.decode(ids)
    text.encode("utf-8")


def test_a_character_broken_off_does_not_spoil_what_follows() -> None:
    tokenizer = CharTokenizer(["a", "b"])
    a, b = tokenizer.encode("ab")
    euro = tokenizer.encode("€")
    assert len(euro) == 6
    for count in range(1, 6):  # half a byte is dropped; whole bytes of half a character are shown as such
        broken = "\ufffd" if count > 1 else ""
        assert tokenizer.decode([a, *euro[:count], b]) == f"a{broken}b"
        assert tokenizer.decode([a, *euro[:count], EOS, *euro]) == f"a{broken}€"
        assert tokenizer.decode([*euro, *euro[:count]]) == f"€{broken}"


def test_bytes_broken_off_do_not_spoil_what_follows() -> None:
    tokenizer = EXACT["bpe without merges"]
    euro, a = tokenizer.encode("€"), tokenizer.encode("a")
    assert len(euro) == 3
    assert tokenizer.decode([*euro[:2], *a]) == "\ufffda"
    assert tokenizer.decode([*euro[:2], EOS, *euro]) == "\ufffd€"
    assert tokenizer.decode(euro[:1]) == "\ufffd"


# --- characters -----------------------------------------------------------------------------------------------------


def test_characters_by_hand() -> None:
    tokenizer = build(["baab é"], TokensConfig(kind="char", min_count=2))
    assert tokenizer.to_json() == {"kind": "char", "characters": ["a", "b"]}
    assert tokenizer.size == 19
    assert tokenizer.encode("abé") == [17, 18, 1 + 0xC, 1 + 3, 1 + 0xA, 1 + 9]
    assert [tokenizer.show(i) for i in range(19)] == ["<eos>", *(f"<{x}>" for x in "0123456789abcdef"), "a", "b"]
    assert tokenizer.unknown("abéb ") == {"é": "its bytes c3 a9", " ": "its bytes 20"}
    assert tokenizer.never == ()


def test_characters_are_kept_by_count_then_by_code() -> None:
    text = "cccc bbb aaa d"  # three times each: a, b and the space
    assert build([text], TokensConfig(kind="char", min_count=1)).to_json()["characters"] == [" ", "a", "b", "c", "d"]
    assert build([text], TokensConfig(kind="char", min_count=4)).to_json()["characters"] == ["c"]
    smaller = build([text], TokensConfig(kind="char", min_count=1, vocab_size=20))
    assert (smaller.size, smaller.to_json()["characters"]) == (20, [" ", "a", "c"])
    assert build([text], TokensConfig(kind="char", min_count=4, vocab_size=100)).size == 18


# --- words ----------------------------------------------------------------------------------------------------------


def test_words_by_hand() -> None:
    tokenizer = build(["the cat, the cat", "a dog, the"], TokensConfig(min_count=2))
    assert tokenizer.to_json() == {
        "kind": "word",
        "types": ["the", ",", "cat"],
        "rare": ["a", "dog"],
        "split": "punctuation",
        "lower": False,
        "literal": 0,
        "version": 2,
    }
    assert tokenizer.size == 6
    assert tokenizer.encode("the dog,cat") == [3, 1, 4, 2, 5]
    assert tokenizer.decode([3, 1, 4, 2, 5]) == "the <unk>,cat"
    assert [tokenizer.show(i) for i in range(6)] == ["<eos>", "<unk>", "<join>", "the", ",", "cat"]
    assert tokenizer.unknown("the dog, a The dog") == {"dog": "<unk>", "a": "<unk>", "The": "<unk>"}
    assert tokenizer.never == (WordTokenizer.UNK,)


@pytest.mark.parametrize(
    ("choice", "types", "rare"),
    [
        ({"min_count": 1}, ["b", "a", "c", "D", "d"], []),
        ({"min_count": 2}, ["b", "a", "c"], ["D", "d"]),
        ({"min_count": 3}, ["b"], ["a", "c", "D", "d"]),
        ({"min_count": 1, "vocab_size": 5}, ["b", "a"], ["c", "D", "d"]),
        ({"min_count": 2, "vocab_size": 7}, ["b", "a", "c"], ["D", "d"]),
        ({"min_count": 2, "lower": True}, ["b", "a", "c", "d"], []),
    ],
)
def test_rare_words_are_unknown(choice: dict[str, Any], types: list[str], rare: list[str]) -> None:
    tokenizer = build(["b a b a b", "c c d D"], TokensConfig(**choice))
    data = tokenizer.to_json()
    assert (data["types"], data["rare"]) == (types, rare)
    assert tokenizer.size == 3 + len(types)


def test_white_space_is_never_among_the_words_to_spell() -> None:
    data = build(["a b a b\n\n\nb  a"], TokensConfig()).to_json()
    assert (data["types"], data["rare"]) == (["a", "b"], [])


def test_a_rare_run_of_white_space_is_read_character_by_character() -> None:
    tokenizer = build(["a\nb\na\n b\n"], TokensConfig(min_count=2))
    assert tokenizer.to_json()["types"] == ["\n", "a", "b"]
    newline = 3
    assert tokenizer.encode("a\n\nb") == [4, newline, newline, 5]
    assert tokenizer.decode(tokenizer.encode("a\n\n\nb")) == "a\n\n\nb"
    assert tokenizer.encode("a\n\tb") == [4, newline, WordTokenizer.UNK, 5]
    assert tokenizer.unknown("a\n\tb") == {"\t": "<unk>"}


def test_joining_is_never_drawn_where_white_space_separates() -> None:
    assert built("word", split="spaces").never == (WordTokenizer.UNK, WordTokenizer.JOIN)


# --- how many tokens are unknown ------------------------------------------------------------------------------------


def test_unknown_tokens_are_counted_each_time() -> None:
    assert build(["the cat the cat"], TokensConfig()).unknown_tokens("the dog, the dog") == 3  # the comma too
    assert build(["a\nb\na\n b\n"], TokensConfig()).unknown_tokens("a\n\tb\tc") == 3  # tab, tab, c
    assert build(["baab"], TokensConfig(kind="char")).unknown_tokens("abéb é") == 10  # two half-bytes a byte
    assert EXACT["bpe"].unknown_tokens("日本") == 0


@pytest.mark.parametrize("setting, most", [("min_count", 10**9), ("vocab_size", 10**6)])
def test_the_greatest_sizes_do_not_stop_byte_pairs(setting: str, most: int) -> None:
    tokenizer = built("bpe", **{"vocab_size": 10**6, "min_count": 1, setting: most})
    assert (tokenizer.size == 257) == (setting == "min_count")
    assert tokenizer.decode(tokenizer.encode(SPEECH)) == SPEECH
    assert tokenizer.size <= 257 + len(SPEECH.encode())


def test_lower_reads_prompts_in_any_case() -> None:
    tokenizer = build(["Jobs jobs JOBS now NOW"], TokensConfig(lower=True))
    assert tokenizer.encode("JOBS now") == tokenizer.encode("jobs NOW") == [3, 4]
    assert tokenizer.unknown("Jobs") == {}


# --- byte pairs -----------------------------------------------------------------------------------------------------


def test_byte_pairs_by_hand() -> None:
    tokenizer = build(["abab abab"], TokensConfig(kind="bpe", vocab_size=259))
    assert tokenizer.size == 259
    merges = {tokenizer.show(i) for i in range(257, 259)}
    assert merges == {"ab", "abab"}
    assert [tokenizer.show(i) for i in tokenizer.encode("ababab")] == ["abab", "ab"]
    assert tokenizer.unknown("日本") == {}
    assert len(tokenizer.encode("日")) == 3
    assert [tokenizer.show(i) for i in tokenizer.encode("é")] == ["\ufffd", "\ufffd"]


def test_every_byte_has_its_token() -> None:
    tokenizer = EXACT["bpe without merges"]
    assert isinstance(tokenizer, BpeTokenizer)
    assert tokenizer.size == 257
    assert sorted(tokenizer._bytes) == [bytes([b]) for b in range(256)]


@pytest.mark.parametrize(("choice", "size"), [({"vocab_size": 300}, 300), ({"min_count": 10_000}, 257), ({}, 1000)])
def test_the_size_of_byte_pair_vocabularies(choice: dict[str, Any], size: int) -> None:
    text = " ".join(str(number**3) for number in range(3000))
    assert built("bpe", text, **choice).size == size


def test_two_builds_give_the_same_byte_pairs() -> None:
    builds = [json.dumps(built("bpe", SPEECH * 3, vocab_size=400, min_count=1).to_json()) for _ in range(5)]
    assert len(set(builds)) == 1


# --- all kinds ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_reload_is_the_same_tokenizer(kind: str) -> None:
    tokenizer = built(kind, min_count=2)
    again = reloaded(tokenizer)
    assert type(again) is type(tokenizer)
    assert again.to_json() == tokenizer.to_json()
    assert again.size == tokenizer.size
    other = "The café's jobs 🙂 ŝ!"
    assert again.encode(other) == tokenizer.encode(other)
    assert again.spelling_nats(other) == tokenizer.spelling_nats(other)
    assert [again.show(i) for i in range(again.size)] == [tokenizer.show(i) for i in range(again.size)]


@pytest.mark.parametrize("choice", [{"split": "spaces"}, {"lower": True}])
def test_a_reload_keeps_how_words_are_read(choice: dict[str, Any]) -> None:
    tokenizer = built("word", min_count=1, **choice)
    assert reloaded(tokenizer).encode(SPEECH) == tokenizer.encode(SPEECH) != built("word", min_count=1).encode(SPEECH)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", ["", "a", "aaaa", "\n\n\n"])
def test_a_text_of_one_symbol_is_refused(kind: str, text: str) -> None:
    with pytest.raises(InputError, match="one symbol"):
        build([text, text], TokensConfig(kind=kind, min_count=1))


@pytest.mark.parametrize("kind", KINDS)
def test_two_symbols_are_enough(kind: str) -> None:
    tokenizer = build(["a b", "a b"], TokensConfig(kind=kind, min_count=1))
    assert tokenizer.decode(tokenizer.encode("a b b a")) == "a b b a"


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        pytest.param("we we we we", {}, id="one word"),
        pytest.param("We we WE", {"lower": True, "min_count": 1}, id="one word when lower-cased"),
        pytest.param("no word comes twice here", {}, id="nothing but unknown words"),
    ],
)
def test_a_word_vocabulary_of_one_symbol_is_refused(text: str, choice: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        build([text], TokensConfig(**choice))


@pytest.mark.parametrize(("kind", "size"), [("char", 17), ("char", 1), ("word", 3), ("word", 1)])
def test_a_vocabulary_without_room_is_refused_with_the_least_that_does(kind: str, size: int) -> None:
    least = {"char": 18, "word": 4}[kind]
    with pytest.raises(InputError, match=rf"--vocab-size {size} leaves no room .* {least - 1} special.* at least {least}$"):
        built(kind, vocab_size=size)
    assert built(kind, vocab_size=least).size == least
