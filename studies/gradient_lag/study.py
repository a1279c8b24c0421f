"""How far back the gradient of a trained model reaches: the lecture's sum over time steps.

Slides BPTT and Vanishing, exploding: the gradient of the loss at step t with respect to W_h is a sum over steps i,

    dL(t)/dW_h = sum over i of  dL(t)/dh(t) [dh(t)/dh(t-1) .. dh(i+1)/dh(i)] dh(i)/dW_h.

Each part is computed by unrolling the model with a copy of W_h for every step, in float64, on windows of real text. minGRU has
no W_h; of it the parts are those of W_z, the gate's rows of the input's weight.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from recurrent_lm import kernels, lm
from recurrent_lm.studies.engine.memory import check_memory
from recurrent_lm.studies.engine.parameters import whole
from recurrent_lm.studies.engine.study import Cell, Sweep
from recurrent_lm.studies.gradient_lag.claims import claims

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["PRESETS", "Study", "claims", "grid"]


@dataclass(frozen=True)
class Study(Sweep):
    """Norms of the parts of dL(t)/dW_h and of dL(t)/dh(i), by lag l = t - i.

    ``windows`` positions t are spread evenly over the run's validation text; each is a cell. ``warmup`` tokens are read before
    each without gradients, so that the first state is a usual one; then ``lags`` steps are unrolled.
    """

    run: str = ""
    corpus: str = ""  # where the run's training text is now, if it was moved
    windows: int = whole(24, 1, 10_000)
    lags: int = whole(60, 1, 10_000)
    warmup: int = whole(60, 0, 1_000_000)

    LATER: ClassVar = ("corpus",)
    NAME: ClassVar[str] = "gradient_lag"
    COLUMNS: ClassVar = {
        "window": int,
        "layer": int,
        "lag": int,
        "hidden_norm": float,
        "weight_norm": float,
        "sum_error": float,
    }

    def prepare(self) -> None:
        """Check that the run exists, its validation text is long enough, and memory suffices for the copies of W_h."""
        if not self.run:
            raise lm.InputError("name a run: studies run gradient_lag --set run=runs/NAME")
        recurrent = [_copied(layer)[1] for layer in self._run.model.layers]
        check_memory(2 * self.lags * sum(w.nbytes for w in recurrent), "lags")  # copies, and as many gradients
        span, tokens = self._span, len(self._data.valid.ids)
        if tokens < span:
            raise lm.InputError(f"the validation text has {tokens} tokens; take fewer lags or less warmup than {span - 1}")

    def cells(self) -> list[Cell]:
        return [{"window": window} for window in range(self.windows)]

    def measure(self, cell: Cell) -> list[dict[str, Any]]:
        """One row for each layer and lag: ``hidden_norm`` = ||dL(t)/dh(i)||, ``weight_norm`` = ||dL(t)/dW_h at step i||_F, and
        ``sum_error``, the relative distance of the parts' sum from autograd's dL(t)/dW_h in that layer and window.
        """
        ids = torch.from_numpy(self._data.valid.ids).long()
        starts = torch.linspace(0, len(ids) - self._span, self.windows).long().tolist()
        start = starts[cell["window"]]
        return [cell | row for row in self._window(self._run.model, ids[start : start + self._span])]

    def subject(self) -> str:
        """The corpus, its tokens, and the model."""
        config = self._run.config
        size = f"{config.model.layers} x {config.model.hidden_size}"
        without = ", parts of W_z" if config.model.cell in kernels.LINEAR_CELLS else ""
        return f"{self._data.corpus.name}, {config.tokens.kind} tokens, {config.model.cell} {size}{without}"

    def inputs(self) -> str:
        """A digest of the model's weights and of its text."""
        weights = sorted(self._run.model.state_dict().items())
        parts = (name.encode() + tensor.contiguous().numpy().tobytes() for name, tensor in weights)
        return lm.digest(self._data.valid.ids.tobytes(), *parts)

    @property
    def _span(self) -> int:
        return self.warmup + self.lags + 1

    @cached_property
    def _run(self) -> lm.Run:
        run = lm.load(self.run, device="cpu")
        run.model.double()
        return run

    @cached_property
    def _data(self) -> lm.Data:
        run = self._run
        return lm.trained_on(run.config, run.tokenizer, run.path, run.meta, self.corpus, "--set corpus=PATH")

    def _window(self, model: lm.LanguageModel, ids: Tensor) -> list[dict[str, Any]]:
        with torch.no_grad():
            state = model.zero_state(1)
            if self.warmup:
                _, state = model(ids[None, : self.warmup], state)
        tokens, target = ids[self.warmup : -1], ids[-1:]
        hidden, weights = unroll(model, tokens, state)
        loss = _loss(model, hidden[-1][-1], target)
        layers, norm = range(len(model.layers)), kernels.total_norm_on_host
        flat = [h for step in hidden for h in step] + [w for step in weights for w in step]
        grads = torch.autograd.grad(loss, flat)
        steps, depth = len(tokens), len(model.layers)
        of_hidden = [grads[i * depth : (i + 1) * depth] for i in range(steps)]
        of_weight = [grads[(steps + i) * depth : (steps + i + 1) * depth] for i in range(steps)]
        whole = self._autograd(model, tokens, state, target)
        rows = []
        for layer in layers:
            total = torch.stack([part[layer] for part in of_weight]).sum(dim=0)
            error = float((total - whole[layer]).norm() / whole[layer].norm().clamp_min(1e-300))
            for i in range(steps):
                norms = {"hidden_norm": norm([of_hidden[i][layer]]), "weight_norm": norm([of_weight[i][layer]])}
                rows.append({"layer": layer, "lag": steps - 1 - i, **norms, "sum_error": error})
        return rows

    @staticmethod
    def _autograd(model: lm.LanguageModel, tokens: Tensor, state: Any, target: Tensor) -> tuple[Tensor, ...]:
        """dL(t)/dW_h of each layer by the model's own forward and backward pass."""
        hidden, _ = model(tokens[None], state)
        logits = model.logits(hidden[-1])
        weights = [layer.get_parameter(_copied(layer)[0]) for layer in model.layers]
        gradients = torch.autograd.grad(F.cross_entropy(logits, target), weights)
        return tuple(g[: len(_copied(layer)[1])] for g, layer in zip(gradients, model.layers, strict=True))


PRESETS = {"smoke": Study(windows=2, lags=5, warmup=5), "cpu": Study(), "cpu-long": Study(windows=200, lags=200)}


def unroll(model: lm.LanguageModel, tokens: Tensor, state: Any) -> tuple[list[list[Tensor]], list[list[Tensor]]]:
    """Unroll the model with a copy of W_h for every step.

    Args:
        model: a trained model.
        tokens: [T].
        state: the state before the first token.

    Returns:
        h[i][layer], each [1, H], and the copies W_h[i][layer] (of a cell without W_h: W_z[i][layer]).
    """
    cell = model.config.cell
    states = [tuple(s[0] for s in (part if isinstance(part, tuple) else (part,))) for part in state]
    hidden: list[list[Tensor]] = []
    copies: list[list[Tensor]] = []
    for token in tokens:
        x = model.embedding(token[None])
        hidden.append([])
        copies.append([])
        for i, layer in enumerate(model.layers):
            of = dict(layer.named_parameters())
            weight = _copied(layer)[1].detach().clone().requires_grad_()
            if cell in kernels.LINEAR_CELLS:
                whole = torch.cat([weight, of["weight_ih_l0"][len(weight) :]])
                states[i] = kernels.step(cell, F.linear(x, whole, of["bias_ih_l0"]), states[i])
            else:
                z = F.linear(x, of["weight_ih_l0"], of["bias_ih_l0"])
                states[i] = kernels.step(cell, z, states[i], weight, of["bias_hh_l0"])
            x = states[i][0]
            hidden[-1].append(x)
            copies[-1].append(weight)
    return hidden, copies


def _copied(layer: Any) -> tuple[str, Tensor]:
    """The parameter whose parts are measured, by name, and its rows: W_h, or W_z where there is no W_h."""
    if layer.cell in kernels.LINEAR_CELLS:
        return "weight_ih_l0", layer.weight_ih_l0[: layer.hidden_size]
    return "weight_hh_l0", layer.weight_hh_l0


def _loss(model: lm.LanguageModel, h: Tensor, target: Tensor) -> Tensor:
    if model.projection is not None:
        h = model.projection(h)
    return F.cross_entropy(model.logits(h), target)


def grid(study: Study, table: "pd.DataFrame") -> dict[str, range]:
    """The columns that identify a row, with their values; a table holds each combination once."""
    return {"window": range(study.windows), "layer": range(table["layer"].nunique()), "lag": range(study.lags)}
