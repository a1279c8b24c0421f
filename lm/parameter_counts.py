"""The lecture's table of parameters, counted without building a model."""

from recurrent_lm.lm.config import ModelConfig

GATES = {"lstm": 4, "gru": 3, "mingru": 2}


def parameter_table(vocabulary: int, config: ModelConfig, tie: bool) -> dict[str, tuple[str, int]]:
    """Count a model's parameters in the lecture's table (slides Parameters and Weight tying).

    Args:
        vocabulary: |V|.
        config: cell, sizes and number of layers.
        tie: whether the decoder uses the embedding; it then counts 0.

    Returns:
        {name: (shape, count)} with E: |V| x d, U: h x |V|, W_i: d x h and W_h: h x h, the last two for each gate and layer, and
        two biases a gate, as in torch.nn; of minGRU no W_h and one bias a gate.
    """
    d, h, layers = config.d, config.hidden_size, config.layers
    gates = GATES.get(config.cell, 1)
    times = f"{gates} x " if gates > 1 else ""
    width = d if tie else h
    each = f"{layers} x " if layers > 1 else ""
    recurrent = 0 if config.cell == "mingru" else gates  # gates that W_h feeds
    inputs = [f"{times}{d} x {h}"] + [f"{layers - 1} x {times}{h} x {h}"] * (layers > 1)
    return {
        "E": (f"{vocabulary} x {d}", vocabulary * d),
        "W_i": (" + ".join(inputs), gates * h * (d + (layers - 1) * h)),
        "W_h": (f"{each}{times}{h} x {h}" if recurrent else "none", recurrent * h * h * layers),
        "biases": (f"{layers} x {2 if recurrent else 1} x {gates * h}", layers * (gates + recurrent) * h),
        "projection": (f"{h} x {d}", h * d) if tie and d != h else ("none", 0),
        "U": ("E, transposed", 0) if tie else (f"{width} x {vocabulary}", width * vocabulary),
        "b": (f"{vocabulary}", vocabulary),
    }
