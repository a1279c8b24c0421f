"""Whether a recurrence must be slow: Newton's method solves all time steps at once, in few iterations where gradients vanish.

Slides "Summary of RNNs" (slow, since recurrence does not use a GPU's parallelism) and "Vanishing, exploding": the number of
iterations follows the largest Lyapunov exponent (Gonzalez et al. 2025), which is also the slope of the gradient's log norm.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from recurrent_lm import kernels, lm
from recurrent_lm.studies.engine.language_models import names_in
from recurrent_lm.studies.engine.memory import check_memory
from recurrent_lm.studies.engine.parameters import choice, choices, reals, whole, wholes
from recurrent_lm.studies.engine.study import Cell, Sweep
from recurrent_lm.studies.gradient_flow.language import LOSSES
from recurrent_lm.studies.gradient_flow.textbook import NOISE, exponent, network, numbers
from recurrent_lm.studies.parallel.claims import claims
from recurrent_lm.studies.parallel.cost import WAYS, works
from recurrent_lm.studies.parallel.language import counted, course
from recurrent_lm.studies.parallel.newton import Layer, by_loop, by_scan, gradients, residual, solved
from recurrent_lm.studies.timing.work import distance

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["PRESETS", "Study", "claims", "complaint"]

PARTS = ("checks", "random", "language", "cost")
CELLS = ("rnn-tanh", "rnn-relu", "rnn-sigmoid", "rnn-identity", "lstm", "gru")
MODELS = ("rnn-tanh", "lstm", "gru", "rnn-relu", "rnn-sigmoid")
REASONS = ("", "network", "overflow", "rounding", "limit", "memory")
RATES = {"rnn-tanh": 0.002, "rnn-relu": 0.001}  # of Adam; 0.003 for the others
CHECKED, BURN = 64, 100  # steps of a check; before an exponent's average
NOTHING = {
    "corpus": "", "cell": "", "scale": float("nan"), "seed": -1, "epoch": -1, "layer": -1, "window": -1, "batch": -1,
    "hidden": -1, "way": "", "dtype": "", "steps": -1, "reason": "",
}  # fmt: skip


@dataclass(frozen=True)
class Study(Sweep):
    """Newton's iterations on random networks (``units`` n of the tanh network, ``others`` of the other cells) over T of
    ``lengths``, and on language models of ``layers`` x ``hidden`` units over T of ``text_lengths`` in ``windows`` windows, at
    initialisation and after the epochs 1, 2, 4, .. and the last; ``reach`` lags for the gradient's decay. A sequence is given
    up after ``most`` iterations.
    """

    parts: tuple[str, ...] = choices(*PARTS, names=PARTS)
    cell: tuple[str, ...] = choices(*CELLS, names=CELLS)
    scales: tuple[float, ...] = reals(0.5, 0.7, 1.0, 1.2, 1.5, 2.0, 3.0, 4.0, low=0.001, high=100.0)
    lengths: tuple[int, ...] = wholes(64, 256, 1_024, low=2, high=100_000)
    units: int = whole(64, 1, 2_000)
    others: int = whole(32, 1, 2_000)
    seeds: int = whole(2, 1, 1_000)
    most: int = whole(300, 1, 100_000)
    corpora: str = "obama,trump"
    kind: str = choice("word", "word", "char", "bpe")
    models: tuple[str, ...] = choices(*MODELS, names=MODELS)
    model_seeds: int = whole(1, 1, 1_000)
    text_lengths: tuple[int, ...] = wholes(32, 128, 512, low=2, high=100_000)
    hidden: int = whole(64, 1, 2_000)
    layers: int = whole(1, 1, 10)
    epochs: int = whole(8, 1, 1_000)
    windows: int = whole(2, 1, 1_000)
    reach: int = whole(30, 4, 1_000)

    NAME: ClassVar[str] = "parallel"
    COLUMNS: ClassVar = {
        "part": str, "corpus": str, "cell": str, "scale": float, "seed": int, "epoch": int, "layer": int, "window": int,
        "batch": int, "hidden": int, "way": str, "dtype": str, "steps": int, "reason": str, "quantity": str, "value": float,
    }  # fmt: skip
    SIGNED: ClassVar = ("value",)

    def prepare(self) -> None:
        """Check that corpora exist and sizes fit together."""
        longest, width = max(self.lengths), 2 * max(self.units, self.others)
        check_memory(8 * (longest * width * 20 + 100 * width * width), "units, others or lengths")
        if "language" not in self.parts:
            return
        if max(self.text_lengths) < self.reach + LOSSES:
            raise lm.InputError(f"text_lengths must reach {self.reach + LOSSES} steps, for the gradient {self.reach} lags back")
        for name in self._corpora:
            lm.prepare(self._config(name, "lstm", 1))

    def cells(self) -> list[Cell]:
        cells: list[Cell] = []
        if "checks" in self.parts:
            cells += [{"part": "checks", "cell": cell} for cell in self.cell]
        if "random" in self.parts:
            cells += [
                {"part": "random", "cell": cell, "scale": str(scale), "seed": seed}
                for cell in self.cell
                for scale in self.scales
                for seed in range(self.seeds)
            ]
        if "language" in self.parts:
            cells += [
                {"part": "language", "corpus": corpus, "cell": cell, "seed": seed}
                for corpus in self._corpora
                for cell in self.models
                for seed in range(1, self.model_seeds + 1)
            ]
        return cells + ([{"part": "cost"}] if "cost" in self.parts else [])

    def measure(self, cell: Cell) -> list[dict[str, Any]]:
        """One row for each number, with its ``quantity`` and ``value``.

        Iterations, ``stopped`` (by the residual alone) and the ``error`` there have way, dtype and steps T; infinite iterations
        have a ``reason``. ``exponent`` is the largest Lyapunov exponent, ``decay`` the change of log ||dL/dh(i)|| per step
        back. The part checks holds relative errors; the part cost microseconds on paper: ``fused``, and ``iteration`` by way.
        """
        at = {key: float(value) if key == "scale" else value for key, value in cell.items()}
        return [NOTHING | at | row for row in self._rows(at)]

    def _rows(self, at: dict[str, Any]) -> list[dict[str, Any]]:
        if at["part"] == "cost":
            return costs()
        if at["part"] == "checks":
            return checks(random(at["cell"], 1.0, 0, self._units(at["cell"]), CHECKED))
        if at["part"] == "random":
            layer = random(at["cell"], at["scale"], at["seed"], self._units(at["cell"]), max(self.lengths))
            value = exponent(layer.cell, layer.weight_hh, layer.z, at["seed"], min(BURN, max(self.lengths) // 2))
            rows = list(counted(layer, self.lengths, self.most, at["seed"] == 0))
            return [{"quantity": "exponent", "value": value}, *rows]
        config = self._config(at["corpus"], at["cell"], at["seed"])
        return course(config, self.looks, self.windows, self.text_lengths, self.most, self.reach)

    @property
    def looks(self) -> tuple[int, ...]:
        """Epochs after which language models are measured."""
        return tuple(sorted({0, self.epochs, *(2**i for i in range(self.epochs.bit_length()))}))

    def _units(self, cell: str) -> int:
        return self.units if cell == "rnn-tanh" else self.others

    def subject(self) -> str:
        """The texts and language models, if any are trained."""
        if "language" not in self.parts:
            return ""
        return f"{' and '.join(self._corpora)}, {self.kind} tokens, {', '.join(self.models)} {self.layers} x {self.hidden}"

    def inputs(self) -> str:
        """Digests of the corpora."""
        names = self._corpora if "language" in self.parts else ()
        return " ".join(lm.prepare(self._config(name, "lstm", 1)).fingerprint() for name in names)

    @property
    def _corpora(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(names_in(self.corpora)))

    def _config(self, corpus: str, cell: str, seed: int) -> lm.RunConfig:
        sizes = {"hidden_size": self.hidden, "layers": self.layers, "epochs": self.epochs, "patience": 0, "min_count": 3}
        rate = RATES.get(cell, 0.003)
        return lm.RunConfig().replace(source=corpus, kind=self.kind, cell=cell, seed=seed, lr=rate, **sizes)


def random(cell: str, scale: float, seed: int, units: int, steps: int) -> Layer:
    """A random network of ``gradient_flow`` on white inputs, from h(0) = 0, in float64."""
    weight = network(cell, scale, seed, units)
    start = torch.zeros(kernels.CELLS[cell].states * units, dtype=torch.float64)
    return Layer(cell, NOISE * numbers(seed, steps, len(weight)), weight, None, start)


def checks(layer: Layer) -> list[dict[str, Any]]:
    """Relative errors: of the scan against the loop, of the parallel states against the sequential ones, and of the parallel
    gradients against autograd's through the steps one after the other (BPTT)."""
    truth = layer.sequential()
    jacobian, off = layer.jacobian(layer.before(truth)), residual(layer, layer.zeros())
    states, _ = solved(layer)
    losses = numbers(0, *truth.shape)
    z, weight = layer.z.clone().requires_grad_(), layer.weight_hh.clone().requires_grad_()
    steps = Layer(layer.cell, z, weight, layer.bias_hh, layer.start).sequential()
    wanted = torch.autograd.grad((steps * losses).sum(), (z, weight))
    errors = {
        "scan_error": distance(by_scan(jacobian, off), by_loop(jacobian, off)),
        "state_error": distance(states, truth),
        "gradient_error": max(distance(own, true) for own, true in zip(gradients(layer, states, losses), wanted, strict=True)),
    }
    return [{"steps": len(truth), "quantity": name, "value": value} for name, value in errors.items()]


def costs() -> list[dict[str, Any]]:
    """Microseconds on paper of the fused recurrence and of one iteration, forward and backward."""
    rows: list[dict[str, Any]] = []
    for work in works():
        at = {"cell": work.cell, "batch": work.batch, "steps": work.steps, "hidden": work.hidden}
        rows.append(at | {"quantity": "fused", "value": work.fused})
        for way in WAYS:
            value = work.iteration(way)
            reason = "memory" if value == float("inf") else ""
            rows.append(at | {"way": way, "reason": reason, "quantity": "iteration", "value": value})
    return rows


_SMOKE: dict[str, Any] = {
    "scales": (0.5, 1.0, 1.5), "lengths": (16, 64), "units": 16, "others": 8, "seeds": 1, "most": 80, "corpora": "trump",
    "models": ("rnn-tanh", "lstm"), "text_lengths": (16, 64), "hidden": 12, "epochs": 1, "windows": 1, "reach": 20,
}  # fmt: skip
_LONG: dict[str, Any] = {
    "scales": (0.5, 0.7, 0.85, 1.0, 1.1, 1.2, 1.35, 1.5, 2.0, 3.0, 4.0, 6.0), "seeds": 5, "most": 1_100, "model_seeds": 3,
    "hidden": 100, "epochs": 16,
}  # fmt: skip
PRESETS = {"smoke": Study(**_SMOKE), "cpu": Study(), "cpu-long": Study(**_LONG)}


def complaint(study: Study, table: "pd.DataFrame") -> str:
    """What keeps a table from being one of this study; nothing if it is one."""
    if not table["part"].isin(PARTS).all():
        return f"holds a part that is none of {', '.join(PARTS)}"
    if not table["reason"].isin(REASONS).all():
        return f"holds a reason that is none of {', '.join(REASONS[1:])}"
    keys = ["part", *(name for name in NOTHING if name != "reason"), "quantity"]
    return "holds a measurement twice" if table.duplicated(keys).any() else ""
