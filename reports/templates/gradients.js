// Vanishing and exploding gradients: forward and backward through a small network, in float64, while sliders move.
// The weights are those of the page; tests compare `gradients.flow` with the kernels.
const data = JSON.parse(document.getElementById("example").textContent);
const { units: n, steps: T } = data;
const sigmoid = x => 1 / (1 + Math.exp(-x));
// what an Elman network does to its sums, and the slope of that, from h
const ELMAN = {
  tanh: [Math.tanh, h => 1 - h * h],
  relu: [x => Math.max(0, x), h => h > 0 ? 1 : 0],
  sigmoid: [sigmoid, h => h * (1 - h)],
  linear: [x => x, () => 1],
};
const GATES = { lstm: 4, gru: 3 };
const norm = (...vectors) => {
  const largest = Math.max(...vectors.map(v => v.reduce((m, x) => Math.max(m, Math.abs(x)), 0)));
  if (!(largest > 0 && largest < Infinity)) return largest;
  return largest * Math.sqrt(vectors.reduce((sum, v) => sum + v.reduce((s, x) => s + (x / largest) ** 2, 0), 0));
};
const zeros = () => new Float64Array(n);
// the state's part of a gate's sums, g h W_h, and the way back through it
const ahead = (h, weights, g) => weights.map(row => g * row.reduce((sum, w, i) => sum + w * h[i], 0));
const back = (into, d, weights, g) => weights.forEach((row, j) => { for (let i = 0; i < n; i++) into[i] += g * row[i] * d[j]; });
const KEEPS = 1;  // the gate that keeps: f of i f g o, u of r u n

// By lag l = t - i: `hidden` ||dL(t)/dh(i)||, `cell` ||dL(t)/dc(i)|| (LSTM, by way of h(i) too), `part` ||dL(t)/dW_h at step i||,
// and `state`, the norm of what arrives at h(i) and c(i) together.
function flow(cell, { scale, noise, bias }) {
  const gates = GATES[cell] ?? 1, steps = [];
  let h = zeros(), c = zeros();
  for (let t = 0; t < T; t++) {
    const a = [], z = [];
    for (let k = 0; k < gates; k++) {
      a.push(ahead(h, data.weights[k], scale));
      z.push(a[k].map((_, j) => gates > 1 && k === KEEPS ? bias : noise * data.inputs[t][k * n + j]));
    }
    const step = { h, c };
    if (cell === "lstm") {
      const [i, f, g, o] = [sigmoid, sigmoid, Math.tanh, sigmoid].map((s, k) => z[k].map((x, j) => s(x + a[k][j])));
      const next = c.map((x, j) => f[j] * x + i[j] * g[j]), bounded = next.map(Math.tanh);
      Object.assign(step, { i, f, g, o, bounded });
      [h, c] = [bounded.map((x, j) => o[j] * x), next];
    } else if (cell === "gru") {
      const [r, u] = [0, 1].map(k => z[k].map((x, j) => sigmoid(x + a[k][j])));
      const m = z[2].map((x, j) => Math.tanh(x + r[j] * a[2][j])), before = h;
      Object.assign(step, { r, u, m, a: a[2] });
      h = Float64Array.from(m, (x, j) => (1 - u[j]) * x + u[j] * before[j]);
    } else h = Float64Array.from(z[0], (x, j) => ELMAN[cell][0](x + a[0][j]));
    step.after = h;
    steps.push(step);
  }
  const found = { hidden: [], cell: [], state: [], part: [] };
  let dh = Float64Array.from(data.aim), dc = zeros();
  for (let t = T - 1; t >= 0; t--) {
    const s = steps[t], earlier = zeros();
    let d, kept = zeros(), whole = kept;
    if (cell === "lstm") {
      whole = dc.map((x, j) => x + dh[j] * s.o[j] * (1 - s.bounded[j] ** 2));
      d = [
        whole.map((x, j) => x * s.g[j] * s.i[j] * (1 - s.i[j])),
        whole.map((x, j) => x * s.c[j] * s.f[j] * (1 - s.f[j])),
        whole.map((x, j) => x * s.i[j] * (1 - s.g[j] ** 2)),
        dh.map((x, j) => x * s.bounded[j] * s.o[j] * (1 - s.o[j])),
      ];
      kept = whole.map((x, j) => x * s.f[j]);
    } else if (cell === "gru") {
      const m = dh.map((x, j) => x * (1 - s.u[j]) * (1 - s.m[j] ** 2));
      d = [
        m.map((x, j) => x * s.a[j] * s.r[j] * (1 - s.r[j])),
        dh.map((x, j) => x * (s.h[j] - s.m[j]) * s.u[j] * (1 - s.u[j])),
        m.map((x, j) => x * s.r[j]),
      ];
      dh.forEach((x, j) => { earlier[j] = x * s.u[j]; });
    } else d = [dh.map((x, j) => x * ELMAN[cell][1](s.after[j]))];
    found.hidden.push(norm(dh));
    found.cell.push(norm(whole));
    found.state.push(norm(dh, dc));
    found.part.push(norm(...d) * norm(s.h));
    d.forEach((one, k) => back(earlier, one, data.weights[k], scale));
    [dh, dc] = [earlier, kept];
  }
  return found;
}

// One step from `at` = {h, c} at time t, and where it moves if `at` moves by `by`: the derivative along `by`.
function linearised(cell, { scale, noise, bias }, t, at, by) {
  const gates = GATES[cell] ?? 1, all = [...Array(gates).keys()];
  const a = all.map(k => ahead(at.h, data.weights[k], scale)), da = all.map(k => ahead(by.h, data.weights[k], scale));
  const z = (k, j) => gates > 1 && k === KEEPS ? bias : noise * data.inputs[t][k * n + j];
  const after = { h: zeros(), c: zeros() }, moved = { h: zeros(), c: zeros() };
  for (let j = 0; j < n; j++) {
    const sum = k => z(k, j) + a[k][j], gate = k => { const s = sigmoid(sum(k)); return [s, s * (1 - s) * da[k][j]]; };
    if (cell === "lstm") {
      const [i, di] = gate(0), [f, df] = gate(1), [o, d_o] = gate(3), g = Math.tanh(sum(2)), dg = (1 - g * g) * da[2][j];
      after.c[j] = f * at.c[j] + i * g;
      moved.c[j] = f * by.c[j] + df * at.c[j] + di * g + i * dg;
      const bounded = Math.tanh(after.c[j]);
      after.h[j] = o * bounded;
      moved.h[j] = d_o * bounded + o * (1 - bounded * bounded) * moved.c[j];
    } else if (cell === "gru") {
      const [r, dr] = gate(0), [u, du] = gate(1), m = Math.tanh(z(2, j) + r * a[2][j]);
      after.h[j] = (1 - u) * m + u * at.h[j];
      moved.h[j] = (1 - u) * (1 - m * m) * (r * da[2][j] + dr * a[2][j]) + u * by.h[j] + du * (at.h[j] - m);
    } else {
      after.h[j] = ELMAN[cell][0](sum(0));
      moved.h[j] = ELMAN[cell][1](after.h[j]) * da[0][j];
    }
  }
  return { after, moved };
}

// Newton's method over all T steps at once, from zeros: iterations until each state is within 1e-6 of the sequential one's;
// Infinity where T iterations do not suffice or a guess overflows. The study parallel counts the same.
function newton(cell, setting) {
  const nothing = { h: zeros(), c: zeros() }, truth = [];
  for (let t = 0; t < T; t++) truth.push(linearised(cell, setting, t, truth[t - 1] ?? nothing, nothing).after);
  let guess = truth.map(() => nothing);
  for (let k = 0; k <= T; k++) {
    const far = Math.max(...guess.flatMap((s, t) => [...s.h.map((x, j) => Math.abs(x - truth[t].h[j])), ...s.c.map((x, j) => Math.abs(x - truth[t].c[j]))]));
    if (far <= 1e-6) return k;
    if (!isFinite(far)) break;
    let by = nothing;
    guess = guess.map((old, t) => {
      const { after, moved } = linearised(cell, setting, t, guess[t - 1] ?? nothing, by);
      const next = { h: after.h.map((x, j) => x + moved.h[j]), c: after.c.map((x, j) => x + moved.c[j]) };
      by = { h: next.h.map((x, j) => x - old.h[j]), c: next.c.map((x, j) => x - old.c[j]) };
      return next;
    });
  }
  return Infinity;
}

// The cliff: x(t) = w s(x(t-1)) + b from 0.5, fifty times, E = (s(x) - 0.7)^2; E and its slopes, carried along.
const CLIFF = { start: 0.5, steps: 50, target: 0.7, window: [4.2, 5.1, -2.75, -1.9], rate: 0.2, descent: 60 };
function slopes(w, b) {
  let x = CLIFF.start, by_w = 0, by_b = 0;
  for (let t = 0; t < CLIFF.steps; t++) {
    const s = sigmoid(x), growth = w * s * (1 - s);
    [x, by_w, by_b] = [w * s + b, s + growth * by_w, 1 + growth * by_b];
  }
  const s = sigmoid(x), outer = 2 * (s - CLIFF.target) * s * (1 - s);
  return [(s - CLIFF.target) ** 2, outer * by_w, outer * by_b];
}
// Algorithm 1 at every step; a threshold of Infinity clips nothing. [w, b, E, norm] from the start on.
function descent(w, b, threshold) {
  const path = [];
  for (let t = 0; t <= CLIFF.descent; t++) {
    const [error, by_w, by_b] = slopes(w, b), length = Math.hypot(by_w, by_b);
    path.push([w, b, error, length]);
    const rate = CLIFF.rate * (length >= threshold ? threshold / length : 1);
    [w, b] = [w - rate * by_w, b - rate * by_b];
  }
  return path;
}

// A number with d digits that count; and products in which all factors have as many as make every product true.
const digits = (x, d) => {
  if (!isFinite(x) || x === 0) return String(x).replace("Infinity", "∞");
  if (x >= 1e-3 && x < 1e5) return x.toFixed(Math.max(0, d - 1 - Math.floor(Math.log10(Math.abs(x)))));
  const [mantissa, power] = x.toExponential(d - 1).split("e");
  return `${mantissa}·10${[...String(+power)].map(c => c === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[c]).join("")}`;
};
const value = text => Number(text.replace(/·10(.+)/, (_, p) => `e${[...p].map(c => c === "⁻" ? "-" : "⁰¹²³⁴⁵⁶⁷⁸⁹".indexOf(c)).join("")}`));
function products(chains) {
  for (let d = 2; ; d++) {
    const told = chains.map(({ factors, whole }) => [factors.map(f => digits(f, d)), digits(whole, 2)]);
    const right = ([factors, whole]) => digits(factors.reduce((p, f) => p * value(f), 1), 2) === whole;
    if (d > 15 || told.every(right)) return told;
  }
}

// What the page shows.
const at = id => document.getElementById(id);
const make = (svg, tag, attributes, text) => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, of] of Object.entries(attributes)) element.setAttribute(key, of);
  if (text !== undefined) element.textContent = text;
  svg.append(element);
  return element;
};
const write = (svg, x, y, text, more = {}) => make(svg, "text", { x, y, class: "type", ...more }, text);
const setting = () => ({
  cell: at("cell").value, scale: +at("scale").value, noise: +at("noise").value, bias: +at("bias").value, lag: +at("lag").value,
});
const radius = Math.max(...data.eigenvalues.map(([re, im]) => Math.hypot(re, im)));

function curve(found, { cell, scale, bias, lag }) {
  const svg = at("curve"), gated = cell in GATES, s = sigmoid(bias);
  svg.replaceChildren();
  const lines = [["||dL(t)/dh(i)||", found.hidden, "c0", ""]];
  if (cell === "lstm") lines.push(["||dL(t)/dc(i)||", found.cell, "c2", ""]);
  const kept = cell === "lstm" ? found.cell : found.hidden;
  if (gated) lines.push(["s(b)ˡ: log s(b) a step", kept.map((_, l) => kept[0] * s ** l), "c1", "8 5"]);
  else {
    const sigma = data.steepest[cell] * scale * data.sigma;
    lines.push(["ρˡ, ρ the spectral radius", kept.map((_, l) => (scale * radius) ** l), "c3", "8 5"]);
    lines.push(["σˡ, σ the largest singular value" + (cell === "sigmoid" ? " / 4" : ""), kept.map((_, l) => sigma ** l), "muted", "2 4"]);
  }
  const low = -20, high = 20, [left, right, top, bottom] = [56, 625, 14, 316];
  const x = l => left + (right - left) * l / (T - 1), y = v => top + (bottom - top) * (high - Math.log10(v)) / (high - low);
  for (let power = low; power <= high; power += 10) {
    make(svg, "line", { x1: left, x2: right, y1: y(10 ** power), y2: y(10 ** power), class: power ? "rule" : "axis" });
    write(svg, left - 6, y(10 ** power) + 4, digits(10 ** power, 1).replace("1·", ""), { "text-anchor": "end" });
  }
  for (let l = 0; l < T; l += 10) write(svg, x(l), bottom + 18, l, { "text-anchor": "middle" });
  write(svg, (left + right) / 2, bottom + 36, "lag l (steps back from the loss)", { "text-anchor": "middle" });
  make(svg, "line", { x1: x(lag), x2: x(lag), y1: top, y2: bottom, class: "mark" });
  lines.forEach(([name, values, colour, dash], i) => {
    const points = values.map((v, l) => [l, v]).filter(([, v]) => v >= 10 ** low && v <= 10 ** high);
    const path = points.map(([l, v]) => `${x(l).toFixed(1)},${y(v).toFixed(1)}`).join(" ");
    make(svg, "polyline", { points: path, fill: "none", stroke: `var(--${colour})`, "stroke-width": dash ? 2 : 3.5, "stroke-dasharray": dash });
    if (values[lag] >= 10 ** low && values[lag] <= 10 ** high)
      make(svg, "circle", { cx: x(lag), cy: y(values[lag]), r: 5, fill: `var(--${colour})` });
    const at = [left + 300 * (i % 2), bottom + 68 + 24 * Math.floor(i / 2)];
    make(svg, "line", { x1: at[0], x2: at[0] + 26, y1: at[1] - 4, y2: at[1] - 4, stroke: `var(--${colour})`, "stroke-width": 3, "stroke-dasharray": dash });
    write(svg, at[0] + 32, at[1], name);
  });
  at("curve-said").textContent = `At lag ${lag}: ` + lines.map(([name, values]) => `${name.split(",")[0].split(":")[0]} = ${digits(values[lag], 3)}`).join(", ") + ".";
  return kept;
}

function plane({ cell, scale, bias }) {
  const svg = at("plane"), size = 88, middle = 200, gated = cell in GATES;
  svg.replaceChildren();
  make(svg, "line", { x1: 10, x2: 390, y1: middle, y2: middle, class: "rule" });
  make(svg, "line", { x1: middle, x2: middle, y1: 10, y2: 390, class: "rule" });
  make(svg, "circle", { cx: middle, cy: middle, r: size, fill: "none", stroke: "var(--ink)", "stroke-width": 2 });
  write(svg, 390, 22, "○ unit circle", { "text-anchor": "end" });  // in the corner, where no eigenvalue lies
  if (gated) {
    make(svg, "circle", { cx: middle + size * sigmoid(bias), cy: middle, r: 8, fill: "var(--c1)" });
    write(svg, middle + 8, middle + 30, `s(b) = ${digits(sigmoid(bias), 3)}`);
    at("plane-said").textContent = `A gated step is no single matrix; the gate that keeps multiplies by s(b) = ${digits(sigmoid(bias), 3)}.`;
    return;
  }
  for (const [re, im] of data.eigenvalues) {
    const outside = scale * Math.hypot(re, im) > 1;
    make(svg, "circle", { cx: middle + size * scale * re, cy: middle - size * scale * im, r: 4.5, fill: `var(--${outside ? "c3" : "c0"})` });
  }
  const outside = data.eigenvalues.filter(([re, im]) => scale * Math.hypot(re, im) > 1).length;
  at("plane-said").textContent = `Eigenvalues of g W_h: ${outside} of ${n} outside the unit circle; the spectral radius is ${digits(scale * radius, 3)}.`;
}

const COLOURS = ["c3", "c2", "c1", "c0"];  // of the paths through steps 1 .. 4
function chains(found) {  // of step i = 1 .. 4: the factors of its path, and its part
  return [1, 2, 3, 4].map(i => {
    const factors = [found.state[0]];
    for (let l = 1; l <= 4 - i; l++) factors.push(found.state[l - 1] ? found.state[l] / found.state[l - 1] : 0);
    factors.push(found.state[4 - i] ? found.part[4 - i] / found.state[4 - i] : 0);
    return { factors, whole: found.part[4 - i] };
  });
}
function paths(found) {
  const svg = at("paths"), list = at("products"), told = products(chains(found));
  svg.replaceChildren();
  list.replaceChildren();
  const column = i => 130 + 215 * (i - 1), lane = i => [112, 96, 80, 128][i - 1];
  write(svg, 22, 124, "h(0)");
  for (let i = 1; i <= 4; i++) {
    const x = column(i);
    make(svg, "line", { x1: x - (i > 1 ? 150 : 70), x2: x - 62, y1: 120, y2: 120, class: "axis" });
    make(svg, "rect", { x: x - 62, y: 70, width: 124, height: 92, rx: 8, class: "box" });
    write(svg, x - 52, 152, `h(${i})`);
    write(svg, x - 50, 318, "e(" + i + ")");
    make(svg, "line", { x1: x - 38, x2: x - 38, y1: 300, y2: 164, class: "axis" });
    write(svg, x + 36, 228, "W_h");
    if (i < 4) write(svg, x + 107, 62, `× ${told[0][0][4 - i]}`, { "text-anchor": "middle" });
  }
  make(svg, "rect", { x: column(4) - 50, y: 6, width: 100, height: 34, rx: 8, class: "box" });
  write(svg, column(4), 29, "L(4)", { "text-anchor": "middle" });
  for (let i = 1; i <= 4; i++) {
    const from = column(4) - 36 + 18 * i, to = column(i) + 16, y = i === 4 ? 100 : 84 + 12 * (3 - i);
    make(svg, "polyline", { points: `${from},40 ${from},${y} ${to},${y} ${to},262`, fill: "none", stroke: `var(--${COLOURS[i - 1]})`, "stroke-width": 4 });
    write(svg, to, 284, told[i - 1][1], { "text-anchor": "middle", class: "type strong", style: `fill: var(--letter-${COLOURS[i - 1]})` });
    const item = document.createElement("li");
    item.textContent = `through step ${i}: ${told[i - 1][0].join(" × ")} = ${told[i - 1][1]}`;
    item.style.color = `var(--letter-${COLOURS[i - 1]})`;
    list.prepend(item);
  }
}

function refresh() {
  const now = setting(), found = flow(now.cell, now), gated = now.cell in GATES;
  for (const id of ["scale", "lag", "noise", "bias"]) at(`${id}-value`).textContent = at(id).value;
  at("bias-label").hidden = !gated;
  const kept = curve(found, now), l = now.lag;
  plane(now);
  paths(found);
  const pace = l > 0 ? (kept[l] / kept[0]) ** (1 / l) : 1, what = now.cell === "lstm" ? "dL(t)/dc(i)" : "dL(t)/dh(i)";
  const fate = pace < 0.999 ? "It vanishes" : pace > 1.001 ? "It explodes" : "It keeps its length";
  const why = gated ? `s(b) is ${digits(sigmoid(now.bias), 3)}` : `the spectral radius of W_h is ${digits(now.scale * radius, 3)}`;
  at("answer").textContent = `${fate}: over ${l} steps each step back multiplies ${what} by ${digits(pace, 3)} on average; ${why}.`;
  const count = newton(now.cell, now), repeated = count === 1 ? "1 iteration" : `${count} iterations`;
  at("newton").textContent = isFinite(count)
    ? `Newton's method solves all ${T} steps at once in ${repeated}.` : `Newton's method does not solve the ${T} steps at once.`;
}

// The cliff's panel.
const start = { w: 4.7, b: -2.1 };
const [W0, W1, B0, B1] = CLIFF.window, place = (w, b) => [40 + 660 * (w - W0) / (W1 - W0), 20 + 420 * (B1 - b) / (B1 - B0)];
function surface() {
  const canvas = at("surface"), { width, height } = canvas, pen = canvas.getContext("2d"), image = pen.createImageData(width, height);
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  for (let row = 0; row < height; row++) for (let column = 0; column < width; column++) {
    const [error] = slopes(W0 + (W1 - W0) * (column + 0.5) / width, B1 - (B1 - B0) * (row + 0.5) / height);
    image.data.set([...(dark ? [210, 216, 224] : [40, 50, 66]), Math.round(170 * Math.min(1, error / 0.45))], 4 * (row * width + column));
  }
  pen.putImageData(image, 0, 0);
}
function cliff() {
  const svg = at("cliff"), threshold = 10 ** +at("threshold").value, held = svg.contains(document.activeElement);
  at("threshold-value").textContent = digits(threshold, 2);
  svg.replaceChildren();
  make(svg, "rect", { x: 40, y: 20, width: 660, height: 420, fill: "none", class: "axis" });
  const ridge = w => CLIFF.start - sigmoid(CLIFF.start) * w;
  const clip = make(make(svg, "defs", {}), "clipPath", { id: "inside" });
  make(clip, "rect", { x: 40, y: 20, width: 660, height: 420 });
  const line = (points, colour, dash = "") => make(svg, "polyline", {
    points: points.map(([w, b]) => place(w, b).map(v => Math.max(-5000, Math.min(5000, v)).toFixed(1)).join(",")).join(" "),
    fill: "none", stroke: `var(--${colour})`, "stroke-width": 2.5, "stroke-dasharray": dash, "clip-path": "url(#inside)",
  });
  line([[W0, ridge(W0)], [W1, ridge(W1)]], "c4", "2 5");
  const told = [["without clipping", Infinity, "c3"], ["clipped", threshold, "c0"]].map(([name, limit, colour], i) => {
    const path = descent(start.w, start.b, limit), end = path[path.length - 1];
    line(path, colour);
    for (const [w, b] of path) if (w > W0 && w < W1 && b > B0 && b < B1) {
      const [cx, cy] = place(w, b);
      make(svg, "circle", { cx, cy, r: 3.5, fill: `var(--${colour})` });
    }
    write(svg, 60 + 200 * i, 466, `▬ ${name}`, { style: `fill: var(--letter-${colour})` });
    return `${name} the descent ends at w = ${digits(end[0], 3)}, b = ${end[1].toFixed(2)} with E = ${digits(end[2], 2)}`;
  });
  write(svg, 690, 466, "weight w →", { "text-anchor": "end" });
  write(svg, 26, 240, "bias b →", { "text-anchor": "middle", transform: "rotate(-90 26 240)" });
  const [cx, cy] = place(start.w, start.b);
  const handle = make(svg, "circle", { cx, cy, r: 13, id: "start", tabindex: 0, role: "slider", "aria-label": "starting point",
    "aria-valuetext": `w ${start.w.toFixed(2)}, b ${start.b.toFixed(2)}`, "aria-valuenow": start.w.toFixed(2), class: "handle" });
  if (held) handle.focus();
  at("cliff-said").textContent = `From w = ${start.w.toFixed(2)}, b = ${start.b.toFixed(2)}: ${told.join("; ")}.`;
}
function move(w, b) {
  start.w = Math.min(W1, Math.max(W0, w));
  start.b = Math.min(B1, Math.max(B0, b));
  cliff();
}
at("cliff").addEventListener("pointerdown", event => {
  if (event.target.id !== "start") return;
  event.preventDefault();
  const svg = at("cliff");
  const follow = moved => {
    const { x, y } = new DOMPoint(moved.clientX, moved.clientY).matrixTransform(svg.getScreenCTM().inverse());
    move(W0 + (x - 40) / 660 * (W1 - W0), B1 - (y - 20) / 420 * (B1 - B0));
  };
  svg.setPointerCapture(event.pointerId);
  svg.addEventListener("pointermove", follow);
  svg.addEventListener("pointerup", () => svg.removeEventListener("pointermove", follow), { once: true });
});
at("cliff").addEventListener("keydown", event => {
  const step = { ArrowLeft: [-0.01, 0], ArrowRight: [0.01, 0], ArrowUp: [0, 0.01], ArrowDown: [0, -0.01] }[event.key];
  if (!step || event.target.id !== "start") return;
  event.preventDefault();
  move(start.w + step[0], start.b + step[1]);
});
for (const id of ["cell", "scale", "lag", "noise", "bias"]) at(id).addEventListener("input", refresh);
at("threshold").addEventListener("input", cliff);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", surface);
window.gradients = { flow, newton, slopes, descent, products, chains, digits, value, refresh, move };
refresh();
surface();
cliff();
