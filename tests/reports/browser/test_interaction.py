"""What a reader can do on a page: values under the pointer and by keys, figures full screen, folds opened."""

import json
import re

import pytest

TRY = """
const measure = async frame => {
  const page = frame.contentDocument, view = frame.contentWindow, seen = {};
  const wait = () => new Promise(done => setTimeout(done, 50));
  const event = key => new view.KeyboardEvent("keydown", { key, bubbles: true, cancelable: true });
  const press = (element, key) => element.dispatchEvent(event(key));
  const drawings = [...page.querySelectorAll("svg[data-series]")];
  seen.told = drawings.map(svg => {
    const value = svg.closest("figure").querySelector("output.value"), panels = JSON.parse(svg.dataset.series);
    const point = panels[0].series[0].points[0], place = new DOMPoint(point[0], point[1]).matrixTransform(svg.getScreenCTM());
    const at = { clientX: place.x, clientY: place.y, bubbles: true };
    const before = value.hidden;
    svg.dispatchEvent(new view.PointerEvent("pointermove", at));
    const pointed = value.textContent, dot = svg.querySelectorAll(".dot").length;
    svg.dispatchEvent(new view.PointerEvent("pointerleave", at));
    const after = value.hidden, keys = [];
    for (const key of ["ArrowRight", "ArrowRight", "ArrowLeft", "ArrowDown"]) { press(svg, key); keys.push(value.textContent); }
    const box = value.getBoundingClientRect();
    return { before, after, pointed, dot, keys, inside: box.left >= 0 && box.right <= frame.clientWidth };
  });
  const stages = [...page.querySelectorAll("figure[id^=figure-]")];
  const staged = () => stages.map(figure => view.getComputedStyle(figure).position === "fixed");
  seen.stages = stages.map(figure => figure.id);
  seen.none = staged();
  view.location.hash = stages[0].id;
  await wait();
  seen.first = staged();
  const box = stages[0].querySelector("svg, img").getBoundingClientRect();
  seen.fits = box.top >= 0 && box.bottom <= frame.clientHeight + 1;
  press(page.body, "ArrowRight");
  await wait();
  seen.second = staged();
  press(page.body, "ArrowLeft");
  await wait();
  seen.back = staged();
  press(page.body, "Escape");
  await wait();
  seen.left = staged();
  seen.folded = [...page.querySelectorAll("details.fold")].map(part => part.open);
  seen.saved = 0;
  view.HTMLAnchorElement.prototype.click = () => { seen.saved++; };
  page.querySelector("button.all")?.click();
  await wait();
  seen.unfolded = [...page.querySelectorAll("details")].map(part => part.open);
  return seen;
};
"""


@pytest.fixture(scope="module")
def tried(measured, built):
    """What was seen of three pages, by name; and nothing on the console."""
    names = ("index", "clipping", "training_step")
    measured_view, console = measured([built.index.parent / f"{name}.html" for name in names], TRY)
    assert console == []
    return dict(zip(names, measured_view, strict=True))


@pytest.mark.parametrize("name", ["clipping", "training_step"])
def test_a_value_is_told_under_the_pointer_and_by_keys(name, tried, built):
    text = (built.index.parent / f"{name}.html").read_text()
    drawings = [
        json.loads(found.replace("&quot;", '"').replace("&amp;", "&")) for found in re.findall(r'data-series="([^"]*)"', text)
    ]
    assert drawings and len(tried[name]["told"]) == len(drawings)
    for panels, seen in zip(drawings, tried[name]["told"], strict=True):
        assert seen["before"] and seen["after"] and seen["dot"] == 1 and seen["inside"]
        places = [(point[0], point[1]) for one in panels[0]["series"] for point in one["points"]]
        x, y = panels[0]["series"][0]["points"][0][2:]
        if places.count(places[0]) == 1:  # nothing else is drawn there
            assert re.search(rf": {re.escape(_shown(x))} · ", seen["pointed"]) and seen["pointed"].endswith(f": {_shown(y)}")
        assert seen["keys"][0].count(" · ") >= 1 and all(seen["keys"])
        assert seen["keys"][0] == seen["keys"][2] or len(panels[0]["series"][0]["points"]) < 3


def _shown(value):
    """A number as a script writes it."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() and abs(value) < 1e21 else str(value)


@pytest.mark.parametrize("name", ["index", "clipping"])
def test_a_figure_fills_the_screen_and_arrow_keys_go_on(name, tried):
    seen = tried[name]
    count = len(seen["stages"])
    assert count > 2 and seen["fits"]
    alone = [[i == number for i in range(count)] for number in range(2)]
    assert (seen["none"], seen["first"], seen["second"], seen["back"]) == ([False] * count, *alone, alone[0])
    assert seen["left"] == [False] * count


def test_what_is_folded_is_opened_by_one_button(tried):
    seen = tried["clipping"]
    assert len(seen["folded"]) >= 4 and not any(seen["folded"])
    assert all(seen["unfolded"]) and seen["saved"] == 0, "and nothing is downloaded"
