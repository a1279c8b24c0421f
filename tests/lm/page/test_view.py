"""A page as its reader uses it: typing, bars, writing with a seed, colours, keys, and sizes of windows."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from paths import ROOT

from recurrent_lm.lm.commands import surprise
from recurrent_lm.lm.page import document
from recurrent_lm.lm.page.units import values
from recurrent_lm.lm.text.tokenizer import EOS

LONG = "The people want jobs—and good roads! We keep “building” schools, \n\nthey   need a wall. " * 12


@pytest.fixture
def opened(browser, page_file):
    """``opened(run, ...)`` opens a run's page and waits until it is ready; what it complains of fails the test."""
    before = len(browser.console)

    def open_page(run, **how):
        browser.size(1280, 800)
        browser.open(page_file(run, **how).as_uri())
        browser.run("begun")
        return browser

    yield open_page
    assert browser.console[before:] == []


@pytest.fixture(scope="module")
def words(make_run):
    run = make_run("word", cell="gru")
    with torch.no_grad():
        run.model.decoder.bias[EOS] -= 5  # a text goes on
    return run


def type_text(page, text):
    page.run(f"area.value = {text!r}; area.dispatchEvent(new Event('input')); read()")


def bars(page):
    """[(token, its share of the probability, its id)] of the bars that are shown."""
    return page.run(
        "[...$('bars').children].filter(row => !row.hidden).map(({firstChild: b}) => "
        "[b.children[0].textContent, reading.p[b.dataset.id], Number(b.dataset.id)])"
    )


def expected(run, ids):
    """P(next) behind <eos> and these ids."""
    with torch.no_grad():
        hidden, _ = run.model(torch.tensor([[EOS, *ids]]), run.model.zero_state(1))
        return torch.softmax(run.model.logits(hidden[:, 0]).double(), dim=-1).numpy()


def test_the_bars_are_the_distribution_behind_the_text(words, opened):
    page = opened(words, prompts=("we want",))
    ids = words.tokenizer.encode("we want")
    assert page.run("area.value") == "we want" and page.run("reading.ids") == ids
    shown = bars(page)
    p = expected(words, ids)[-1]
    p[list(words.tokenizer.never)] = -1
    order = np.argsort(-p, kind="stable")[:10]
    assert [id for _, _, id in shown] == list(order)
    np.testing.assert_allclose([share for _, share, _ in shown], p[order], atol=1e-3)  # rounded weights
    assert all(a >= b for (_, a, _), (_, b, _) in pairwise(shown))


def test_each_token_has_its_surprise(words, opened):
    page = opened(words)
    text = "the people want zebras, and a wall"
    type_text(page, text)
    ids = words.tokenizer.encode(text)
    p = expected(words, ids)
    bits = [-np.log2(p[at][id]) for at, id in enumerate(ids)]
    records = page.run("reading.records")
    np.testing.assert_allclose([record["bits"] for record in records], bits, atol=0.02)
    assert [record["rank"] for record in records] == [1 + int((p[at] > p[at][id]).sum()) for at, id in enumerate(ids)]
    classes = page.run("drawn.map(([span]) => span.className)")
    edges = page.run("EDGES")
    assert tuple(edges) == surprise.EDGES
    shades = [f"s{sum(b >= edge for edge in edges)}" for b in (record["bits"] for record in records)]
    assert [name.split()[-1] for name in classes] == shades
    spans = page.run("drawn.map(([span]) => span.textContent)")
    unknown = [text for text, name in zip(spans, classes, strict=True) if "unknown" in name]
    assert unknown == list(words.tokenizer.unknown(text)) and unknown
    assert page.run("shades.textContent") == text + "\u200b"


def test_typing_on_gives_what_reading_anew_gives(words, opened):
    page = opened(words)
    for text in (LONG, LONG[:-40], "We " + LONG[:500], "", "We keep", "We keep good"):
        type_text(page, text)
        typed = page.run("[reading.ids, Array.from(reading.p), reading.records.map(r => r.bits)]")
        anew = page.run(
            "(r => { for (const id of encode(tokenizer, withoutEnd(area.value))) r.add(id);"
            "return [r.ids, Array.from(r.p), r.records.map(x => x.bits)] })(new Reading(model))"
        )
        assert typed == anew


def test_a_space_at_the_end_is_not_read_but_stays(words, opened):
    page = opened(words)
    type_text(page, "we want ")
    assert page.run("reading.ids") == words.tokenizer.encode("we want")
    page.run("take(tokenizer.ids.get('jobs'))")
    assert page.run("area.value") == "we want jobs"


def test_a_click_on_a_bar_extends_the_text(words, opened):
    page = opened(words, prompts=("we",))
    for _ in range(5):
        rows = page.run("[...$('bars').children].map(r => [r.firstChild.dataset.id, r.firstChild.ariaDisabled])")
        at = next(i for i, (id, disabled) in enumerate(rows) if disabled == "false" and int(id) > 2)
        before = page.run("reading.length")
        page.run(f"$('bars').children[{at}].firstChild.click()")
        assert page.run("reading.ids.at(-1)") == int(rows[at][0])
        assert page.run("reading.length") == before + 1
    ids = page.run("reading.ids")
    text = words.tokenizer.decode(ids)
    assert page.run("area.value") == text
    assert words.tokenizer.encode(text) == ids
    page.run("setText(area.value + '!')")
    assert page.run("reading.ids") == words.tokenizer.encode(text + "!")


def write(page, text="we", **values):
    chosen = {"seed": 1, "temperature": 1, "length": 25, "top-k": ""} | values
    for name, value in chosen.items():
        page.run(f"$('{name}').value = '{value}'")
    page.run(f"setText({text!r}).then(() => write()).then(() => 0)")
    return page.run("area.value")


def test_a_seed_writes_the_same_again_and_another_does_not(words, opened):
    page = opened(words)
    first, again, other = write(page), write(page), write(page, seed=2)
    assert first == again != other
    assert first.startswith("we") and len(first) > 20
    page.run("$('undo').click()")
    assert page.run("read().then(() => area.value)") == "we"


def test_temperature_0_and_the_likeliest_alone_take_the_best_token(words, opened):
    page = opened(words)
    text = write(page, temperature=0)
    assert text == write(page, **{"top-k": 1}) == write(page, temperature=0, seed=7)
    ids = page.run("reading.ids")
    p = expected(words, ids)
    p[:, list(words.tokenizer.never)] = 0
    begin = len(words.tokenizer.encode("we"))
    assert ids[begin:] == [int(row.argmax()) for row in p[begin:-1]]


@pytest.mark.parametrize("top_k", [0, 3])
def test_draws_have_the_frequencies_of_the_distribution(top_k, words, opened):
    page = opened(words)
    logits, n, t = [1.0, 0.0, -1.0, 2.0, 0.5], 20_000, 0.7
    how = f"{{temperature: {t}, topK: {top_k}, never: [3]}}"
    counts = page.run(
        f"(r => {{ const c = [0,0,0,0,0], x = Float64Array.of({str(logits)[1:-1]});"
        f"for (let i = 0; i < {n}; i++) c[pick(x, {how}, r)]++; return c }})(generator(5))"
    )
    p = np.exp(np.array(logits) / t)
    p[3] = 0
    if top_k:
        p[2] = 0
    p /= p.sum()
    assert [c > 0 for c in counts] == [q > 0 for q in p]
    np.testing.assert_allclose(np.array(counts) / n, p, atol=5 * 0.5 / n**0.5)


def test_unknown_words_are_shown_but_offered_only_when_asked(words, opened):
    unknown = words.tokenizer.UNK
    with torch.no_grad():
        words.model.decoder.bias[unknown] += 6
    page = opened(words, prompts=("we want",))
    share = expected(words, words.tokenizer.encode("we want"))[-1][unknown]
    assert share > 0.5
    assert unknown not in [id for _, _, id in bars(page)]
    assert float(page.run("$('unknown-share').textContent").split()[0]) == pytest.approx(100 * share, abs=0.6)
    assert unknown not in write_ids(page)
    page.run("$('offer').click()")
    assert bars(page)[0][2] == unknown
    assert unknown in write_ids(page)
    with torch.no_grad():
        words.model.decoder.bias[unknown] -= 6


def write_ids(page):
    write(page)
    return page.run("reading.ids")


def test_the_end_of_a_speech_is_no_bar_to_take_and_ends_the_writing(words, opened):
    with torch.no_grad():
        words.model.decoder.bias[EOS] += 15
    page = opened(words, prompts=("we",))
    assert bars(page)[0][2] == EOS
    page.run("$('bars').firstChild.firstChild.click()")
    assert page.run("reading.ids") == words.tokenizer.encode("we")
    assert write(page, temperature=0) == "we"
    assert "ended" in page.run("$('ended').textContent")
    with torch.no_grad():
        words.model.decoder.bias[EOS] -= 15


def test_keys_move_over_the_bars_take_one_and_write(words, opened):
    page = opened(words, prompts=("we",))
    page.run("area.focus()")
    page.run("$('bars').firstChild.firstChild.focus()")
    page.key("ArrowDown")
    page.key("ArrowDown")
    page.key("ArrowUp")
    id = page.run("Number(document.activeElement.dataset.id)")
    assert id == bars(page)[1][2]
    page.key("Enter", "\r")
    assert page.run("reading.ids").pop() == id or id == EOS
    page.run("area.focus(); $('length').value = 3")
    before = page.run("reading.length")
    page.key("Enter", "\r", modifiers=2)
    page.run("new Promise(done => { const look = () => writing ? setTimeout(look, 5) : done(); look(); })")
    assert before < page.run("reading.length") <= before + 3


def test_a_text_may_begin_a_speech_or_be_any_words(words, opened):
    page = opened(words, prompts=("we want",))
    page.run("$('speech').click()")
    ids = words.tokenizer.encode("we want")
    with torch.no_grad():
        hidden, _ = words.model(torch.tensor([ids]), words.model.zero_state(1))
        p = torch.softmax(words.model.logits(hidden[-1, 0]).double(), dim=-1).numpy()
    np.testing.assert_allclose(page.run("Array.from(reading.p)"), p, atol=1e-3)
    assert page.run("reading.records[0]") is None


def test_bytes_of_one_character_count_together(make_run, opened):
    page = opened(make_run("char"))
    type_text(page, "a日b")
    assert page.run("drawn.map(([span, first, last]) => [span.textContent, last - first + 1])") == [
        ["a", 1],
        ["日", 6],
        ["b", 1],
    ]
    assert page.run("drawn[1][0].className").startswith("unknown")
    assert page.run("bitsOf(1, 6)") == pytest.approx(sum(page.run("reading.records.slice(1, 7).map(r => r.bits)")))


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_units_state_is_coloured(cell, make_run, opened, monkeypatch):
    run = make_run("char", cell=cell, layers=2)
    told = {"scores": {"before a capital": [i / 24 for i in range(24)]}, "scale": [0.5] * 24}
    render = document.render
    monkeypatch.setattr(document, "render", lambda about, *rest: render(about | {"units": told}, *rest))
    page = opened(run)
    type_text(page, "We can")
    page.run("$('by-unit').click()")
    assert page.run("Number($('unit').value)") == 23  # the best for the first property
    ids = run.tokenizer.encode("We can")
    states, state = [], run.model.zero_state(1)
    with torch.no_grad():
        for id in (EOS, *ids):
            _, state = run.model(torch.tensor([[id]]), state)
            states.append(values(state)[0])
    np.testing.assert_allclose(page.run("reading.shown.map(s => Array.from(s))"), states[1:], atol=5e-3)
    colours = page.run("drawn.map(([span]) => span.style.background)")
    for value, colour in zip([s[23] for s in states[1:]], colours, strict=True):
        assert ("--low" if value < 0 else "--high") in colour


def test_nothing_is_asked_of_any_network_and_the_first_token_is_timed(words, opened):
    page = opened(words, prompts=("we want",))
    page.requests.clear()
    write(page)
    assert page.requests == []
    assert page.run("document.querySelector('meta[http-equiv]').content").startswith("default-src 'none'")
    assert float(page.run("$('ready').textContent").split()[0]) > 0
    assert float(page.run("$('pace').textContent").split()[0]) >= 0


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280, 1920])
def test_every_size_of_window_shows_all_and_can_be_read(width, dark, words, opened):
    page = opened(words, prompts=("we want", "the people " * 9, "x" * 60))
    page.size(width, 800, dark)
    type_text(page, LONG + "x" * 300)
    assert page.run("document.documentElement.scrollWidth <= innerWidth")
    beyond = "e.getClientRects().length && e.getBoundingClientRect().right > innerWidth + 1"
    assert page.run(f"[...document.body.querySelectorAll('*')].filter(e => {beyond}).map(e => e.outerHTML.slice(0, 80))") == []
    # what is typed lies over its colours: both break their lines at the same places
    assert page.run("[area.clientWidth, area.scrollHeight]") == page.run("[shades.clientWidth, shades.scrollHeight]")
    assert page.run("parseFloat(getComputedStyle(area).fontSize)") >= (28 if width == 1920 else 18)
    targets = page.run("[...document.querySelectorAll('button')].map(b => b.getBoundingClientRect().height)")
    assert min(targets) >= 24
    inks = page.run(
        "[...document.querySelectorAll('.legend span:not(:first-child), #detail, .hint, #go, .prompt, .label')].map(e => {"
        "const solid = e => { const c = getComputedStyle(e).backgroundColor;"
        "  return c === 'rgba(0, 0, 0, 0)' ? e === document.body ? 'rgb(255, 255, 255)' : solid(e.parentElement) : c };"
        "return [getComputedStyle(e).color, solid(e), e.className || e.id] })"
    )
    assert len(inks) > 15
    for ink, ground, name in inks:
        assert contrast(ink, ground) >= 4.5, name


def contrast(*colours):
    """WCAG's ratio of two colours, at most 21."""
    light = []
    for colour in colours:
        channels = [int(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        light.append(0.05 + sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True)))
    return max(light) / min(light)


def test_the_pointer_and_the_caret_show_the_figures_of_a_token(words, opened):
    page = opened(words)
    type_text(page, "the people want jobs")
    shown = "$('detail').textContent"
    before = page.run(shown)
    page.run(
        "(box => $('editor').dispatchEvent(new PointerEvent('pointermove', {clientX: box.x + 5, clientY: box.y + 5})))"
        "(drawn[2][0].getBoundingClientRect())"
    )
    pointed = page.run(shown)
    assert pointed != before and pointed.startswith("“want”")
    rank = page.run("reading.records[2].rank")
    assert f"place {rank} of {words.tokenizer.size}" in pointed
    page.run("area.focus(); area.setSelectionRange(6, 6); document.dispatchEvent(new Event('selectionchange'))")
    assert page.run(shown).startswith("“people”")


def test_a_long_text_is_read_in_parts_and_a_change_gives_way(words, opened):
    """Reading a long text does not hold the page up, and what is typed meanwhile is what counts."""
    page = opened(words)
    page.run(f"area.value = {LONG * 12!r}; window.first = read(); area.value = 'we want'; read()")
    page.run("first")
    assert page.run("reading.ids") == words.tokenizer.encode("we want")
    assert page.run("drawn.length") == 2


def test_text_typed_before_the_writing_begins_stops_it(words, opened):
    """A request to write waits until the text is read; the model must not write on from a half of it."""
    page = opened(words)
    page.run(f"area.value = {LONG * 12!r}; window.first = write(3); area.value += 'we want'; window.second = read()")
    page.run("Promise.all([first, second]).then(() => 0)")
    assert page.run("reading.ids") == words.tokenizer.encode(LONG * 12 + "we want") == page.run("tokens.map(token => token.id)")
    assert page.run("area.value") == LONG * 12 + "we want"


@pytest.mark.parametrize("name", ["obama", "trump"])
def test_published_pages_open_and_write(name, browser):
    path = ROOT / "reports" / "published" / "models" / f"{name}.html"
    assert 1e6 < path.stat().st_size < 4e6
    browser.size(1280, 800)
    before = len(browser.console)
    browser.open(path.as_uri())
    browser.run("begun")
    assert 0 < browser.run("about.copied.share") < 1 and browser.run("about.rounding.after - about.rounding.before") < 0.001
    assert "copied" in browser.run("document.querySelector('.copied').textContent")
    assert browser.run("area.value") == "the students opened their"
    written = write(browser, "We need to", length=8)
    assert written.startswith("We need to ") and browser.run("reading.length") == 11
    assert browser.console[before:] == []
