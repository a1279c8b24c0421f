"""The lecture's picture of backpropagation through time: four steps, four paths from L(4) to W_h, with real norms."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from matplotlib.patches import FancyBboxPatch

from recurrent_lm.lm import InputError
from recurrent_lm.studies.gradient_flow.figures.selection import NAMES, last_epoch, need, pick
from recurrent_lm.studies.plotting.plots import Plot
from recurrent_lm.studies.plotting.style import INK, MUTED, PALETTE, PAPER, RULE, Size, canvas, plain, printable

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = (16.0, 38.0, 60.0, 82.0)  # where the four steps stand, in hundredths of the width
MOST = 9  # digits of a factor
LANES = {4: 60.0, 3: 65.0, 2: 69.0, 1: 73.0}  # heights of the paths: the one that turns down first lies lowest
FACTORS = (24.0, 38.5, 53.0, 67.5, 82.0, 94.0)  # where a product's factors stand
COLOURS = {4: PALETTE[0], 3: PALETTE[1], 2: PALETTE[2], 1: PALETTE[3]}


@dataclass(frozen=True)
class Steps:
    """``hidden`` ||dL(4)/dh(i)|| and ``part`` ||dL(4)/dW_h at step i|| by i; the words x(1) .. x(5)."""

    hidden: dict[int, float]
    part: dict[int, float]
    words: list[str]
    total: float
    probability: float
    cell: str
    corpus: str

    @property
    def digits(self) -> int:
        """How many digits of the factors make the products true, as they are shown: with two digits each."""
        chains = [(self.chain(i), self.part[i]) for i in (1, 2, 3, 4)]
        for digits in range(2, MOST):
            if all(
                _number(math.prod(float(_number(f, digits)) for f in factors)) == _number(whole) for factors, whole in chains
            ):
                return digits
        return MOST

    def chain(self, i: int) -> list[float]:
        """The factors of path i: ||dL(4)/dh(4)||, the factor of each step back, and the last factor, that of dh(i)/dW_h."""
        back = [self.hidden[j] / self.hidden[j + 1] if self.hidden[j + 1] else 0.0 for j in range(3, i - 1, -1)]
        return [self.hidden[4], *back, self.part[i] / self.hidden[i] if self.hidden[i] else 0.0]


def steps(table: "pd.DataFrame") -> Steps:
    """The numbers of the picture, from the trained tanh network if there is one.

    Raises:
        InputError: if the table has none.
    """
    rows = last_epoch(pick(table, "paths"))
    need(rows, "four steps (part language)")
    cells = list(dict.fromkeys(rows["cell"]))
    cell = "rnn-tanh" if "rnn-tanh" in cells else cells[0]
    rows = rows[rows["cell"] == cell]
    at = {q: group.set_index(4 - group["lag"]) for q, group in rows.groupby("quantity")}
    words = [printable(str(at["hidden"].loc[i, "token"])) for i in range(1, 5)]
    words.append(printable(str(at["sum"]["token"].iloc[0])))
    hidden, part = ({i: float(at[q]["value"].loc[i]) for i in range(1, 5)} for q in ("hidden", "part"))
    total, probability = (float(at[q]["value"].iloc[0]) for q in ("sum", "probability"))
    return Steps(hidden, part, words, total, probability, cell, str(rows["corpus"].iloc[0]))


def title(table: "pd.DataFrame") -> str:
    return plain("Backpropagation through time: four steps, four paths to W_h")


def draw(table: "pd.DataFrame", claims: "pd.DataFrame", size: Size) -> "Figure":
    """Boxes h(0) .. h(4) in a row, L(4) above the last, a coloured path for each step, and each path as a product."""
    paths = steps(table)
    figure, (axes,) = canvas(size)
    small = size.narrow
    type_ = {"large": 9.0 if small else 19, "middle": 7.5 if small else 15, "small": 6.5 if small else 13}
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 100)
    axes.axis("off")
    _network(axes, paths, type_)
    for i in (1, 2, 3, 4):
        _path(axes, i, 1.6 if small else 3.2)
    _norms(axes, paths, type_)
    _products(axes, paths, type_)
    return figure


def _write(axes: "Axes", x: float, y: float, text: str, fontsize: float, colour: str = INK, **how: Any) -> None:
    how = {"ha": "center", "va": "center"} | how
    axes.text(x, y, text, fontsize=fontsize, color=colour, parse_math=how.pop("math", False), zorder=6, **how)


def _network(axes: "Axes", paths: Steps, type_: dict[str, float]) -> None:
    def box(x: float, y: float, width: float, height: float, face: str = PAPER, edge: str = INK) -> None:
        shape = f"round,pad=0,rounding_size={1.2}"
        axes.add_patch(
            FancyBboxPatch(
                (x - width / 2, y - height / 2), width, height, shape, facecolor=face, edgecolor=edge, linewidth=1.5, zorder=2
            )
        )

    grey = {"arrowstyle": "-|>", "color": MUTED, "linewidth": 1.2, "shrinkA": 0, "shrinkB": 0}
    for before, x in zip((3.5, *COLUMNS), COLUMNS, strict=False):
        start = before + (6.5 if before in COLUMNS else 2.8)
        axes.annotate("", (x - 6.5, 59.5), (start, 59.5), arrowprops=grey, zorder=1)
    for i, x in enumerate(COLUMNS, start=1):
        box(x, 66.5, 13, 22)
        _write(axes, x - 1.9, 59.3, f"$h({i})$", type_["large"], math=True)
        axes.annotate("", (x - 4.4, 55.5), (x - 4.4, 34.5), arrowprops=grey, zorder=1)
        _write(axes, x - 4.4, 31.5, paths.words[i - 1], type_["middle"], INK)
        box(x + 3.2, 43, 6.4, 6, RULE, RULE)
        _write(axes, x + 3.2, 43, "$W_h$", type_["middle"], math=True)
    _write(axes, 3, 59.5, "$h(0)$", type_["middle"], MUTED, math=True)
    box(COLUMNS[3], 93, 13, 8)
    _write(axes, COLUMNS[3], 93, "$L(4)$", type_["large"], math=True)
    told = f"−log P({paths.words[4]} | ..) = {_nats(paths.probability)}"
    _write(axes, COLUMNS[3] - 8, 93, told, type_["middle"], MUTED, ha="right")


def _nats(probability: float) -> str:
    return f"{-math.log(probability):.2f}" if probability > 0 else "∞"


def _path(axes: "Axes", i: int, width: float) -> None:
    """From L(4) down to its lane in h(4), left to h(i), down to W_h."""
    at, lane, target = COLUMNS[3] - 4.2 + 2.1 * (i - 1), LANES[i], COLUMNS[i - 1] + 3.2
    turn = at if i == 4 else target
    points = [(at, 89), (at, lane), (turn, lane), (target, lane), (target, 47.2)] if i < 4 else [(target, 89), (target, 47.2)]
    xs, ys = zip(*points, strict=True)
    axes.plot(xs, ys, color=COLOURS[i], linewidth=width, linestyle="-", solid_capstyle="butt", zorder=4)
    head = {
        "arrowstyle": "-|>",
        "color": COLOURS[i],
        "linewidth": width,
        "shrinkA": 0,
        "shrinkB": 0,
        "mutation_scale": 5 + 4 * width,
    }
    axes.annotate("", (target, 46.0), (target, 50.0), arrowprops=head, zorder=5)


def _norms(axes: "Axes", paths: Steps, type_: dict[str, float]) -> None:
    digits = paths.digits
    _write(axes, COLUMNS[3] + 5.2, 80.6, _number(paths.hidden[4], digits), type_["middle"], ha="left")
    _write(axes, COLUMNS[3] + 5.2, 85.8, "$dL(4)/dh(4)$", type_["small"], MUTED, ha="left", math=True)
    for i in (3, 2, 1):
        middle = (COLUMNS[i - 1] + COLUMNS[i]) / 2
        _write(axes, middle, 77.5, f"× {_number(paths.chain(i)[-2], digits)}", type_["middle"])
        _write(axes, middle, 83, f"$dh({i + 1})/dh({i})$", type_["small"], MUTED, math=True)
    for i, x in enumerate(COLUMNS, start=1):
        _write(axes, x + 4.2, 51.8, f"× {_number(paths.chain(i)[-1], digits)}", type_["small"], COLOURS[i], ha="left")
        _write(axes, x + 3.2, 36.9, _number(paths.part[i]), type_["large"], COLOURS[i], weight="bold")


def _products(axes: "Axes", paths: Steps, type_: dict[str, float]) -> None:
    """Each path as a product, a line a path, the factors in columns under their names."""
    names = ("$dL(4)/dh(4)$", *(f"$dh({i + 1})/dh({i})$" for i in (3, 2, 1)), "$dh(i)/dW_h$", "norm of it")
    for x, name in zip(FACTORS, names, strict=True):
        _write(axes, x, 24.8, name, type_["small"], MUTED, math=True)
    _write(axes, 1, 24.8, "$dL(4)/dW_h$", type_["small"], MUTED, ha="left", math=True)
    for row, i in enumerate((4, 3, 2, 1)):
        y = 19.6 - 4.8 * row
        _write(axes, 1, y, f"at step {i}", type_["middle"], COLOURS[i], ha="left")
        first, *back, last = paths.chain(i)
        shown = dict(zip(FACTORS, (first, *back), strict=False)) | {FACTORS[4]: last}
        for x, factor in shown.items():
            _write(axes, x, y, f"{'× ' * (x > FACTORS[0])}{_number(factor, paths.digits)}", type_["middle"])
        _write(axes, FACTORS[5], y, f"= {_number(paths.part[i])}", type_["middle"], COLOURS[i], weight="bold")
    _write(
        axes, FACTORS[5] + 4.5, 0.4, f"norm of the sum of all four: {_number(paths.total)}", type_["middle"], INK, ha="right"
    )


def _number(value: float, digits: int = 2) -> str:
    """A norm with so many digits that count, all of them where it is between a thousandth and ten thousand."""
    if not (math.isfinite(value) and 1e-3 <= value < 1e4):
        return f"{value:.{digits}g}"
    return f"{value:.{max(0, digits - 1 - math.floor(math.log10(value)))}f}"


def caption(table: "pd.DataFrame", claims: "pd.DataFrame") -> str:
    try:
        paths = steps(table)
    except InputError as error:  # the page says so in its own words
        return f"{error}."
    far = paths.part[1] / paths.part[4] if paths.part[4] else float("nan")
    share = paths.total / (sum(paths.part.values()) or 1.0)
    model = (
        f"A trained {NAMES[paths.cell]} language model of {paths.corpus}'s speeches reads “{' '.join(paths.words[:4])}” and is "
        f"asked for “{paths.words[4]}”."
    )
    if not math.isfinite(far + share):
        return f"{model} The four parts have norms that are 0 or not finite, and so no ratio."
    return (
        f"The path through step 1 brings {far:.2f} times the gradient of the path through step 4. {model} The norm of the sum "
        f"of the four parts is {share:.0%} of the sum of their norms: they do not point in one direction."
    )


def lines(table: "pd.DataFrame") -> list[str]:
    """The four products."""
    paths = steps(table)
    told = [
        f"path through step {i}: {' × '.join(_number(f, paths.digits) for f in paths.chain(i))} = {_number(paths.part[i])}"
        for i in (4, 3, 2, 1)
    ]
    return [title(table), *told, f"norm of their sum: {_number(paths.total)}"]


PLOT = Plot(
    "paths",
    title,
    draw,
    caption,
    "The picture of the lecture's slide BPTT: the network is unrolled over four words, and the loss L(4) is that of the "
    "fifth. W_h is used at every step, so the loss reaches it by four paths, a colour each: down to h(4), back from state "
    "to state, and down to W_h at step i. The numbers on the arrows are real: the first is the norm of dL(4)/dh(4), each "
    "step back multiplies the norm by the number above it, and the last factor belongs to dh(i)/dW_h. Their product, below "
    "W_h, is the norm of that path's part of the gradient. (A factor is the ratio of the norms before and after the arrow, "
    "of this loss; it is at most the norm of the matrix on it.) The network's last layer is shown; h(0) is the state after "
    "60 words that were read before.",
    lines,
    slides=("BPTT", "Backpropagation for RNNs", "Training"),
)
