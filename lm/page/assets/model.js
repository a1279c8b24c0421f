// The network: an embedding, recurrent layers, perhaps a projection, and the decoder. It computes in float64, like the
// equations in kernels/rnn/cells.py; rows of a weight are units, the gates of a layer lie one behind the other.

const sigmoid = x => 1 / (1 + Math.exp(-x));

/** out = W x + b for a row-major W; b may be null. Four sums at a time, which the processor adds side by side. */
function affine(W, x, b, out) {
  const columns = x.length;
  for (let row = 0, i = 0; row < out.length; row++) {
    let s0 = 0, s1 = 0, s2 = 0, s3 = 0, c = 0;
    for (; c + 3 < columns; c += 4, i += 4) {
      s0 += W[i] * x[c];
      s1 += W[i + 1] * x[c + 1];
      s2 += W[i + 2] * x[c + 2];
      s3 += W[i + 3] * x[c + 3];
    }
    for (; c < columns; c++, i++) s0 += W[i] * x[c];
    out[row] = s0 + s1 + (s2 + s3) + (b ? b[row] : 0);
  }
  return out;
}

// Each cell: z = W_ih x + b_ih and a = W_hh h + b_hh, [gates * size], and the state before; gives the state after.
const elman = activation => (z, a, { h }) => ({ h: h.map((_, j) => activation(z[j] + a[j])) });
const CELLS = {
  "rnn-tanh": elman(Math.tanh),
  "rnn-relu": elman(x => Math.max(x, 0)),
  "rnn-sigmoid": elman(sigmoid),

  lstm(z, a, state) {
    const size = state.h.length, h = new Float64Array(size), c = new Float64Array(size);
    for (let j = 0; j < size; j++) {
      const [i, f, g, o] = [j, j + size, j + 2 * size, j + 3 * size];
      c[j] = sigmoid(z[f] + a[f]) * state.c[j] + sigmoid(z[i] + a[i]) * Math.tanh(z[g] + a[g]);
      h[j] = sigmoid(z[o] + a[o]) * Math.tanh(c[j]);
    }
    return { h, c };
  },

  gru(z, a, state) {
    const size = state.h.length, h = new Float64Array(size);
    for (let j = 0; j < size; j++) {
      const [r, u, n] = [j, j + size, j + 2 * size];
      const reset = sigmoid(z[r] + a[r]), update = sigmoid(z[u] + a[u]);
      const candidate = Math.tanh(z[n] + reset * a[n]); // the reset gate acts after the product
      h[j] = (1 - update) * candidate + update * state.h[j];
    }
    return { h };
  },

  mingru(z, a, state) { // z is the gate and the candidate; there is no a
    const size = state.h.length;
    return { h: state.h.map((before, j) => {
      const gate = sigmoid(z[j]);
      return (1 - gate) * before + gate * z[j + size];
    }) };
  },
};

class Model {
  /** `told` has cell, layers and hidden; `tensors` are those of the Python model's state_dict. */
  constructor(told, tensors) {
    const values = name => tensors[name]?.values;
    this.cell = CELLS[told.cell];
    this.hidden = told.hidden;
    this.lstm = told.cell === "lstm";
    this.embedding = values("embedding.weight");
    [this.size, this.width] = tensors["embedding.weight"].shape;
    this.layers = Array.from({ length: told.layers }, (_, layer) => ({
      ih: values(`layers.${layer}.weight_ih_l0`), hh: values(`layers.${layer}.weight_hh_l0`),
      inputBias: values(`layers.${layer}.bias_ih_l0`), stateBias: values(`layers.${layer}.bias_hh_l0`),
    }));
    this.projection = tensors["projection.weight"]?.values;
    this.decoder = (tensors["decoder.weight"] ?? tensors["embedding.weight"]).values; // tied
    this.bias = values("decoder.bias");
  }

  zeroState() {
    const zero = () => new Float64Array(this.hidden);
    return this.layers.map(() => this.lstm ? { h: zero(), c: zero() } : { h: zero() });
  }

  /** The state after reading a token. */
  step(token, state) {
    let x = Float64Array.from(this.embedding.subarray(token * this.width, (token + 1) * this.width));
    return this.layers.map((layer, number) => {
      const before = state[number], gates = layer.inputBias.length;
      const z = affine(layer.ih, x, layer.inputBias, new Float64Array(gates));
      const a = layer.hh ? affine(layer.hh, before.h, layer.stateBias, new Float64Array(gates)) : null; // minGRU has no W_h
      const after = this.cell(z, a, before);
      x = after.h;
      return after;
    });
  }

  /** Unnormalised log probabilities of the next token, [|V|]. */
  logits(state) {
    let x = state.at(-1).h;
    if (this.projection) x = affine(this.projection, x, null, new Float64Array(this.width));
    return affine(this.decoder, x, this.bias, new Float64Array(this.size));
  }

  /** P(next = v | ids up to there), [|V|], behind each of the ids, from h = 0. */
  probabilities(ids) {
    let state = this.zeroState();
    return ids.map(id => softmax(this.logits(state = this.step(id, state))));
  }
}

function softmax(logits) {
  let largest = -Infinity, sum = 0;
  for (const x of logits) if (x > largest) largest = x;
  const p = new Float64Array(logits.length);
  for (let v = 0; v < p.length; v++) sum += p[v] = Math.exp(logits[v] - largest);
  for (let v = 0; v < p.length; v++) p[v] /= sum;
  return p;
}
