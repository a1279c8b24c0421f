// A text as the model has read it: the surprise at each token, the state behind it, and what comes next.

const EVERY = 16; // of the states behind older tokens one in so many is kept; all of the last ones are

class Reading {
  /** `units`: whether every unit's state is kept for each token, which a page of a character model shows. */
  constructor(model, units = false) {
    Object.assign(this, { model, units, seconds: 0, steps: 0 });
    this.open(true);
  }

  /** Begin anew: behind <eos>, as a speech begins, or from h = 0, as `lm next` reads a prompt. */
  open(speech) {
    const zero = this.model.zeroState(), begun = this.model.step(EOS, zero);
    this.speech = speech;
    this.states = new Map([[0, speech ? begun : zero]]);
    this.ids = [];
    this.records = [];
    this.shown = [];
    this.state = this.states.get(0);
    this.expect(begun); // without a text a speech begins, either way
  }

  get length() {
    return this.ids.length;
  }

  expect(state) {
    this.logits = this.model.logits(state);
    this.p = softmax(this.logits);
  }

  /** Read one more token. */
  add(id) {
    const begin = performance.now();
    this.records.push(this.length || this.speech ? this.record(id) : null);
    this.ids.push(id);
    this.state = this.model.step(id, this.state);
    this.expect(this.state);
    this.keep();
    this.seconds += (performance.now() - begin) / 1000;
    this.steps += 1;
  }

  /** Go back to the first `length` tokens. */
  shorten(length) {
    if (length >= this.length) return;
    if (!length) return this.open(this.speech);
    let from = length;
    while (!this.states.has(from)) from--;
    this.state = this.states.get(from);
    for (const id of this.ids.slice(from, length)) this.state = this.model.step(id, this.state);
    for (const at of this.states.keys()) if (at > length) this.states.delete(at);
    for (const list of [this.ids, this.records, this.shown]) list.length = length;
    this.states.set(length, this.state);
    this.expect(this.state);
  }

  keep() {
    const old = this.length - EVERY;
    if (old > 0 && old % EVERY) this.states.delete(old);
    this.states.set(this.length, this.state);
    if (this.units) this.shown.push(Float32Array.from(this.state.flatMap(({ h, c }) => Array.from(c ? c.map(Math.tanh) : h))));
  }

  /** What the token cost: bits, its probability, its place among all, and the three that were likeliest. */
  record(id) {
    const p = this.p[id];
    let rank = 1;
    for (const other of this.p) if (other > p) rank++;
    return { bits: -Math.log2(p), p, rank, expected: likeliest(this.p, 3) };
  }

  /** In bits: log2 of the number of tokens among which an even choice would be as uncertain. */
  entropy() {
    return this.p.reduce((sum, p) => p > 0 ? sum - p * Math.log2(p) : sum, 0);
  }
}

/** The n likeliest [id, probability], the lower id first on a tie. */
function likeliest(p, n) {
  const best = [];
  for (let id = 0; id < p.length; id++) {
    if (best.length === n && p[id] <= best[n - 1][1]) continue;
    let at = best.length;
    while (at > 0 && best[at - 1][1] < p[id]) at--;
    best.splice(at, 0, [id, p[id]]);
    if (best.length > n) best.pop();
  }
  return best;
}
