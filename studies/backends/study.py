"""Language models trained end to end by each backend: whether curves agree, and tokens a second.

Backends sum in different orders, and a kernel's fault may show only sometimes; a whole training from the same weights, batches
and masks is the final check. The tolerance is the distance of two seeds of the same training.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch

from recurrent_lm import kernels, lm
from recurrent_lm.studies.engine.claims import NOT, OPEN, Claim
from recurrent_lm.studies.engine.language_models import check_names, trained
from recurrent_lm.studies.engine.parameters import choice, choices, real, whole
from recurrent_lm.studies.engine.statistics import UNDEFINED, compare, paired_ratio
from recurrent_lm.studies.engine.study import Cell, Sweep

CELLS = ("lstm", "gru", "rnn-tanh", "rnn-relu", "rnn-sigmoid")
NAMES = ("eager", "torch", "triton")
KEYS = ["corpus", "cell", "seed", "epoch"]


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
            training = trained(config)
            if training.diverged:
                raise lm.InputError(f"{training.diverged}; take a smaller lr")
            about = cell | {"corpus": training.data.corpus.name, "backend": backend}
            columns = ["epoch", "train_loss", "valid_loss", "seconds", "tokens_per_second"]
            rows += [about | {name: training.epochs[name][i] for name in columns} for i in range(len(training.epochs))]
        return rows

    @property
    def _corpora(self) -> list[str]:
        return [name.strip() for name in self.corpora.split(",")]

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


def pairs(table: "pd.DataFrame", column: str) -> "pd.DataFrame":
    """``column`` with one row for each corpus, cell, seed and epoch and one column a backend; rows that have all of them."""
    return table.pivot(index=KEYS, columns="backend", values=column).dropna()


def apart(table: "pd.DataFrame", backend: str, reference: str) -> "pd.DataFrame":
    """Distances of the validation losses of two backends, one row for each corpus and cell.

    Returns:
        ``distance``, the largest over epochs of the mean over seeds; ``noise``, the distance between seeds of the reference at
        that epoch; both in nats a token, nan for a loss that is not finite and for a single seed.
    """

    rows = []
    wide = pairs(table, "valid_loss")
    key: Any
    for key, group in wide.groupby(["corpus", "cell"], sort=False):
        count = group.index.get_level_values("seed").nunique()
        if not np.isfinite(group.to_numpy()).all():
            rows.append((*key, count, 0, float("nan"), float("nan")))
            continue
        distances = (group[backend] - group[reference]).abs().groupby("epoch").mean()
        epoch: Any = distances.idxmax()
        seeds = group[reference].xs(epoch, level="epoch")
        noise = float(seeds.max() - seeds.min()) if len(seeds) > 1 else float("nan")
        rows.append((*key, count, int(epoch), float(distances.max()), noise))
    return pd.DataFrame(rows, columns=["corpus", "cell", "seeds", "epoch", "distance", "noise"])


def claims(table: "pd.DataFrame") -> list[Claim]:
    """For each backend beside the first: the same curves, and how its tokens a second compare."""
    reference, *others = table.attrs["parameters"]["backends"]
    rows = []
    for backend in others:
        measured = {reference, backend} <= set(table["backend"])
        rows += _same(apart(table, backend, reference) if measured else None, backend, reference)
        rows += _speed(table, backend, reference) if measured else []
    return rows


def _same(differences: "pd.DataFrame | None", backend: str, reference: str) -> list[Claim]:
    """Of how far curves lie ``apart``, where both backends were measured."""
    text = f"trained by {backend}, a model learns the curve that it learns by {reference}"
    claim, threshold = (f"curve.{backend}", text, "aim of the trainer"), "within the spread of the seeds, at every epoch"
    wrong = (
        "a backend that computes something else, which the kernels' own tests would show, or too few seeds to span what "
        "seeds make of a training"
    )
    rows: list[Claim] = []
    row: Any
    for row in differences.itertuples() if differences is not None else ():
        measured = f"{row.distance:.2g} nats apart at most, after epoch {row.epoch}; seeds {row.noise:.2g} there"
        verdict, why = "holds" if row.distance <= row.noise else "fails", wrong
        if row.distance != row.distance:
            measured, verdict = UNDEFINED, "ambiguous"
        elif row.noise != row.noise:
            measured, verdict = f"{row.distance:.2g} nats apart at most; one seed has no spread", "ambiguous"
            why = "one seed says nothing of how far seeds lie apart; --set seeds=3"
        rows.append(Claim(*claim, f"{row.cell} on {row.corpus}, {row.seeds} seeds", threshold, measured, verdict, why))
    return rows or [Claim(*claim, "", threshold, NOT, NOT)]


def _speed(table: "pd.DataFrame", backend: str, reference: str) -> list[Claim]:
    """Of the epochs after the first, in which kernels are compiled, if there are any."""
    claim = f"speed.{backend}", f"{backend} trains at least as fast as {reference}", "aim of the trainer"
    later = table[table["epoch"] > 1]
    speeds = pairs(later if len(later) else table, "tokens_per_second")
    rows = []
    for cell, group in speeds.groupby("cell", sort=False):
        ratio = paired_ratio(group[backend], group[reference])
        verdict = {"faster": "holds", "same": "holds", "slower": "fails"}.get(compare(ratio), "ambiguous")
        middle = f"{group[backend].median():,.0f} and {group[reference].median():,.0f} tokens a second"
        known = ratio.value == ratio.value
        why = _spread(speeds) if known and verdict in OPEN else ""
        setting, threshold = f"{cell}, {len(group)} pairs of epochs", "at least 1 / 1.03 times as fast"
        rows.append(Claim(*claim, setting, threshold, f"{ratio}; {middle}" if known else UNDEFINED, verdict, why))
    return rows


def _spread(speeds: "pd.DataFrame") -> str:
    """Why a speed is not decided."""
    grouped = speeds[(speeds > 0).all(axis=1) & (speeds < float("inf")).all(axis=1)].groupby("cell")
    spread = (grouped.quantile(0.9) / grouped.quantile(0.1)).to_numpy().max()
    return f"epochs of one backend differ by up to {spread:.2f} times, and differences below 3% decide nothing"
