// What a reader sees and does.

const $ = id => document.getElementById(id);
const { about, tokenizer: vocabulary, tensors } = JSON.parse($("told").textContent);
const area = $("text"), shades = $("shades");
const BARS = 10;
const EDGES = [1, 3, 5, 8, 12]; // bits, as `lm score` has them
const FRAME = 16; // milliseconds of work between two pictures
const NOUN = { word: "words", char: "characters", bpe: "pieces" }[about.kind];
const number = (x, digits = 0) => x.toLocaleString("en", { maximumFractionDigits: digits, minimumFractionDigits: digits });
const percent = p => p >= 0.1 ? `${number(100 * p)}\u00a0%` : p >= 1e-4 ? `${(100 * p).toPrecision(2)}\u00a0%` : "under\u00a00.01\u00a0%";
const pause = milliseconds => new Promise(done => setTimeout(done, milliseconds));

let tokenizer, model, reading;
let tokens = []; // of the text, in step with what `reading` has read or is about to
let turn = 0; // a number for each change of the text, so that older work gives way
let writing = false;
const undo = []; // texts before what the model wrote

// -- the text ---------------------------------------------------------------------------------------------------------

/** Spaces at the end are not read by a model of words, which expects one before the next word anyway. */
const withoutEnd = text => about.kind === "word" ? text.replace(/ +$/, "") : text;

/** Read the text as it stands now, a picture's worth of tokens at a time; whether it was read to its end. */
async function read() {
  const mine = ++turn;
  tokens = tokenizer.read(withoutEnd(area.value).toWellFormed());
  let same = 0;
  while (same < Math.min(reading.length, tokens.length) && reading.ids[same] === tokens[same].id) same++;
  reading.shorten(same);
  paintText();
  for (;;) {
    const until = performance.now() + FRAME;
    while (reading.length < tokens.length && performance.now() < until) reading.add(tokens[reading.length].id);
    paintMore();
    if (reading.length === tokens.length) break;
    await pause(0);
    if (mine !== turn) return false;
  }
  paintNext();
  return true;
}

/** Put a token behind the text. */
function append(id, decoder) {
  const before = withoutEnd(area.value);
  area.value = before + decoder.push(id);
  tokens.push({ id, from: before.length, to: area.value.length, unknown: id === vocabulary.unknown });
  reading.add(id);
}

/** A decoder that has seen the text: the white space before the next word depends on it. */
function decoderBehind() {
  const decoder = tokenizer.decoder();
  for (const { id } of tokens) decoder.push(id);
  return decoder;
}

/** Replace the whole text. */
function setText(text) {
  stop();
  area.value = text;
  return read();
}

/** The pieces of the text with one token or several: one without a text of its own counts with those behind it. */
function pieces() {
  const found = [];
  let first = null;
  tokens.forEach((token, i) => {
    first ??= i;
    if (token.to > tokens[first].from || i === tokens.length - 1) {
      found.push({ first, last: i, from: tokens[first].from, to: token.to, unknown: token.unknown });
      first = null;
    }
  });
  return found;
}

// -- colours ----------------------------------------------------------------------------------------------------------

const unitShown = () => about.units && $("by-unit").checked ? Number($("unit").value) : null;

let drawn = []; // [span, first, last] of each piece
let coloured = 0; // pieces

/** The text again, under what is typed, each piece that was read coloured. */
function paintText() {
  const text = area.value, whole = document.createDocumentFragment();
  let at = 0;
  drawn = pieces().map(({ first, last, from, to, unknown }) => {
    const body = from + text.slice(from, to).search(/\S|$/); // white space before a word stays plain
    const begin = body < to ? body : from;
    const span = document.createElement("span");
    span.textContent = text.slice(begin, to);
    span.dataset.first = first;
    span.dataset.last = last;
    span.classList.toggle("unknown", unknown);
    whole.append(text.slice(at, begin), span);
    at = to;
    return [span, first, last];
  });
  whole.append(text.slice(at), "\u200b"); // so that a line break at the end counts
  shades.replaceChildren(whole);
  coloured = 0;
  paintMore();
}

/** Colour what was read meanwhile. */
function paintMore() {
  const unit = unitShown();
  for (; coloured < drawn.length && drawn[coloured][2] < reading.length; coloured++) colour(...drawn[coloured], unit);
}

function colour(span, first, last, unit) {
  if (unit === null) {
    const bits = bitsOf(first, last);
    if (bits !== null) span.classList.add(`s${EDGES.filter(edge => bits >= edge).length}`);
  } else {
    const value = reading.shown[last][unit] / (about.units.scale[unit] || 1);
    span.style.background = `rgb(var(${value < 0 ? "--low" : "--high"}) / ${Math.min(Math.abs(value), 1) * 0.5})`;
  }
}

/** What the tokens of a piece cost; null for a first one that nothing predicted. */
function bitsOf(first, last) {
  const records = reading.records.slice(first, last + 1);
  return records.includes(null) ? null : records.reduce((sum, record) => sum + record.bits, 0);
}

/** A token for people to read, white space and control characters shown. */
function visible(id) {
  if (id === EOS) return "end of the speech";
  const signs = { " ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍" };
  return tokenizer.show(id).replace(/[ \n\t\r]/g, c => signs[c]).replace(/\p{C}/gu, c => `U+${c.codePointAt().toString(16)}`);
}

/** The figures of the piece at the pointer or the caret. */
function explain(first, last) {
  if (last >= reading.length) return;
  const text = area.value.slice(tokens[first].from, tokens[last].to), parts = [`“${text.trim() || visible(tokens[last].id)}”`];
  const bits = bitsOf(first, last), unit = unitShown();
  if (tokens[last].unknown) parts.push("is not in the vocabulary");
  if (bits === null) parts.push("comes first, so nothing predicted it");
  else parts.push(`${number(bits, 1)} bits of surprise`);
  if (bits !== null && first === last) {
    const { p, rank, expected } = reading.records[last];
    parts.push(`P = ${percent(p)}`, `place ${number(rank)} of ${number(model.size)}`);
    parts.push(`expected: ${expected.map(([id, q]) => `${visible(id)} ${percent(q)}`).join(" · ")}`);
  }
  if (unit !== null) parts.push(`the unit is at ${reading.shown[last][unit].toFixed(2)}`);
  $("detail").textContent = parts.join(", ");
}

// -- what comes next --------------------------------------------------------------------------------------------------

/** Tokens that are not drawn: never <join> where spaces separate, and <unk> only when asked. */
const never = () => $("offer").checked ? vocabulary.never.filter(id => id !== vocabulary.unknown) : hidden();
const hidden = () => vocabulary.unknown === undefined ? vocabulary.never : [...new Set([...vocabulary.never, vocabulary.unknown])];

function paintNext() {
  const left = never(), p = reading.p.map((value, id) => left.includes(id) ? -1 : value);
  const best = likeliest(p, Math.min(BARS, p.length - left.length)), rows = [...$("bars").children];
  rows.forEach((row, i) => {
    row.hidden = i >= best.length;
    if (row.hidden) return;
    const [id, value] = best[i], button = row.firstChild, [label, bar, share] = button.children;
    button.dataset.id = id;
    button.setAttribute("aria-disabled", id === EOS);
    button.classList.toggle("special", id === EOS || id === vocabulary.unknown);
    label.textContent = visible(id);
    bar.firstChild.style.width = `${100 * value / Math.max(best[0][1], 1e-300)}%`;
    share.textContent = percent(value);
    button.setAttribute("aria-label", `${visible(id)}, ${percent(value)}`);
  });
  const unknown = vocabulary.unknown === undefined ? 0 : reading.p[vocabulary.unknown];
  const rest = 1 - best.reduce((sum, [, value]) => sum + value, 0) - ($("offer").checked ? 0 : unknown);
  $("rest").textContent = `All other ${NOUN}: ${percent(Math.max(rest, 0))}.`;
  $("unknown-share").textContent = percent(unknown);
  const bits = reading.entropy();
  $("pace").textContent = reading.steps ? `${number(1000 * reading.seconds / reading.steps, 1)} ms a token` : "";
  $("entropy").textContent = `Uncertainty: ${number(bits, 1)} bits, as in an even choice among ${number(2 ** bits, bits < 4 ? 1 : 0)} ${NOUN}.`;
}

/** Take a bar's token. */
function take(id) {
  if (id === EOS || reading.length < tokens.length) return;
  stop();
  turn++;
  undo.push(area.value);
  append(id, decoderBehind());
  paintText();
  paintNext();
  keepEndInSight();
}

// -- writing on -------------------------------------------------------------------------------------------------------

const settings = () => ({
  temperature: Number($("temperature").value), topK: Math.max(0, Math.floor(Number($("top-k").value) || 0)), never: never(),
});

/** Write up to `count` tokens behind the text; the same seed writes the same. */
async function write(count = Number($("length").value)) {
  stop();
  if (!await read()) return; // the text has changed meanwhile
  const mine = ++turn, random = generator(Number($("seed").value)), decoder = decoderBehind(), how = settings();
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  undo.push(area.value);
  writing = true;
  paintButtons();
  let ended = "", seen = performance.now();
  for (let made = 0; made < count && !ended; made++) {
    const id = pick(reading.logits, how, random);
    if (id === EOS) ended = "The model ended the speech here.";
    else append(id, decoder);
    if (calm ? performance.now() - seen < 3 * FRAME : about.kind === "char" && made % 4) continue;
    if (!calm) {
      paintText();
      keepEndInSight();
    }
    await pause(calm ? 0 : FRAME);
    if (mine !== turn) return;
    seen = performance.now();
  }
  paintText();
  paintNext();
  keepEndInSight();
  stop();
  $("ended").textContent = ended || `Wrote ${number(count)} ${NOUN} with seed ${$("seed").value}.`;
}

function stop() {
  if (writing) {
    turn++;
    paintNext();
  }
  writing = false;
  $("ended").textContent = "";
  paintButtons();
}

function paintButtons() {
  $("go").textContent = writing ? "Stop" : "Write on";
  $("undo").disabled = !undo.length;
}

function keepEndInSight() {
  const box = $("editor");
  box.scrollTop = box.scrollHeight;
}

// -- units of a character model ---------------------------------------------------------------------------------------

/** The units, best first for the chosen property. */
function listUnits() {
  const scores = about.units.scores[$("property").value];
  const units = about.units.scale.map((_, unit) => unit);
  if (scores) units.sort((a, b) => scores[b] - scores[a] || a - b);
  $("unit").replaceChildren(...units.map(unit => {
    const layer = about.layers > 1 ? `layer ${Math.floor(unit / about.hidden)}, ` : ""; // counted from 0, as in torch
    return new Option(`${layer}unit ${unit % about.hidden}${scores ? ` (${scores[unit].toFixed(2)})` : ""}`, unit);
  }));
  paintText();
}

// -- the beginning ----------------------------------------------------------------------------------------------------

function connect() {
  $("bars").append(...Array.from({ length: BARS }, () => {
    const row = document.createElement("li"), button = document.createElement("button");
    button.type = "button";
    for (const name of ["label", "bar", "share"]) button.append(Object.assign(document.createElement("span"), { className: name }));
    button.children[1].append(document.createElement("span"));
    button.addEventListener("click", () => take(Number(button.dataset.id)));
    row.append(button);
    return row;
  }));
  $("bars").addEventListener("keydown", event => {
    const step = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
    const row = step && event.target.parentElement[step];
    if (!step) return;
    event.preventDefault();
    if (row && !row.hidden) row.firstChild.focus();
  });
  area.addEventListener("input", () => { stop(); read(); });
  area.addEventListener("keydown", event => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); write(); }
  });
  addEventListener("keydown", event => { if (event.key === "Escape") stop(); });
  $("editor").addEventListener("pointermove", event => {
    const span = document.elementsFromPoint(event.clientX, event.clientY).find(element => element.dataset.first);
    if (span) explain(Number(span.dataset.first), Number(span.dataset.last));
  });
  document.addEventListener("selectionchange", () => {
    const caret = area.selectionStart, inside = ([, first, last]) => tokens[first].from < caret && caret <= tokens[last].to;
    const piece = document.activeElement === area && drawn.find(inside);
    if (piece) explain(piece[1], piece[2]);
  });
  $("go").addEventListener("click", () => writing ? stop() : write());
  $("undo").addEventListener("click", () => { if (undo.length) setText(undo.pop()); });
  $("clear").addEventListener("click", () => { undo.push(area.value); setText(""); area.focus(); });
  $("new-seed").addEventListener("click", () => { $("seed").value = Math.floor(Math.random() * 1e6); });
  $("temperature").addEventListener("input", () => { $("warmth").textContent = Number($("temperature").value).toFixed(2); });
  $("offer").addEventListener("change", () => paintNext());
  $("speech").addEventListener("change", () => { stop(); reading.open($("speech").checked); read(); });
  for (const button of document.querySelectorAll(".prompt")) {
    button.addEventListener("click", () => { undo.push(area.value); setText(button.textContent); });
  }
  if (about.units) {
    $("property").replaceChildren(...Object.keys(about.units.scores).map(name => new Option(name, name)), new Option("number", ""));
    $("property").addEventListener("change", listUnits);
    $("unit").addEventListener("change", paintText);
    const choose = () => {
      document.body.classList.toggle("units-shown", $("by-unit").checked);
      paintText();
    };
    for (const choice of [$("by-surprise"), $("by-unit")]) choice.addEventListener("change", choose);
    listUnits();
    choose();
  }
}

/** Unpack the model, read the first prompt, show what comes next, and say how long that took. */
async function begin() {
  tokenizer = tokenizerOf(vocabulary);
  model = new Model(about, unpacked(tensors, await unzipped(bytesOf($("weights").textContent))));
  $("weights").remove();
  reading = new Reading(model, Boolean(about.units));
  connect();
  await setText(about.prompts[0] ?? "");
  for (const control of document.querySelectorAll("[disabled]:not(#undo)")) control.disabled = false;
  const ready = performance.now(); // from the moment the page was asked for
  document.body.classList.add("ready");
  $("ready").textContent = `${number(ready / 1000, 2)} s from opening the page to the first ${NOUN}`;
}

const begun = begin().catch(error => {
  $("detail").textContent = `This page needs a browser of 2023 or later, with JavaScript: ${error.message}`;
  throw error;
});
