"""Language models trained end to end by each backend: whether curves agree, and tokens a second.

Backends sum in different orders, and a kernel's fault may show only sometimes; a whole training from the same weights, batches
and masks is the final check. The tolerance is the distance of two seeds of the same training.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from recurrent_lm import kernels, lm
from recurrent_lm.studies.backends.claims import KEYS, claims
from recurrent_lm.studies.engine.language_models import check_names, converged, names_in
from recurrent_lm.studies.engine.parameters import choice, choices, real, whole
from recurrent_lm.studies.engine.study import Cell, Sweep

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["PRESETS", "Study", "claims", "complaint"]

CELLS = ("lstm", "gru", "rnn-tanh", "rnn-relu", "rnn-sigmoid")
NAMES = ("eager", "torch", "triton")


@dataclass(frozen=True)
class Study(Sweep):
    """Each of ``cell`` on each of ``corpora``, from ``seeds`` seeds, by each of ``backends``; the first backend is the
    reference.
    """

    corpora: str = "obama,trump"
    cell: tuple[str, ...] = choices("lstm", "gru", "rnn-tanh", names=CELLS)
    backends: tuple[str, ...] = choices("eager", "torch", names=NAMES)
    seeds: int = whole(3, 1, 1_000)
    hidden: int = whole(128, 1, 10_000)
    rows: int = whole(20, 1, 10_000)
    bptt: int = whole(35, 1, 10_000)
    epochs: int = whole(4, 1, 1_000)
    min_count: int = whole(3, 1, 1_000)
    lr: float = real(0.003, 1e-6, 10.0)
    dropout: float = real(0.2, 0.0, 0.99)
    precision: str = choice("float32", "float32", "bf16")
    device: str = choice("cpu", "cpu", "cuda")
    graph: str = choice("no", "no", "yes")

    SAMPLES: ClassVar = (("corpus", "cell", "backend", "epoch"), "seconds")
    TIMED: ClassVar = True
    NAME: ClassVar[str] = "backends"
    COLUMNS: ClassVar = {
        "corpus": str, "cell": str, "backend": str, "seed": int, "epoch": int, "train_loss": float, "valid_loss": float,
        "seconds": float, "tokens_per_second": float,
    }  # fmt: skip

    def prepare(self) -> None:
        if len(self.backends) < 2:
            raise lm.InputError("backends must be two or more, the reference first, such as torch,triton")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise lm.InputError("device cuda needs a CUDA GPU, and there is none here; take --preset cpu, or --set device=cpu")
        if self.graph == "yes" and self.device == "cpu":
            raise lm.InputError("graph yes is for a GPU; take it out, or --set device=cuda")
        for backend in self.backends:
            try:
                kernels.choose_backend(backend, torch.device(self.device))
            except ValueError as error:
                raise lm.InputError(f"backends: {error}") from None
        check_names(self._config(corpus) for corpus in self._corpora)

    def cells(self) -> list[Cell]:
        """All backends of one training are one cell, so that their speeds are of the same minutes."""
        return [
            {"corpus": corpus, "cell": cell, "seed": seed}
            for seed in range(1, self.seeds + 1)
            for corpus in self._corpora
            for cell in self.cell
        ]

    def measure(self, cell: Cell) -> list[dict[str, Any]]:
        """One row for each backend and epoch: ``train_loss`` and ``valid_loss`` in nats a token, ``seconds`` of the updates."""
        rows = []
        for backend in self.backends:
            config = self._config(cell["corpus"]).replace(cell=cell["cell"], seed=cell["seed"], backend=backend)
            training = converged(config)
            about = cell | {"corpus": training.data.corpus.name, "backend": backend}
            columns = ["epoch", "train_loss", "valid_loss", "seconds", "tokens_per_second"]
            rows += [about | {name: training.epochs[name][i] for name in columns} for i in range(len(training.epochs))]
        return rows

    @property
    def _corpora(self) -> list[str]:
        return names_in(self.corpora)

    def _config(self, corpus: str) -> lm.RunConfig:
        sizes = {"hidden_size": self.hidden, "rows": self.rows, "bptt": self.bptt, "min_count": self.min_count}
        training = {"epochs": self.epochs, "patience": 0, "lr": self.lr, "dropout": self.dropout}
        machine = {"device": self.device, "precision": self.precision, "graph": self.graph == "yes"}
        return lm.RunConfig().replace(source=corpus, **sizes, **training, **machine)


_GPU: dict[str, Any] = {
    "backends": ("torch", "triton"), "device": "cuda", "hidden": 512, "epochs": 10, "cell": CELLS, "graph": "yes",
    "precision": "bf16",
}  # fmt: skip
PRESETS = {
    "smoke": Study(corpora="trump", cell=("gru",), hidden=8, epochs=1, seeds=2, min_count=20),
    "cpu": Study(),
    "cpu-long": Study(cell=CELLS, hidden=256, seeds=5, epochs=8),
    "gpu": Study(corpora="obama,trump,sotu", **_GPU),
}


def complaint(study: Study, table: "pd.DataFrame") -> str:
    """Why a table is not one of this study; empty if it is one."""
    if not table["backend"].isin(study.backends).all() or not table["cell"].isin(study.cell).all():
        return "holds a backend or a cell that its parameters do not"
    return "holds an epoch twice" if table.duplicated([*KEYS, "backend"]).any() else ""
