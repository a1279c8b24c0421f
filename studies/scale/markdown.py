"""``studies.scale.arithmetic`` as Markdown: the tables of docs/scale.md."""

from collections.abc import Sequence
from math import floor, log10

from recurrent_lm.studies.scale.arithmetic import ADAM, CONSTANTS, GPUS, KEPT, MODELS, Training

READ = ("model", "GPUs")


def markdown(rows: int = 64, bptt: int = 100, tokens: int = 10**11) -> str:
    """All tables as Markdown.

    Args:
        rows: sub-corpora a GPU.
        bptt: tokens of a window.
        tokens: of the corpus.

    Returns:
        The text between the two marks of docs/scale.md.
    """
    parts = [_table(("constant", "value", "kind", "of"), [(n, c.text, c.kind, c.source) for n, c in CONSTANTS.items()])]
    parts += [f"**Memory of one GPU**, {rows} rows of {bptt} tokens:", _memory(rows * bptt)]
    parts += [f"**The floor of the recurrence** on one GPU (estimated), windows of {bptt} steps:", _recurrence(rows, bptt)]
    trainings = [Training(model, gpus, rows, bptt, tokens) for model in MODELS for gpus in GPUS]
    about = f"{count(tokens)} tokens, {rows} rows of {bptt} tokens a GPU"
    parts += [f"**Traffic** of {about}:", _traffic(trainings)]
    parts += [f"**Time** of {about}, nothing at once with anything else (extrapolated):", _time(trainings)]
    parts += [
        f"**The corpus**, {count(tokens)} tokens, and its reading by {max(GPUS):,} GPUs (extrapolated):",
        _corpus(trainings),
    ]
    once = span(tokens / CONSTANTS["cpu"].value)
    parts += [f"At the rate that was measured on a CPU, the smallest model would read {count(tokens)} tokens once in {once}."]
    return "\n\n".join(parts) + "\n"


def _memory(batch: int) -> str:
    head = (
        "model",
        "parameters",
        "weights, gradients, Adam",
        "checkpoint",
        "saved a token",
        "with recompute",
        "logits a token",
    )
    lines = []
    for m in MODELS:
        sizes = (
            ADAM * m.parameters,
            KEPT * m.parameters,
            m.saved(),
            m.saved(True),
            m.logits,
            batch * m.saved(),
            batch * m.logits,
        )
        lines.append((m.name, count(m.parameters), *map(size, sizes)))
    return _table((*head, "saved a window", "logits a window"), lines)


def _recurrence(rows: int, bptt: int) -> str:
    head = (
        "model",
        "rows B",
        "a time step, all layers",
        "a window",
        "tokens/s at most, B / step",
        "through memory a time step",
    )
    lines = []
    for m in MODELS:
        for b in dict.fromkeys((1, 16, rows, 4 * rows)):
            step = m.layers * m.step(b)
            lines.append((m.name, f"{b:,}", span(step), span(bptt * step), count(b / step), size(m.through(b))))
    return _table(head, lines)


def _traffic(trainings: Sequence[Training]) -> str:
    head = (*READ, "gradient", "sent by each GPU an update", "tokens an update", "updates", "tokens of a row")
    return _table(
        head,
        [
            (*_who(t), size(t.gradient), size(t.traffic), count(t.at_once), count(t.tokens / t.at_once), count(t.row))
            for t in trainings
        ],
    )


def _time(trainings: Sequence[Training]) -> str:
    head = (*READ, "steps that wait", "products", "Adam", "all-reduce", "an update", "tokens/s", "once through")
    lines = []
    for t in trainings:
        times = map(span, (t.waiting, t.multiplying, t.optimizing, t.exchange, t.update))
        lines.append((*_who(t), *times, count(t.speed), span(t.seconds)))
    return _table(head, lines)


def _corpus(trainings: Sequence[Training]) -> str:
    lines = []
    for t in (t for t in trainings if t.gpus == max(GPUS)):
        each = 2 if t.model.vocabulary <= 1 << 16 else 4
        text = size(CONSTANTS["text"].value * t.tokens)
        lines.append((f"{t.model.vocabulary:,}", text, size(each * t.tokens), size(4 * t.tokens), f"{size(each * t.speed)}/s"))
    return _table(("V", "text", "tokens on disk", "tokens in this trainer's memory", "read, all GPUs"), lines)


def _who(t: Training) -> tuple[str, str]:
    return t.model.name, f"{t.gpus:,}"


def _table(head: tuple[str, ...], lines: Sequence[tuple[str, ...]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ("---",) * len(head), *lines))


def count(value: float) -> str:
    """A number with three significant digits."""
    return _scaled(value, ((" billion", 1e9), (" million", 1e6), ("", 1.0)))


def size(value: float) -> str:
    """Bytes with three significant digits."""
    return _scaled(value, ((" TB", 1e12), (" GB", 1e9), (" MB", 1e6), (" KB", 1e3), (" B", 1.0)))


def span(seconds: float) -> str:
    """A duration with three significant digits."""
    units = ((" years", 365.25 * 86400), (" days", 86400.0), (" hours", 3600.0), (" s", 1.0), (" ms", 1e-3), (" µs", 1e-6))
    return _scaled(seconds, units)


def _scaled(value: float, units: Sequence[tuple[str, float]]) -> str:
    if not value:
        return "0"
    rounded = float(f"{value:.3g}")
    name, unit = next((u for u in units if rounded >= u[1]), units[-1])
    shown = float(f"{value / unit:.3g}")
    return f"{shown:,.{max(0, 2 - floor(log10(shown)))}f}{name}"
