"""How a language model reads: the next word it expects, the cut of its text into rows, and the state it carries on.

Slides "Language modeling" (P(v | "the students opened their")), "Mini batches, data preparation" (the tensor [k, L]) and
"h(0)" (zeros at the start, afterwards the last state of the pass before).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from recurrent_lm import lm
from recurrent_lm.studies.engine.language_models import check_names, trained
from recurrent_lm.studies.engine.parameters import choice, whole
from recurrent_lm.studies.engine.study import Cell, Sweep
from recurrent_lm.studies.reading.claims import claims

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["PRESETS", "Study", "claims", "complaint"]

PARTS = ("next", "whole", "state", "cut")
WAYS = ("carried", "zero")  # h(0) of a pass: the last state of the pass before, or zeros
NOTHING: dict[str, Any] = {"token": "", "row": -1, "column": -1, "place": -1, "way": "", "value": float("nan")}


@dataclass(frozen=True)
class Study(Sweep):
    """Models of ``layers`` x ``hidden`` units on ``corpus``; the ``words`` likeliest next words behind ``prompt``; validation
    losses by position in passes of ``bptt`` tokens; and the first ``cut_rows`` x ``cut_tau`` training tokens, cut as the
    trainer cuts a text, in passes of ``cut_bptt`` steps."""

    corpus: str = "obama"
    cell: str = choice("lstm", "rnn-tanh", "lstm", "gru")
    prompt: str = "the students opened their"
    words: int = whole(12, 1, 1_000)
    seeds: int = whole(3, 1, 1_000)
    hidden: int = whole(256, 1, 5_000)
    layers: int = whole(1, 1, 10)
    epochs: int = whole(8, 1, 1_000)
    min_count: int = whole(2, 1, 1_000)
    bptt: int = whole(20, 2, 1_000)
    cut_rows: int = whole(2, 1, 8)
    cut_tau: int = whole(12, 2, 40)
    cut_bptt: int = whole(4, 1, 40)

    NAME: ClassVar[str] = "reading"
    COLUMNS: ClassVar = {
        "part": str, "seed": int, "token": str, "row": int, "column": int, "place": int, "way": str, "value": float,
    }  # fmt: skip

    def prepare(self) -> None:
        check_names([self._config(1)])
        if not lm.prepare(self._config(1)).tokenizer.encode(self.prompt):
            raise lm.InputError("prompt must hold a word")

    def cells(self) -> list[Cell]:
        return [{"seed": seed} for seed in range(1, self.seeds + 1)]

    def measure(self, cell: Cell) -> list[dict[str, Any]]:
        """Rows by ``part``: next (a ``token`` and its probability, the likeliest first, ``place`` its rank), whole (the sum of
        all probabilities, and that of a word that the vocabulary lacks, named in ``way``), state (mean -log P in nats at
        ``column`` of a pass, from 1, by ``way``), cut (a token, its pass as ``way``, its ``row`` and ``column`` there and its
        ``place`` in the text, all from 1)."""
        training = trained(self._config(cell["seed"]))
        if training.diverged:
            raise lm.InputError(f"the model diverged: {training.diverged}")
        rows = [*self._next(training.run), *self._state(training.run.model, torch.from_numpy(training.data.valid.ids).long())]
        if cell["seed"] == 1:
            rows += self._cut(training.data)
        return [NOTHING | cell | row for row in rows]

    def _next(self, run: lm.Run) -> list[dict[str, Any]]:
        distribution = lm.next_token(run, self.prompt)
        rows: list[dict[str, Any]] = [
            {"part": "next", "token": token.word, "place": rank, "value": token.probability}
            for rank, token in enumerate(distribution.top(self.words), start=1)
        ]
        whole_ = {"sum": float(distribution.probabilities.sum()), "unknown": distribution.unknown}
        return rows + [{"part": "whole", "way": way, "value": value} for way, value in whole_.items()]

    def _state(self, model: lm.LanguageModel, ids: Tensor) -> list[dict[str, Any]]:
        count = (len(ids) - 1) // self.bptt
        if count < 2:
            raise lm.InputError(
                f"the validation text has {len(ids)} tokens; take a bptt of less than {self.bptt}, or more text"
            )
        losses = by_position(model, ids[: count * self.bptt + 1], self.bptt)
        return [
            {"part": "state", "way": way, "column": column, "value": float(loss)}
            for way, of in losses.items()
            for column, loss in enumerate(of, start=1)
        ]

    def _cut(self, data: lm.Data) -> list[dict[str, Any]]:
        ids = data.train.ids[: self.cut_rows * self.cut_tau + 1]
        if len(ids) <= self.cut_rows * self.cut_tau:
            raise lm.InputError(f"the training text has {len(ids)} tokens; take a smaller cut_rows or cut_tau")
        places = torch.arange(1, len(ids) + 1, dtype=torch.int32).numpy()
        batches = lm.Batches(places, self.cut_rows, self.cut_bptt)  # places instead of words: each is its own position
        return [
            {"part": "cut", "token": data.tokenizer.show(int(ids[place - 1])), "way": f"pass {s}"}
            | {"row": j, "column": column, "place": int(place), "value": 1.0}
            for s, batch in enumerate(batches, start=1)
            for j, line in enumerate(batch.inputs, start=1)
            for column, place in enumerate(line, start=1)
        ]

    def subject(self) -> str:
        """The text and the model."""
        return f"{self.corpus}, word tokens, {self.cell} {self.layers} x {self.hidden}"

    def inputs(self) -> str:
        """A digest of the corpus."""
        return lm.prepare(self._config(1)).fingerprint()

    def _config(self, seed: int) -> lm.RunConfig:
        sizes = {"hidden_size": self.hidden, "layers": self.layers, "epochs": self.epochs, "bptt": self.bptt, "patience": 0}
        how = {"dropout": 0.4, "lr": 0.003, "rows": 10, "kind": "word", "min_count": self.min_count}
        return lm.RunConfig().replace(source=self.corpus, cell=self.cell, seed=seed, **sizes, **how)


def by_position(model: lm.LanguageModel, ids: Tensor, length: int) -> dict[str, Tensor]:
    """Mean -log P of the next token at each position of passes of ``length`` tokens, [length] in nats: with the state carried
    from pass to pass, and with h(0) = 0 in each. ``ids`` has a multiple of ``length`` tokens and one more."""
    inputs, targets = ids[:-1].reshape(-1, length), ids[1:].reshape(-1, length)
    losses = {way: torch.zeros(length, dtype=torch.float64) for way in WAYS}
    model.eval()
    with torch.no_grad():
        state = model.zero_state(1)
        for line, target in zip(inputs, targets, strict=True):
            for way, before in (("carried", state), ("zero", model.zero_state(1))):
                hidden, after = model(line[None], before)
                log_p = model.logits(hidden[:, 0]).double().log_softmax(dim=-1)
                losses[way] -= log_p.gather(1, target[:, None])[:, 0]
                state = after if way == "carried" else state
    return {way: loss / len(inputs) for way, loss in losses.items()}


PRESETS = {
    "smoke": Study(corpus="trump", words=4, seeds=1, hidden=12, epochs=1, min_count=3),
    "cpu": Study(),
    "cpu-long": Study(seeds=5, epochs=14),
}


def complaint(study: Study, table: "pd.DataFrame") -> str:
    """What keeps a table from being one of this study; nothing if it is one."""
    if not table["part"].isin(PARTS).all():
        return f"holds a part that is none of {', '.join(PARTS)}"
    keys = ["part", "seed", "token", "row", "column", "place", "way"]
    return "holds a measurement twice" if table.duplicated(keys).any() else ""
