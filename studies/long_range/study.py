"""What reaches far: whether a network learns what lies T steps back, and how much of its past a language model uses.

Slides "Why it matters" (vanishing: far signals are not learned; gates help; exploding: clipping helps), "Problem with the
vanilla RNN" and "Summary of RNNs" (biased toward recent inputs); Pascanu, Mikolov & Bengio 2013, section 4.1.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from recurrent_lm import lm
from recurrent_lm.studies.engine.language_models import names_in
from recurrent_lm.studies.engine.memory import check_memory
from recurrent_lm.studies.engine.parameters import choices, real, whole, wholes
from recurrent_lm.studies.engine.study import Cell, Sweep
from recurrent_lm.studies.long_range import context as long_range_text
from recurrent_lm.studies.long_range import replica_training as long_range_training
from recurrent_lm.studies.long_range.claims import claims, summary
from recurrent_lm.studies.long_range.replica_training import Recipe

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["PRESETS", "Study", "claims", "complaint", "summary"]

PARTS = ("clipping", "gates", "text")
METHODS = ("plain", "clipped", "regularised")
TASKS = ("temporal_order", "adding", "copy")
CELLS = ("rnn-tanh", "lstm", "gru")
STD, ADAM_STD, ADAM_RATE = 0.1, 0.2, 0.005


@dataclass(frozen=True)
class Study(Sweep):
    """Three parts.

    ``clipping``: temporal order of ``lengths`` T, ``hidden`` tanh units, SGD of ``rate``, plain, clipped at ``threshold``, or
    clipped and regularised by Omega with ``weight``; ``seeds`` replicas of up to ``updates`` updates each.
    ``gates``: ``tasks`` over ``lags`` T by each ``cell`` of ``gated`` units, clipped Adam, ``repeats`` seeds, ``adam_updates``.
    ``text``: language models of ``units`` units on ``corpora`` (names or paths with commas between), ``models`` seeds each,
    read in windows of ``context`` tokens, of which the last ``kept`` n stay, or the one at lag ``distances`` is changed.
    """

    parts: tuple[str, ...] = choices(*PARTS, names=PARTS)
    lengths: tuple[int, ...] = wholes(20, 30, low=10, high=1_000)
    methods: tuple[str, ...] = choices(*METHODS, names=METHODS)
    seeds: int = whole(15, 1, 1_000)
    updates: int = whole(30_000, 1, 9_999_999)
    hidden: int = whole(50, 1, 10_000)
    rate: float = real(0.01, 0.0, 1e6)
    threshold: float = real(1.0, 0.0, 1e6)
    weight: float = real(4.0, 0.0, 1e6)
    tasks: tuple[str, ...] = choices("adding", "copy", names=TASKS)
    cell: tuple[str, ...] = choices(*CELLS, names=CELLS)
    lags: tuple[int, ...] = wholes(10, 20, 40, low=10, high=1_000)
    gated: int = whole(32, 1, 10_000)
    repeats: int = whole(5, 1, 1_000)
    adam_updates: int = whole(4_000, 1, 9_999_999)
    corpora: str = "obama"
    models: int = whole(2, 1, 1_000)
    units: int = whole(128, 1, 10_000)
    epochs: int = whole(8, 1, 10_000)
    context: int = whole(100, 1, 100_000)
    positions: int = whole(500, 1, 1_000_000)
    kept: tuple[int, ...] = wholes(1, 2, 3, 5, 10, 20, 50, low=1, high=100_000)
    distances: tuple[int, ...] = wholes(0, 1, 2, 3, 5, 8, 12, 20, 30, 50, low=0, high=100_000)

    SAMPLES: ClassVar = (("part", "task", "cell", "method", "steps"), "nats")
    NAME: ClassVar[str] = "long_range"
    COLUMNS: ClassVar = {
        "part": str, "task": str, "cell": str, "method": str, "steps": int, "seed": int, "updates": int, "solved": int,
        "error": float, "nats": float,
    }  # fmt: skip

    def prepare(self) -> None:
        """Check that windows hold the kept and changed tokens, corpora exist, and memory suffices."""
        if "text" in self.parts:
            if self.context <= (reach := max(*self.kept, *self.distances)):
                raise lm.InputError(f"context must be more than the {reach} tokens of kept and distances, not {self.context}")
            if not self._corpora:
                raise lm.InputError("corpora names no corpus; take obama, another name, or a path")
            for corpus in self._corpora:
                data = lm.prepare(long_range_text.config(corpus, "lstm", 1, self))
                long_range_text.check_length(len(data.test.ids), self.context)
        longest = max((*self.lengths, *self.lags))
        replicas, units = max(self.seeds, self.repeats), max(self.hidden, 4 * self.gated)
        check_memory(4.0 * replicas * units * (3 * longest * 20 + 5 * units), "seeds, repeats, lengths, lags, hidden or gated")

    def cells(self) -> list[Cell]:
        cells: list[Cell] = []
        if "clipping" in self.parts:
            cells += [_cell("clipping", "temporal_order", "rnn-tanh", m, t) for t in self.lengths for m in self.methods]
        if "gates" in self.parts:
            cells += [_cell("gates", task, cell, "clipped", t) for task in self.tasks for cell in self.cell for t in self.lags]
        if "text" in self.parts:
            seeds = range(1, self.models + 1)
            cells += [_cell("text", corpus, cell, seed=s) for corpus in self._corpora for cell in self.cell for s in seeds]
        return cells

    def measure(self, cell: Cell) -> list[dict[str, Any]]:
        """Measure a task or a language model.

        A task has one row a seed: ``updates`` until it was ``solved`` (fewer than 1% errors on 10,000 fresh sequences) or
        ended, and the last check's ``error``. A model has one row for each number of tokens: in the part history the loss in
        ``nats`` when the last ``steps`` tokens are kept, in the part influence the KL for the token at lag ``steps``.
        """
        nothing = {"updates": 0, "solved": 0, "error": math.nan, "nats": math.nan}
        if cell["part"] == "text":
            rows = long_range_text.measure(cell["task"], cell["cell"], cell["seed"], self)
        else:
            count = self.seeds if cell["part"] == "clipping" else self.repeats
            rows = long_range_training.train(cell["task"], cell["steps"], self._recipe(cell), list(range(1, count + 1)))
        return [cell | nothing | row for row in rows]

    def inputs(self) -> str:
        """A digest of the texts; the tasks generate their own data."""
        read = self._corpora if "text" in self.parts else []
        texts = (lm.prepare(long_range_text.config(corpus, "lstm", 1, self)) for corpus in read)
        return lm.digest(*(text.fingerprint().encode() for text in texts))

    @property
    def _corpora(self) -> list[str]:
        return [name for name in names_in(self.corpora) if name]

    def _recipe(self, cell: Cell) -> Recipe:
        if cell["part"] == "gates":
            size = self.gated, ADAM_STD
            return Recipe(cell["cell"], *size, "adam", ADAM_RATE, self.threshold, updates=self.adam_updates)
        clip = math.inf if cell["method"] == "plain" else self.threshold
        omega = self.weight if cell["method"] == "regularised" else 0.0
        return Recipe("rnn-tanh", self.hidden, STD, "sgd", self.rate, clip, omega, updates=self.updates)


def _cell(part: str, task: str, cell: str, method: str = "", steps: int = 0, seed: int = 0) -> Cell:
    return {"part": part, "task": task, "cell": cell, "method": method, "steps": steps, "seed": seed}


_SMOKE: dict[str, Any] = {
    "lengths": (10,), "seeds": 3, "updates": 200, "lags": (10,), "repeats": 2, "adam_updates": 200, "models": 1, "units": 32,
    "epochs": 1, "context": 20, "positions": 100, "kept": (1, 5, 10), "distances": (0, 5, 10), "cell": ("rnn-tanh", "gru"),
}  # fmt: skip
_LONG: dict[str, Any] = {
    "lengths": (20, 30, 40, 50, 70, 100), "updates": 60_000, "tasks": TASKS, "lags": (10, 20, 40, 80), "repeats": 10,
    "adam_updates": 10_000, "gated": 64, "corpora": "obama,trump", "models": 5, "epochs": 12, "units": 256,
}  # fmt: skip
PRESETS = {"smoke": Study(**_SMOKE), "cpu": Study(), "cpu-long": Study(**_LONG)}


def complaint(study: Study, table: "pd.DataFrame") -> str:
    """What keeps a table from being one of this study; nothing if it is one."""
    if table.duplicated(["part", "task", "cell", "method", "steps", "seed"]).any():
        return "holds a measurement twice"
    if not table["solved"].isin([0, 1]).all():
        return "holds a training that is neither solved nor not"
    for key, group in table.groupby(["part", "task", "cell", "method"]):
        part, _, cell, method = (str(word) for word in key)
        allowed = {
            "clipping": (study.methods, study.lengths, study.seeds),
            "gates": (("clipped",), study.lags, study.repeats),
            "history": (("dropped", "shuffled", "all"), (0, *study.kept, study.context), study.models),
            "influence": (("changed",), study.distances, study.models),
        }
        asked = "text" if part in ("history", "influence") else part
        if part not in allowed or asked not in study.parts:
            return f"holds a part {part}, which its parameters do not"
        methods, steps, seeds = allowed[part]
        known = group["steps"].isin(steps).all() and group["seed"].between(1, seeds).all()
        if method not in methods or not known or cell not in CELLS:
            return f"holds a measurement of {part} that its parameters do not"
    return ""
