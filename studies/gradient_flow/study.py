"""Where gradients go: every step's part of dL(t)/dW_h, on the textbook's random networks and on language models.

Slides "BPTT", "Vanishing, exploding" and "Why", with what theory says of the same numbers: Pascanu, Mikolov & Bengio 2013
(radius and singular value), chi of the mean field (Poole et al. 2016), Lyapunov exponents, Zucchet & Orvieto 2024.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from recurrent_lm import kernels, lm
from recurrent_lm.studies.engine.language_models import names_in
from recurrent_lm.studies.engine.memory import check_memory
from recurrent_lm.studies.engine.parameters import choices, reals, whole
from recurrent_lm.studies.engine.study import Cell, Sweep
from recurrent_lm.studies.gradient_flow import language as language
from recurrent_lm.studies.gradient_flow import textbook as textbook
from recurrent_lm.studies.gradient_flow.claims import claims

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["PRESETS", "Study", "claims", "complaint"]

MEASURED = ("certificate", "curves", "linear", "gates", "memory", "language")  # what can be asked for
PARTS = (*MEASURED, "map", "paths")  # the last two come with the language models
RATES = {"rnn-tanh": 0.002, "rnn-relu": 0.001}  # of Adam; 0.003 for the others
LINEAR, GATED = 64, ("lstm", "gru")
NONE = {"corpus": "", "cell": "", "scale": float("nan"), "bias": float("nan"), "seed": -1, "epoch": -1, "layer": -1}
KEYS = ("part", *NONE, "step", "lag", "quantity")


@dataclass(frozen=True)
class Study(Sweep):
    """Gradients of random networks and of language models.

    Random networks: ``units`` n of the tanh network, ``others`` for the other cells (at most 64 for the linear one); curves
    over ``lags`` from ``positions`` sequences a seed; the Lyapunov exponent over ``qr_steps``. Language models: ``layers`` x
    ``hidden`` units, measured in ``windows`` windows, ``reach`` lags back; the first corpus and seed also as a map of
    ``map_steps`` steps, and as the lecture's four steps on ``sentence`` (four words and the next one).
    """

    parts: tuple[str, ...] = choices(*MEASURED, names=MEASURED)
    cell: tuple[str, ...] = choices(*kernels.CELLS, names=tuple(kernels.CELLS))
    scales: tuple[float, ...] = reals(0.7, 1.0, 1.2, 1.5, 2.0, 4.0, low=0.001, high=100.0)
    units: int = whole(400, 1, 5_000)
    others: int = whole(100, 1, 5_000)
    lags: int = whole(160, 4, 5_000)
    positions: int = whole(8, 1, 1_000)
    seeds: int = whole(5, 1, 1_000)
    qr_steps: int = whole(1_000, 1, 1_000_000)
    eigenvalues: tuple[float, ...] = reals(0.9, 0.99, 0.5, 0.7, 0.8, 0.95, 0.98, low=0.01, high=0.999)
    samples: int = whole(4_096, 2, 1_000_000)
    corpora: str = "obama,trump"
    models: tuple[str, ...] = choices(
        "rnn-tanh", "lstm", "gru", "rnn-relu", "rnn-sigmoid", names=("rnn-tanh", "lstm", "gru", "rnn-relu", "rnn-sigmoid")
    )
    model_seeds: int = whole(2, 1, 1_000)
    hidden: int = whole(100, 1, 5_000)
    layers: int = whole(2, 1, 10)
    epochs: int = whole(6, 1, 1_000)
    windows: int = whole(6, 1, 1_000)
    reach: int = whole(40, 4, 1_000)
    map_steps: int = whole(20, 4, 200)
    sentence: str = "the students opened their schools"

    NAME: ClassVar[str] = "gradient_flow"
    COLUMNS: ClassVar = {
        "part": str, "corpus": str, "cell": str, "scale": float, "bias": float, "seed": int, "epoch": int, "layer": int,
        "step": int, "lag": int, "token": str, "quantity": str, "value": float,
    }  # fmt: skip
    SIGNED: ClassVar = ("value",)

    def prepare(self) -> None:
        """Check that corpora exist, the sentence has five tokens, and memory suffices."""
        steps, gates = textbook.BURN + self.lags + 1, max(kernels.CELLS[cell].gates for cell in self.cell)
        held = 8 * gates * max(self.units, self.others) * (4 * steps * self.positions + max(self.units, self.others))
        check_memory(held, "units, others, lags or positions")
        if "language" not in self.parts:
            return
        held = 64 * self.layers * self.hidden * self.windows * language.LOSSES * (self.reach + language.LOSSES)
        check_memory(held, "layers, hidden, windows or reach")
        for name in self._corpora:
            words = lm.prepare(self._config(name, "lstm", 1)).tokenizer.encode(self.sentence)
            if len(words) != language.STEPS + 1:
                raise lm.InputError(f"sentence must be four words and the one that follows, not {len(words)} tokens")

    def cells(self) -> list[Cell]:
        cells: list[Cell] = []
        for part in (part for part in MEASURED if part in self.parts):
            if part == "certificate":
                cells += [{"part": part, "cell": cell} for cell in self.cell]
            elif part == "curves":
                cells += [{"part": part, "cell": cell, "scale": str(scale)} for cell in self.cell for scale in self.scales]
            elif part == "linear":
                cells += [{"part": part, "scale": radius} for radius in ("0.9", "1.0", "1.1")]
            elif part == "gates":
                cells += [{"part": part, "cell": cell, "bias": bias} for cell in GATED for bias in ("0.0", "1.0", "3.0")]
            elif part == "memory":
                cells += [{"part": part, "scale": str(value)} for value in self.eigenvalues]
            else:
                seeds = range(1, self.model_seeds + 1)
                cells += [
                    {"part": part, "corpus": name, "cell": cell, "seed": seed}
                    for name in self._corpora
                    for cell in self.models
                    for seed in seeds
                ]
        return cells

    def measure(self, cell: Cell) -> list[dict[str, Any]]:
        """One row for each number, with its ``quantity`` and ``value``.

        The lecture's t is ``step``, its l = t - i is ``lag``. ``scale`` is g of W_h, and rho or lambda in the parts linear and
        memory; ``bias`` is that of the forget or update gate. Columns that do not apply are -1, nan or empty.
        """
        at = {key: float(value) if key in ("scale", "bias") else value for key, value in cell.items()}
        blank = NONE | {"step": -1, "lag": -1, "token": ""}
        return [blank | at | row for row in self._rows(at)]

    def _rows(self, at: dict[str, Any]) -> list[dict[str, Any]]:
        part, cell, scale = at["part"], at.get("cell", ""), at.get("scale", 0.0)
        units = {"rnn-tanh": self.units, "rnn-identity": min(LINEAR, self.others)}.get(cell, self.others)
        if part == "certificate":
            return textbook.certificate(cell, min(self.seeds, 3), min(LINEAR, self.others), min(self.lags, 40))
        if part == "curves":
            steps = self.qr_steps if cell == "rnn-tanh" else -(-self.qr_steps // 4)
            return textbook.curves(cell, scale, self.seeds, units, self.lags, self.positions, steps)
        if part == "linear":
            return textbook.orthogonal(scale, self.seeds, min(LINEAR, self.others), self.lags)
        if part == "gates":
            return textbook.gates(cell, at["bias"], self.seeds, self.others, min(self.lags, 100))
        if part == "memory":
            return textbook.memory(scale, self.samples)
        first = at["corpus"] == self._corpora[0] and at["seed"] == 1
        config = self._config(at["corpus"], cell, at["seed"])
        return language.course(config, self.windows, self.reach, self.map_steps if first else 0, self.sentence)

    def subject(self) -> str:
        """The texts and language models, if any are trained."""
        if "language" not in self.parts:
            return ""
        return f"{' and '.join(self._corpora)}, word tokens, {', '.join(self.models)} {self.layers} x {self.hidden}"

    def inputs(self) -> str:
        """Digests of the corpora."""
        names = self._corpora if "language" in self.parts else ()
        return " ".join(lm.prepare(self._config(name, "lstm", 1)).fingerprint() for name in names)

    @property
    def _corpora(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(names_in(self.corpora)))

    def _config(self, corpus: str, cell: str, seed: int) -> lm.RunConfig:
        rate = RATES.get(cell, 0.003)
        sizes = {"hidden_size": self.hidden, "layers": self.layers, "epochs": self.epochs, "patience": 0}
        return lm.RunConfig().replace(source=corpus, cell=cell, seed=seed, lr=rate, min_count=3, **sizes)


_SMOKE: dict[str, Any] = {
    "scales": (0.7, 1.2, 1.5), "units": 24, "others": 16, "lags": 24, "positions": 2, "seeds": 2, "qr_steps": 40,
    "eigenvalues": (0.9, 0.7), "samples": 64, "corpora": "trump", "models": ("rnn-tanh", "lstm"), "model_seeds": 1,
    "hidden": 12, "layers": 1, "epochs": 1, "windows": 2, "reach": 12, "map_steps": 8,
}  # fmt: skip
_LONG: dict[str, Any] = {
    "scales": (0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0, 3.0, 4.0), "units": 1_600, "seeds": 10, "qr_steps": 4_000,
    "model_seeds": 5, "hidden": 200, "epochs": 12, "windows": 12,
}  # fmt: skip
PRESETS = {"smoke": Study(**_SMOKE), "cpu": Study(), "cpu-long": Study(**_LONG)}


def complaint(study: Study, table: "pd.DataFrame") -> str:
    """What keeps a table from being one of this study; nothing if it is one."""
    if not table["part"].isin(PARTS).all():
        return f"holds a part that is none of {', '.join(PARTS)}"
    if not table["cell"].isin(["", *kernels.CELLS]).all():
        return "holds a cell that is none of a network"
    if table.duplicated(list(KEYS)).any():
        return "holds a measurement twice"
    return ""
