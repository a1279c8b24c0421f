"""Limits of scale: memory, traffic and time of training a recurrent language model on 1, 8 and 1,000 GPUs, by arithmetic.

Each number rests on constants with a source: ``measured`` here, ``published`` by a vendor, ``estimated`` by the plans of
``kernels``, or ``assumed``. Nothing was measured on a GPU: times on GPUs are extrapolations.
"""

from dataclasses import dataclass
from math import ceil, log2
from typing import Any

from recurrent_lm import kernels, lm

GPUS = (1, 8, 1_000)
ADAM = 4 * 4  # bytes a parameter: float32 weight, gradient and two averages
KEPT = 3 * 4  # of them in a checkpoint: no gradient
MOVED = 7 * 4  # bytes a parameter that Adam moves: it reads those four numbers and writes all but the gradient
SAVED, REBUILT = 6, 2  # numbers a unit that a layer's scan keeps for the backward pass (LSTM), and with recompute=True
THROUGH = 21  # numbers a unit and time step through memory: 4 in and 6 out forward, 6 and 1 in and 4 out backward
HALF = 2  # bytes of a bfloat16
DEVICE, LONG = "sm_90", 1_000  # steps of a sequence, so that its launch hardly counts


@dataclass(frozen=True)
class Constant:
    """A constant in SI units, and its source."""

    value: float
    text: str
    kind: str
    source: str


CONSTANTS = {
    "flops": Constant(989e12, "989 TFLOP/s", "published", "bfloat16 products without sparsity: NVIDIA H100 SXM datasheet"),
    "memory": Constant(3.35e12, "3.35 TB/s", "published", "memory of one GPU: the same datasheet"),
    "near": Constant(450e9, "450 GB/s", "published", "NVLink of one GPU, each way: half of the same datasheet's 900 GB/s"),
    "far": Constant(50e9, "50 GB/s", "published", "400 Gbit/s for each GPU: NVIDIA ConnectX-7 datasheet"),
    "hop": Constant(5e-6, "5 µs", "assumed", "a message between two GPUs, however short"),
    "cpu": Constant(700 / 0.0937, "7,470 tokens/s", "measured", "training, LSTM 2 x 200, V = 10,000, two cores of an EPYC: "
                    "reports/published/cpu/training_step.parquet"),
    "text": Constant(3.4, "3.4 bytes", "measured", "text of a token of 2,000 byte pairs (3.3 and 3.6 in two collections): "
                     "reports/published/cpu/trainer.csv"),
}  # fmt: skip


@dataclass(frozen=True)
class Model:
    """An LSTM whose embedding is as wide as its layers and tied to the decoder."""

    layers: int
    hidden: int
    vocabulary: int

    @property
    def name(self) -> str:
        return f"{self.layers} x {self.hidden:,}, V = {self.vocabulary:,}"

    @property
    def parameters(self) -> int:
        config = lm.ModelConfig(cell="lstm", hidden_size=self.hidden, embedding_size=self.hidden, layers=self.layers, tie=True)
        return sum(count for _, count in lm.parameter_table(self.vocabulary, config, True).values())

    @property
    def units(self) -> int:
        """Hidden units rounded up to whole tiles, as buffers are."""
        plan = self._predicted(1)["stepwise"].plan
        assert plan
        return plan.hidden

    def saved(self, recompute: bool = False) -> int:
        """Bytes a token saved for the backward pass: the first layer's input, and the scan's numbers of each layer."""
        return HALF * (self.hidden + self.layers * self.units * (REBUILT if recompute else SAVED))

    @property
    def logits(self) -> int:
        """Bytes a token of the float32 logits that are never stored."""
        return 4 * self.vocabulary

    @property
    def products(self) -> int:
        """Operations a token outside of the scan, forward and backward: input products, the gradient of W_h, and the
        decoder.
        """
        gates = 4 * self.hidden * self.hidden
        return 2 * (self.layers * (3 * gates + gates) + 3 * self.hidden * self.vocabulary)

    def step(self, rows: int) -> float:
        """Seconds a time step and layer, forward and backward: the fastest plan's prediction; at least the time to read W_h
        twice if it does not fit on the chip.
        """
        fastest = min(self._predicted(rows).values(), key=lambda p: p.total)
        weights = 4 * self.hidden * self.hidden * HALF
        read = 0.0 if fastest.strategy in ("resident", "cooperative") else 2 * weights / CONSTANTS["memory"].value
        return max(fastest.total / LONG * 1e-6, read)

    def through(self, rows: int) -> int:
        """Least bytes that a time step moves through memory, all layers, W_h on the chip."""
        return HALF * THROUGH * rows * self.layers * self.units

    def _predicted(self, rows: int) -> dict[str, Any]:
        return kernels.predict(rows, LONG, self.hidden, "lstm", "bfloat16", kernels.DEVICES[DEVICE])


MODELS = (Model(2, 200, 10_000), Model(2, 1_024, 32_000), Model(4, 4_096, 128_000))


@dataclass(frozen=True)
class Training:
    """A model on ``gpus`` GPUs, each with ``rows`` sub-corpora of its own, read in windows of ``bptt`` tokens."""

    model: Model
    gpus: int
    rows: int = 64
    bptt: int = 100
    tokens: int = 10**11

    @property
    def gradient(self) -> int:
        """Bytes of the float32 gradient, which each update exchanges."""
        return 4 * self.model.parameters

    @property
    def traffic(self) -> float:
        """Bytes that each GPU sends (and receives) an update: 2 (N - 1) / N of the gradient (Patarasuk & Yuan 2009)."""
        return 2 * (self.gpus - 1) / self.gpus * self.gradient

    @property
    def exchange(self) -> float:
        """Seconds of the all-reduce: its traffic over the slowest link, and 2 log2 N messages one after the other."""
        link = CONSTANTS["near" if self.gpus <= 8 else "far"].value
        return self.traffic / link + 2 * ceil(log2(self.gpus)) * CONSTANTS["hop"].value

    @property
    def waiting(self) -> float:
        """Seconds of an update in the sequential time steps."""
        return self.bptt * self.model.layers * self.model.step(self.rows)

    @property
    def multiplying(self) -> float:
        """Seconds of an update in parallel products, at the published peak."""
        return self.rows * self.bptt * self.model.products / CONSTANTS["flops"].value

    @property
    def optimizing(self) -> float:
        """Seconds of Adam, at the memory's bandwidth."""
        return MOVED * self.model.parameters / CONSTANTS["memory"].value

    @property
    def update(self) -> float:
        """Seconds of an update without any overlap."""
        return self.waiting + self.multiplying + self.optimizing + self.exchange

    @property
    def at_once(self) -> int:
        """Tokens of an update."""
        return self.gpus * self.rows * self.bptt

    @property
    def speed(self) -> float:
        """Tokens a second."""
        return self.at_once / self.update

    @property
    def seconds(self) -> float:
        """Seconds to read the corpus once."""
        return self.tokens / self.speed

    @property
    def row(self) -> float:
        """Tokens of a sub-corpus."""
        return self.tokens / (self.gpus * self.rows)
