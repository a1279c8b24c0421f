"""Explains a divergence: which parameter's gradient is not finite, and which settings can help."""

from collections.abc import Iterable, Sequence

from torch import Tensor, nn

from recurrent_lm.lm.config import RunConfig, parse_clip
from recurrent_lm.lm.training.clip import not_finite

Bad = tuple[str, int, int]  # a parameter's name, how many elements of its gradient are inf or NaN, how many it has


def first_not_finite(model: nn.Module, counts: Iterable[float] | None = None) -> Bad | None:
    """The first parameter, in the model's order, whose gradient has elements that are inf or NaN.

    Args:
        model: the model with its gradients.
        counts: such elements of each gradient, if they were counted before (``not_finite``).

    Returns:
        Its name, the number of such elements, and the number of elements; None if all are finite.
    """
    having = [(name, p.grad) for name, p in model.named_parameters() if p.grad is not None]
    if counts is None and having:
        counted: Tensor = not_finite([g for _, g in having])
        counts = counted.tolist()
    named = zip(having, counts or (), strict=False)
    return next(((name, int(count), g.numel()) for (name, g), count in named if count), None)


def advice(config: RunConfig, quantity: str, step: int, lr: float, recent: Sequence[float]) -> str:
    """Settings that may help against a divergence after ``step`` updates, the last of which had the gradient norms ``recent``.

    Before the first update the weights are the initial ones, so neither the rate nor clipping can be the cause.
    """
    model, training = config.model, config.training
    gradient = quantity == "gradient"
    shorter = [f"a smaller --bptt (it was {config.batches.bptt})"] if gradient and config.batches.bptt > 1 else []
    gated = ["--cell lstm"] if gradient and model.cell.startswith("rnn-") else []
    if not step:
        drawn = []
        if training.init_from:
            drawn = ["another run for --init-from"]
        elif model.init_width:
            drawn = [f"a smaller --init-width (it was {model.init_width:g})"]
        mends = [*drawn, *shorter, *gated] or ["other initial weights (--seed)"]
        return f"The initial weights cause this: no update was made, so --lr and --clip cannot help. Try {either(mends)}"
    kind, threshold = parse_clip(training.clip)
    largest = max(recent, default=1.0)
    if kind == "none":
        clip = f"--clip norm:{1 if largest > 1 else largest / 10:.1g}"
    else:  # a new threshold must be below the largest norm to have an effect; no element is larger than the norm
        clip = f"a threshold below {kind}:{min(threshold, largest):.3g}"
    mends = [f"a smaller --lr (it was {lr:g})", clip]
    if training.weight_decay * max(lr, 1) >= 1:  # decay alone moves a weight by its own size or more
        mends.insert(1, f"a smaller --weight-decay (it was {training.weight_decay:g})")
    norms = f"Gradient norms of the steps before it: {', '.join(f'{n:.3g}' for n in recent)}. " if recent else ""
    return f"{norms}Try {either([*mends, *shorter])}"


def either(mends: Sequence[str]) -> str:
    """ "a, b or c"."""
    return " or ".join(filter(None, (", ".join(mends[:-1]), mends[-1])))
