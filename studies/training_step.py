"""What one training step costs: this project's trainer against the loop that everybody writes.

Both do the whole step (forward, loss, backward, norm clipping, SGD) on the same model, sizes and tokens. Variants take turns
in random order, so that the machine's moods hit all alike; ratios are between neighbours in time.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import lm
from studies.memory import check_memory
from studies.parameters import Parameters, whole
from studies.statistics import paired_ratio

if TYPE_CHECKING:
    import pandas as pd

PLAIN = "torch.nn loop"
VARIANTS = (PLAIN, "lm float32", "lm bf16")
COLUMNS = {"variant": str, "round": int, "seconds": float, "peak_bytes": int}


@dataclass(frozen=True)
class Study(Parameters):
    """Time and memory of a step of an LSTM language model on random tokens, on the CPU."""

    vocabulary: int = whole(10_000, 2, 1_000_000)
    hidden: int = whole(200, 1, 10_000)
    layers: int = whole(2, 1, 100)
    rows: int = whole(20, 1, 10_000)
    bptt: int = whole(35, 1, 10_000)
    rounds: int = whole(30, 1, 1_000)
    threads: int = whole(0, 0, 1_024)

    def __call__(self) -> "pd.DataFrame":
        """One row a variant and round: ``seconds``, and ``peak_bytes`` of tensors above parameters, gradients and
        optimizer state (measured once a variant)."""
        import pandas as pd

        check_memory(self._bytes(), "vocabulary, hidden, layers, rows or bptt")
        if self.threads:
            torch.set_num_threads(self.threads)
        rng = np.random.default_rng(0)
        ids = rng.integers(0, self.vocabulary, self.rows * self.bptt * 4 + 1).astype(np.int32)
        made = (self._plain(ids), self._trainer(ids, "float32"), self._trainer(ids, "bf16"))
        variants = dict(zip(VARIANTS, made, strict=True))
        peaks = {name: peak_bytes(step) - _parameter_bytes(model) for name, (step, model) in variants.items()}
        rows: list[dict[str, Any]] = []
        for round_ in range(-3, self.rounds):  # three rounds to warm up
            for name in rng.permutation(list(variants)):
                seconds = _timed(variants[name][0])
                if round_ >= 0:
                    rows.append({"variant": name, "round": round_, "seconds": seconds, "peak_bytes": peaks[name]})
        return pd.DataFrame(rows)

    def _bytes(self) -> int:
        """Less than what will be held at once: parameters and gradients of each variant, the plain loop's logits twice."""
        parameters = 2 * self.vocabulary * self.hidden + 8 * self.layers * self.hidden**2
        tokens = self.rows * self.bptt
        return 4 * (len(VARIANTS) * 2 * parameters + 2 * tokens * self.vocabulary + 6 * tokens * self.layers * self.hidden)

    def _trainer(self, ids: Any, precision: str) -> tuple[Callable[[], float], nn.Module]:
        """A step that returns its loss, and the model that it moves."""
        config = lm.RunConfig(
            batches=lm.BatchConfig(rows=self.rows, bptt=self.bptt),
            model=lm.ModelConfig(
                cell="lstm", hidden_size=self.hidden, layers=self.layers, tie=False, dropout=0.0, init_width=0.1
            ),
            training=lm.TrainingConfig(optimizer="sgd", lr=1.0, clip="norm:0.25"),
            machine=lm.MachineConfig(device="cpu", threads=torch.get_num_threads(), precision=precision, backend="torch"),
        )
        stream = lm.Stream(ids, len(ids), 0.0)
        data = lm.Data(lm.Corpus("random", []), None, stream, stream, stream)  # type: ignore[arg-type]
        torch.manual_seed(0)
        training = lm.Training(config, data, Path(), lm.LanguageModel(self.vocabulary, config.model, "torch"))
        training.model.train()
        return lambda: training.update(training.batches[0])[0], training.model

    def _plain(self, ids: Any) -> tuple[Callable[[], float], nn.Module]:
        torch.manual_seed(0)
        model = nn.ModuleDict(
            {
                "embedding": nn.Embedding(self.vocabulary, self.hidden),
                "rnn": nn.LSTM(self.hidden, self.hidden, self.layers),
                "decoder": nn.Linear(self.hidden, self.vocabulary),
            }
        )
        for parameter in model.parameters():
            nn.init.uniform_(parameter, -0.1, 0.1)
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        batch = lm.Batches(ids, self.rows, self.bptt)[0]
        inputs, targets = torch.from_numpy(batch.inputs.T).long(), torch.from_numpy(batch.targets.T).flatten()
        zero = torch.zeros(self.layers, self.rows, self.hidden)
        state = (zero, zero)

        def step() -> float:
            nonlocal state
            optimizer.zero_grad()
            hidden, carried = model["rnn"](model["embedding"](inputs), state)
            loss = F.cross_entropy(model["decoder"](hidden.flatten(0, 1)), targets)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.25)
            optimizer.step()
            state = tuple(s.detach() for s in carried)
            return loss.item()

        return step, model


def _timed(step: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    step()
    return time.perf_counter() - begin


def _parameter_bytes(model: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in model.parameters())


def peak_bytes(step: Callable[[], Any]) -> int:
    """The most bytes that CPU tensors held during a step beyond those held before it, gradients dropped first."""
    step()  # buffers that live on are made here
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    changes = [
        (event.start_ns(), event.nbytes()) for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"
    ]
    held = np.cumsum([0, *(size for _, size in sorted(changes, key=lambda c: c[0]))])
    # The step begins by dropping the old gradients: what is held counts from the lowest point before.
    return int((held - np.minimum.accumulate(held)).max())


def grid(study: Study, table: "pd.DataFrame") -> dict[str, Any]:
    """The columns that number a row, with their values; a table holds each combination once."""
    return {"variant": VARIANTS, "round": range(study.rounds)}


def verdicts(table: "pd.DataFrame") -> "pd.DataFrame":
    """The trainer's three aims: as fast in float32, twice as fast in bf16, half the memory."""
    import pandas as pd

    setting = ", ".join(f"{k} {v}" for k, v in table.attrs["parameters"].items())
    seconds = table.pivot(index="round", columns="variant", values="seconds")
    rows = []
    for variant, aim in (("lm float32", 1.0), ("lm bf16", 2.0)):
        median, low, high = paired_ratio(seconds[PLAIN], seconds[variant])
        interval = "no interval" if math.isnan(low) else f"[{low:.2f}, {high:.2f}]"
        verdict = "holds" if low >= aim else "fails" if high < aim else "ambiguous"
        rows.append(
            (
                f"{variant} is at least {aim:g} times as fast as the {PLAIN}",
                f">= {aim:g}",
                "not measured" if math.isnan(median) else f"{median:.2f} {interval}",
                "not measured" if math.isnan(median) else verdict,
            )
        )
    peaks = table.groupby("variant")["peak_bytes"].first()
    for variant in ("lm float32", "lm bf16"):
        share = peaks[variant] / peaks[PLAIN] if peaks[PLAIN] > 0 else float("nan")
        missing = math.isnan(share)
        measured = f"{share:.2f} ({peaks[variant] / 1e6:.1f} of {peaks[PLAIN] / 1e6:.1f} MB)"
        claim = f"{variant} needs at most half the {PLAIN}'s peak of tensor memory"
        verdict = "not measured" if missing else "holds" if share <= 0.5 else "fails"
        rows.append((claim, "<= 0.5", "not measured" if missing else measured, verdict))
    columns = ["claim", "threshold", "measured", "verdict"]
    return pd.DataFrame(rows, columns=columns).assign(source="aim of the trainer", setting=setting)
