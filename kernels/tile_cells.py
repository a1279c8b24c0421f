"""The equations of ``rnn/cells.py`` in Triton, under the same headings.

They work on tiles of ``slots``: 1 or 4 adjacent numbers a unit, so that one product serves all gates: i, f, g, o of the LSTM;
r, u, n and a = h W_n + b_n of the GRU, where the reset gate multiplies a. There the input's product fills the first three, the
state's product the first two and the last. ``pre`` is the sum of both products. The file is separate because importing it takes
Triton, which a host that runs no kernel leaves out (``triton_operations.py``). Nothing here imports torch.
"""

import triton
import triton.language as tl

# Activations, and tiles of four numbers a unit


@triton.jit
def tanh(x):
    y = 1 - 2 / (1 + tl.exp(2 * tl.abs(x)))
    y = tl.where(x < 0, -y, y)
    if x.dtype == tl.float32:  # near zero the difference above cancels; the series does not
        s = x * x
        series = x * (1 + s * (-1 / 3 + s * (2 / 15 + s * (-17 / 315 + s * (62 / 2835 + s * (-1382 / 155925))))))
        y = tl.where(s < 0.09, series, y)
    return y


@triton.jit
def sigmoid(x):
    return 1 / (1 + tl.exp(-x))


@triton.jit
def take(slots, ROWS: tl.constexpr, UNITS: tl.constexpr):
    """Split [ROWS, 4 * UNITS] into four tiles [ROWS, UNITS]."""
    even, odd = tl.split(tl.reshape(slots, (ROWS, UNITS, 2, 2)))
    first, third = tl.split(even)
    second, fourth = tl.split(odd)
    return first, second, third, fourth


@triton.jit
def put(first, second, third, fourth, ROWS: tl.constexpr, UNITS: tl.constexpr):
    """Join four tiles [ROWS, UNITS] to [ROWS, 4 * UNITS]."""
    return tl.reshape(tl.join(tl.join(first, third), tl.join(second, fourth)), (ROWS, 4 * UNITS))


# Elman: h' = s(pre)


@triton.jit
def elman(pre, CELL: tl.constexpr):
    if CELL == "rnn-tanh":
        return tanh(pre)
    elif CELL == "rnn-relu":
        return tl.where(pre < 0, 0.0, pre)  # keeps NaN
    elif CELL == "rnn-sigmoid":
        return sigmoid(pre)
    else:
        return pre


@triton.jit
def elman_gradient(dh, h, CELL: tl.constexpr):
    """dL/dpre from dL/dh; h determines the slope."""
    if CELL == "rnn-tanh":
        return dh * (1 - h * h)
    elif CELL == "rnn-relu":
        return tl.where(h <= 0, 0.0, dh)
    elif CELL == "rnn-sigmoid":
        return dh * h * (1 - h)
    else:
        return dh


# LSTM: c' = s(f) c + s(i) tanh(g), h' = s(o) tanh(c')


@triton.jit
def lstm_gates(i, f, g, o):
    return sigmoid(i), sigmoid(f), tanh(g), sigmoid(o)


@triton.jit
def lstm_cell(i, f, g, c):
    return f * c + i * g


@triton.jit
def lstm_hidden(o, c):
    return o * tanh(c)


@triton.jit
def lstm_gradient(dh, dc, i, f, g, o, c_before, c):
    """Gradients of the four sums and of c before the step, from dL/dh and dL/dc after it."""
    bounded = tanh(c)
    dc += dh * o * (1 - bounded * bounded)
    d_i = dc * g * i * (1 - i)
    d_f = dc * c_before * f * (1 - f)
    d_g = dc * i * (1 - g * g)
    d_o = dh * bounded * o * (1 - o)
    return d_i, d_f, d_g, d_o, dc * f


# GRU: n = tanh(z_n + s(r) a), h' = (1 - s(u)) n + s(u) h


@triton.jit
def gru_gates(r, u, n, a):
    r = sigmoid(r)
    return r, sigmoid(u), tanh(n + r * a), a


@triton.jit
def gru_hidden(u, n, h):
    return (1 - u) * n + u * h


@triton.jit
def gru_gradient(dh, r, u, n, a, h_before):
    """Gradients of the four slots from dL/dh after the step, and the part of dL/dh before it that bypasses the product."""
    d_u = dh * (h_before - n) * u * (1 - u)
    d_n = dh * (1 - u) * (1 - n * n)
    d_r = d_n * a * r * (1 - r)
    return d_r, d_u, d_n, d_n * r, dh * u


# minGRU: h' = (1 - s(z)) h + s(z) c, in which z and c do not depend on h; torch's GRU keeps h by u, this gate replaces it


@triton.jit
def mingru_gates(z):
    """The shares of h and of the candidate in the next h, 1 - s(z) and s(z), without overflow or cancellation."""
    e = tl.exp(-tl.abs(z))
    larger, smaller = 1 / (1 + e), e / (1 + e)
    return tl.where(z < 0, larger, smaller), tl.where(z < 0, smaller, larger)


@triton.jit
def mingru_gradient(dh, keep, gate, c, h_before):
    """Gradients of z and c from dL/dh after the step."""
    d_c = dh * gate
    return d_c * (c - h_before) * keep, d_c


# Any cell


@triton.jit
def gates_of(pre, CELL: tl.constexpr, ROWS: tl.constexpr, UNITS: tl.constexpr):
    """Apply the activations to the slots."""
    if CELL == "lstm":
        i, f, g, o = take(pre, ROWS, UNITS)
        i, f, g, o = lstm_gates(i, f, g, o)
        return put(i, f, g, o, ROWS, UNITS)
    elif CELL == "gru":
        r, u, n, a = take(pre, ROWS, UNITS)
        r, u, n, a = gru_gates(r, u, n, a)
        return put(r, u, n, a, ROWS, UNITS)
    else:
        return elman(pre, CELL)


@triton.jit
def state_of(gates, h, c, CELL: tl.constexpr, ROWS: tl.constexpr, UNITS: tl.constexpr):
    """The state after the step from the gates and the state before it; cells without c return it unchanged."""
    if CELL == "lstm":
        i, f, g, o = take(gates, ROWS, UNITS)
        c = lstm_cell(i, f, g, c)
        return lstm_hidden(o, c), c
    elif CELL == "gru":
        _, u, n, _ = take(gates, ROWS, UNITS)
        return gru_hidden(u, n, h), c
    else:
        return gates, c


@triton.jit
def step_gradient(dh, dc, gates, h_before, c_before, c, CELL: tl.constexpr, ROWS: tl.constexpr, UNITS: tl.constexpr):
    """Gradients of one step.

    Returns (d, dh, dc): the slots' gradients, the part of dL/dh before the step that bypasses the product, and dL/dc before the
    step. ``gates`` of an Elman cell is its h after the step.
    """
    if CELL == "lstm":
        i, f, g, o = take(gates, ROWS, UNITS)
        d_i, d_f, d_g, d_o, dc = lstm_gradient(dh, dc, i, f, g, o, c_before, c)
        return put(d_i, d_f, d_g, d_o, ROWS, UNITS), tl.zeros_like(dh), dc
    elif CELL == "gru":
        r, u, n, a = take(gates, ROWS, UNITS)
        d_r, d_u, d_n, d_a, past = gru_gradient(dh, r, u, n, a, h_before)
        return put(d_r, d_u, d_n, d_a, ROWS, UNITS), past, dc
    else:
        return elman_gradient(dh, gates, CELL), tl.zeros_like(dh), dc
