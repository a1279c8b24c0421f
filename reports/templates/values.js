// The value under the pointer in line and scatter figures; with the keyboard, arrows go from point to point.
// Places come with the page, in the drawing's own units, so that no scale has to be known here.
const NEAR = 28;
const shown = point => point.panel.series[point.of].points[point.at];
const told = ({ panel, of, at }) => {
  const { name, points } = panel.series[of], [, , x, y] = points[at];
  return [panel.title, name, `${panel.x || "x"}: ${x}`, `${panel.y || "y"}: ${y}`].filter(Boolean).join(" · ");
};
const nearest = (panels, x, y) => {
  let best = null, least = NEAR * NEAR;
  for (const panel of panels) {
    const [left, top, right, bottom] = panel.box;
    if (x < left - 2 || x > right + 2 || y < top - 2 || y > bottom + 2) continue;
    panel.series.forEach(({ points }, of) => points.forEach(([px, py], at) => {
      const far = (px - x) ** 2 + (py - y) ** 2;
      if (far < least) { least = far; best = { panel, of, at }; }
    }));
  }
  return best;
};
const stepped = (panels, point, key) => {
  if (!point) return { panel: panels[0], of: 0, at: 0 };
  const { panel, of, at } = point, points = panel.series[of].points;
  if (key === "ArrowRight" || key === "ArrowLeft") {
    const next = at + (key === "ArrowRight" ? 1 : -1);
    return { panel, of, at: Math.min(points.length - 1, Math.max(0, next)) };
  }
  const all = panels.flatMap(p => p.series.map((_, i) => ({ panel: p, of: i })));
  const here = all.findIndex(one => one.panel === panel && one.of === of);
  const other = all[(here + (key === "ArrowDown" ? 1 : -1) + all.length) % all.length];
  const [x] = points[at], gap = ([px]) => Math.abs(px - x);
  const found = other.panel.series[other.of].points.reduce((b, p, i, list) => gap(p) < gap(list[b]) ? i : b, 0);
  return { ...other, at: found };
};
const listen = svg => {
  const panels = JSON.parse(svg.dataset.series), box = document.createElement("output");
  box.className = "value";
  box.hidden = true;
  svg.closest(".drawing").after(box);
  const dot = document.createElementNS("http://www.w3.org/2000/svg", "circle");
  dot.setAttribute("r", 7);
  dot.setAttribute("class", "dot");
  let point = null;
  const tell = found => {
    point = found;
    box.hidden = !found;
    if (!found) { dot.remove(); return; }
    const [x, y] = shown(found), page = box.offsetParent.getBoundingClientRect();
    dot.setAttribute("cx", x);
    dot.setAttribute("cy", y);
    svg.append(dot);
    box.textContent = told(found);
    const place = new DOMPoint(x, y).matrixTransform(svg.getScreenCTM()), at = place.x - page.left - box.offsetWidth / 2;
    box.style.top = `${place.y - page.top + 14}px`;
    box.style.left = `${Math.max(0, Math.min(at, page.width - box.offsetWidth))}px`;
  };
  svg.addEventListener("pointermove", event => {
    const { x, y } = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    tell(nearest(panels, x, y));
  });
  svg.addEventListener("pointerleave", () => tell(null));
  svg.addEventListener("blur", () => tell(null));
  svg.addEventListener("focus", () => { if (svg.matches(":focus-visible")) tell(point ?? stepped(panels, null)); });
  svg.addEventListener("keydown", event => {
    if (!event.key.startsWith("Arrow")) return;
    event.preventDefault();
    tell(stepped(panels, point, event.key));
  });
};
document.querySelectorAll("svg[data-series]").forEach(listen);
// On a telephone each figure gives way to its narrow drawing. Those are in the page as gzip in base64.
const narrow = document.getElementById("narrow"), telephone = matchMedia("(max-width: 44rem)"), drawings = [];
const fit = async () => {
  if (!drawings.length && telephone.matches) {
    for (const [name, drawing] of Object.entries(JSON.parse(await unpacked(narrow)))) {
      const place = document.getElementById(name).closest("figure").querySelector(".drawing"), wide = place.firstElementChild;
      place.insertAdjacentHTML("beforeend", drawing);
      const small = place.lastElementChild;
      small.classList.add("narrow");
      if (small.dataset.series) listen(small);
      drawings.push({ place, wide, small });
    }
  }
  for (const { place, wide, small } of drawings) place.replaceChildren(telephone.matches ? small : wide);
};
if (narrow && window.DecompressionStream) {
  telephone.addEventListener("change", fit);
  fit();
}
