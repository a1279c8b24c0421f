// Curves are drawn from the numbers in the page; the pointer, a finger or the arrow keys read them.
const data = JSON.parse(document.getElementById("curves").textContent);
const hidden = new Set(), charts = document.querySelectorAll(".chart");
const units = ["nats", "perplexity", "bits"];
let unit = units.includes(location.hash.slice(1)) ? location.hash.slice(1) : "nats";

// The lines of a chart: {run, name, points: [[x, y], ...], style, ring}; y is null where there is no number.
const column = (rows, i) => rows.map(row => [row[0], row[i]]);
const lines = {
  loss: () => data.runs.flatMap((run, i) => {
    const train = loss => loss === null ? null : unit === "nats" ? loss : unit === "perplexity" ? Math.exp(loss)
      : run.bits ? run.bits[0] * loss + run.bits[1] : null;
    const valid = row => unit === "nats" ? row[1] : unit === "perplexity" ? Math.exp(row[1]) : row[2];
    return [
      { run: i, name: "training", style: "faint", points: run.steps.map(row => [row[0], train(row[1])]) },
      { run: i, name: "validation", style: "dots", ring: run.best, points: run.epochs.map(row => [row[0], valid(row)]) },
    ];
  }),
  norm: () => data.runs.flatMap((run, i) => {
    const ends = run.steps.length ? [run.steps[0][0], run.steps.at(-1)[0]] : [];
    return [
      { run: i, name: "largest", style: "faint", points: column(run.steps, 3) },
      { run: i, name: "mean norm", points: column(run.steps, 2) },
      { run: i, name: "threshold", style: "limit", points: run.threshold ? ends.map(x => [x, run.threshold]) : [] },
    ];
  }),
  clipped: () => data.runs.map((run, i) => ({ run: i, name: "clipped", points: run.clipped })),
  rate: () => data.runs.map((run, i) => ({ run: i, name: "rate", points: column(run.steps, 4) })),
  lag: () => data.runs.map((run, i) => ({ run: i, name: "norm", points: run.lags })),
};
const axes = {
  loss: () => ({ x: "updates", y: { nats: "nats a token", perplexity: "perplexity", bits: "bits a byte" }[unit], log: unit === "perplexity" }),
  norm: () => ({ x: "updates", y: "norm", log: true }),
  clipped: () => ({ x: "updates", y: "% of the updates", low: 0, high: 100 }),
  rate: () => ({ x: "updates", y: "learning rate", low: 0 }),
  lag: () => ({ x: "lag: tokens back from the loss", y: "norm of the gradient's part", log: true }),
};

const short = value => {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-3) return value.toExponential(1).replace(".0e", "e").replace("e+", "e");
  return size >= 1000 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(4)));
};
const linear = (low, high, most) => {
  const rough = (high - low) / Math.max(most, 1), power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find(factor => factor * power >= rough * 0.999);
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++) ticks.push(i * step);
  return ticks;
};
const decades = (low, high) => {
  const from = Math.floor(Math.log10(low)), to = Math.ceil(Math.log10(high)), ticks = [];
  const step = Math.ceil((to - from) / 6), factors = to - from > 2 ? [1] : [1, 2, 5];
  for (let power = from; power <= to; power += step) factors.forEach(f => ticks.push(f * 10 ** power));
  return ticks.filter(tick => tick >= low * 0.999 && tick <= high * 1.001);
};
const svg = (name, attributes, parent) => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const key in attributes) element.setAttribute(key, attributes[key]);
  parent.append(element);
  return element;
};
const colour = run => `var(--c${run % 6})`;

const draw = chart => {
  const kind = chart.dataset.chart, axis = axes[kind](), width = chart.clientWidth, height = 272;
  chart.replaceChildren();
  const usable = ([, y]) => y !== null && (!axis.log || y > 0);
  const shown = lines[kind]().filter(line => !hidden.has(line.run))
    .map(line => ({ ...line, points: line.points.filter(usable) })).filter(line => line.points.length);
  if (!shown.length || width < 50) return;
  const all = shown.flatMap(line => line.points), xs = all.map(p => p[0]), ys = all.map(p => p[1]);
  let [x0, x1] = [Math.min(...xs), Math.max(...xs)], [y0, y1] = [axis.low ?? Math.min(...ys), axis.high ?? Math.max(...ys)];
  if (x0 === x1) x1 = x0 + 1;
  if (y0 === y1) [y0, y1] = axis.log ? [y0 / 2, y1 * 2] : [y0 - 0.5, y1 + 0.5];
  const scale = axis.log ? Math.log : y => y, pad = 0.04 * (scale(y1) - scale(y0));
  const left = 58, right = 14, top = 26, bottom = 42;
  const X = x => left + (x - x0) / (x1 - x0) * (width - left - right);
  const Y = y => top + (scale(y1) + pad - scale(y)) / (scale(y1) - scale(y0) + 2 * pad) * (height - top - bottom);
  const root = svg("svg", { class: "figure", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": chart.dataset.label, tabindex: 0 }, chart);
  let texts = 0;
  const write = (text, attributes) => {
    const group = svg("g", { id: `${kind}-text_${texts++}` }, root);
    svg("text", attributes, group).textContent = text;
  };
  for (const tick of axis.log ? decades(y0, y1) : linear(y0, y1, 5)) {
    svg("line", { class: "grid", x1: left, x2: width - right, y1: Y(tick), y2: Y(tick) }, root);
    write(short(tick), { x: left - 6, y: Y(tick) + 4, "text-anchor": "end" });
  }
  for (const tick of linear(x0, x1, width / 110)) {
    if (X(tick) > width - right - 14) continue;
    write(short(tick), { x: X(tick), y: height - bottom + 18, "text-anchor": "middle" });
  }
  write(axis.y, { x: 2, y: 12 });
  write(axis.x, { x: width - right, y: height - 6, "text-anchor": "end" });
  for (const line of shown) {
    const path = line.points.map(([x, y], i) => `${i ? "L" : "M"}${X(x).toFixed(1)} ${Y(y).toFixed(1)}`).join("");
    svg("path", { d: path, class: line.style ?? "", style: `stroke: ${colour(line.run)}` }, root);
    if (line.style !== "dots") continue;
    for (const [x, y] of line.points) {
      const best = x === line.ring;
      const style = best ? `fill: var(--paper); stroke: ${colour(line.run)}; stroke-width: 2.5` : `fill: ${colour(line.run)}`;
      svg("circle", { cx: X(x), cy: Y(y), r: best ? 5.5 : 3, style }, root);
    }
  }
  if (axis.x === "updates") data.runs.forEach((run, i) => {
    if (run.diverged === null || hidden.has(i)) return;
    svg("line", { class: "cursor", style: `stroke: ${colour(i)}; stroke-width: 2`, x1: X(run.diverged), x2: X(run.diverged), y1: top, y2: height - bottom }, root);
  });
  const cursor = svg("line", { class: "cursor", y1: top, y2: height - bottom, visibility: "hidden" }, root);
  const box = document.createElement("div");
  box.className = "values";
  box.hidden = true;
  chart.append(box);
  const places = [...new Set(xs)].sort((a, b) => a - b);
  const nearest = (values, x) => values.reduce((a, b) => Math.abs(b - x) < Math.abs(a - x) ? b : a);
  let at = null;
  const read = x => {
    at = nearest(places, x);
    cursor.setAttribute("x1", X(at));
    cursor.setAttribute("x2", X(at));
    cursor.setAttribute("visibility", "visible");
    box.hidden = false;
    box.replaceChildren(Object.assign(document.createElement("div"), { textContent: `${axis.x.split(":")[0]} ${at.toLocaleString("en")}` }));
    for (const line of shown) {
      const point = line.points.reduce((a, b) => Math.abs(b[0] - at) < Math.abs(a[0] - at) ? b : a);
      const row = document.createElement("div"), sign = document.createElement("i");
      sign.style.color = colour(line.run);
      row.append(sign, `${data.runs.length > 1 ? data.runs[line.run].name + ", " : ""}${line.name} ${short(point[1])}`);
      box.append(row);
    }
    const room = X(at) > width / 2 ? X(at) - box.offsetWidth - 10 : X(at) + 10;
    box.style.left = `${Math.max(0, Math.min(room, width - box.offsetWidth))}px`;
  };
  const leave = () => { box.hidden = true; cursor.setAttribute("visibility", "hidden"); };
  const back = event => x0 + (event.clientX - root.getBoundingClientRect().left - left) / (width - left - right) * (x1 - x0);
  root.addEventListener("pointermove", event => read(back(event)));
  root.addEventListener("pointerdown", event => read(back(event)));
  root.addEventListener("pointerleave", leave);
  root.addEventListener("blur", leave);
  root.addEventListener("keydown", event => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const i = at === null ? 0 : places.indexOf(at) + step;
    read(places[Math.max(0, Math.min(i, places.length - 1))]);
  });
};

const update = () => {
  document.querySelectorAll("[data-unit]").forEach(button => button.ariaPressed = String(button.dataset.unit === unit));
  charts.forEach(draw);
};
for (const button of document.querySelectorAll("[data-unit]")) button.addEventListener("click", () => {
  unit = button.dataset.unit;
  update();
  if (location.protocol !== "about:") history.replaceState(null, "", `#${unit}`); // kept over a reload; a frame has no address
});
for (const button of document.querySelectorAll("[data-run]")) button.addEventListener("click", () => {
  const run = Number(button.dataset.run);
  hidden.has(run) ? hidden.delete(run) : hidden.add(run);
  button.ariaPressed = String(!hidden.has(run));
  charts.forEach(draw);
});
addEventListener("resize", () => charts.forEach(draw));
update();
if (data.refresh) setTimeout(() => location.reload(), 1000 * data.refresh);
