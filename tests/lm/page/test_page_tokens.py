"""Token ids, places and texts in a browser beside Python's, on speeches and on text that is hard to cut."""

import json
import random

import pytest

from recurrent_lm.lm.config import TokensConfig
from recurrent_lm.lm.page.vocabulary import for_page
from recurrent_lm.lm.text.corpora import open_corpus
from recurrent_lm.lm.text.tokens import WordTokenizer, build, from_json

HARD = [
    "",
    " ",
    "the people",
    "  the\n\n people \n",
    "can't I’ll we’’re rock'n'roll 'tis 90s 1st 1,000,000.50, 3.x ... .. -- --- a--b",
    "a\r\nb\rc\x0bd\x0ce\x1cf\x1dg\x1eh\x1fi\x85j\u2028k\u2029l\u00a0m\u3000n\u200bo",
    "e\u0301le\u0300ve \u0301 lone, \u0308\u0308 a\u0301'b\u0301 1\u03012 _x_ \ufe0f",
    "\u1100\u1161\u11a8 \uac00 नमस्ते क्‍ष ไทยภาษา 中文字，。日本語 עִבְרִית العَرَبِيَّة",
    "👩‍👩‍👧‍👦 🇦🇹🏳️‍🌈 👍🏽 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𐐀𐐨 \U0001e900\U0001e922 \U000e0001\U000e0020 \U0010ffff \ue000",
    "soft\u00adhyphen zero\u200dwidth\u200cjoin \u2060word \ufeffmark \u061c\u202eright",
    "ΑΣ ΑΣΑ Σ ΑΣ. ΑΣ\u0301Β İstanbul ǅ ẞ ΌΣΟΣ Σ\u00ad AΣ:A \u02b0Σ ᏸꭰ Ა",
    "½ Ⅷ ² ٣٤٥ ۱٫۲ ৪ 𝟙𝟚 ꘠ 〇 一",
    "“Yes,” he said—‘no’ … \"quoted\" (so) [it] {is} #1 $5 50% @you and/or 'single' “unclosed",
    "<unk> <eos> <join> <unk>",
    "x" * 700 + " " + "é" * 600 + "中" * 400 + " " * 20 + "\n" * 40,
    "a b\tc\td  e   f" + " " * 16 + "g" + " " * 17 + "h",
    "\u1680\u180e\u2000\u200a\u202f\u205f",
    "\U00011f00\U00016100 \U0001cc00 \U0001e5d0 \U00010d40 \U000105c0 \u0897 \u1c89 \ua7cb",  # of Unicode 16
]
ALPHABET = [*"aZ0_ '’.,-\"\n", "\r\n", *"\u0301\u200d\u00a0\x1cΣé中👍\U000e0100٣\u0903İ"]


@pytest.fixture(scope="module")
def texts():
    draw = random.Random(5)
    drawn = ["".join(draw.choices(ALPHABET, k=draw.randrange(1, 30))) for _ in range(600)]
    anywhere = ["".join(map(chr, draw.choices([*range(1, 0xD800), *range(0xE000, 0x20000)], k=12))) for _ in range(400)]
    return HARD + drawn + anywhere


@pytest.fixture(scope="module")
def speeches():
    from recurrent_lm.lm.config import CorpusConfig

    return [text[:30_000] for name in ("obama", "trump") for _, text in open_corpus(CorpusConfig(name)).documents[:2]]


def tokenizers(texts):
    learned = [*texts[0::3], HARD[4] * 2, "<unk> Σ ς the people can't"]
    kinds = {
        "char": TokensConfig("char"),
        "bpe": TokensConfig("bpe", vocab_size=600),
        "word": TokensConfig("word", min_count=1),
        "word-rare": TokensConfig("word", min_count=4),
        "word-lower": TokensConfig("word", lower=True),
        "spaces": TokensConfig("word", split="spaces", lower=True),
        "spaces-literal": TokensConfig("word", split="spaces", min_count=1),
    }
    made = {name: build(learned, config) for name, config in kinds.items()}
    return made | {"word-1": from_json(made["word-rare"].to_json() | {"version": 1})}


NAMES = ("char", "bpe", "word", "word-rare", "word-lower", "spaces", "spaces-literal", "word-1")


@pytest.fixture(scope="module")
def page(browser, make_run, page_file, speeches, texts):
    browser.open(page_file(make_run("char", cell="rnn-tanh")).as_uri())
    browser.run("begun")
    made = tokenizers([*speeches, *texts])
    assert set(made) == set(NAMES)
    return browser, made


@pytest.mark.parametrize("name", NAMES)
def test_ids_and_places_are_those_of_python(name, page, texts, speeches):
    browser, made = page
    tokenizer, tried = made[name], [*texts, *speeches]
    browser.run(f"var other = tokenizerOf({json.dumps(for_page(tokenizer))}); var tried = {json.dumps(tried)}")
    result = browser.run("tried.map(text => encode(other, text))")
    for text, ids in zip(tried, result, strict=True):
        assert ids == tokenizer.encode(text), repr(text[:200])
    parts = browser.run("tried.map(text => other.read(text).map(({from, to}) => text.slice(from, to)))")
    for text, cut in zip(tried, parts, strict=True):
        if tokenizer.raw(text) == text:
            assert cut == tokenizer.cut(text), repr(text[:200])
        elif name == "word-lower":
            assert "".join(cut).lower() == tokenizer.raw(text)
    unknown = browser.run("tried.map(text => other.read(text).filter(token => token.unknown).length)")
    assert unknown == [tokenizer.unknown_tokens(text) for text in tried]
    assert browser.run("other.size") == tokenizer.size


@pytest.mark.parametrize("name", NAMES)
def test_ids_become_the_text_that_python_writes(name, page):
    browser, made = page
    tokenizer, draw = made[name], random.Random(1)
    tried = [[draw.randrange(tokenizer.size) for _ in range(40)] for _ in range(100)]
    browser.run(f"var other = tokenizerOf({json.dumps(for_page(tokenizer))})")
    decoded = "(decoder => ids.map(id => decoder.push(id)).join('') + decoder.flush())(other.decoder())"
    assert browser.run(f"{json.dumps(tried)}.map(ids => {decoded})") == [tokenizer.decode(ids) for ids in tried]


@pytest.mark.parametrize("name", ["char", "bpe", "word"])
def test_half_a_surrogate_pair_is_read_as_the_replacement_character(name, page):
    browser, made = page
    browser.run(f"var other = tokenizerOf({json.dumps(for_page(made[name]))})")
    assert browser.run(r"encode(other, 'a\ud83d b')") == made[name].encode("a\ufffd b")


def test_byte_pairs_of_another_program_are_refused(page):
    from recurrent_lm.lm.base.errors import InputError

    data = page[1]["bpe"].to_json()
    data["model"]["normalizer"] = {"type": "NFC"}
    with pytest.raises(InputError, match="byte pairs"):
        for_page(from_json(data))


def test_classes_hold_what_the_expressions_match():
    """A pattern whose classes were listed is complete: no class of the expression's own is left in it."""
    for version in (1, 2):
        told = for_page(WordTokenizer(["a"], [], "punctuation", False, version=version))
        assert not any(sign in told["pattern"] for sign in (r"\p", r"\s", r"\d", r"\w", r"\x"))
        assert set("SWD") <= set(told["classes"])
