"""minGRU on a CPU: the equations, the hand-written backward pass against autograd, its options, and the module."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from accuracy import near
from linear_cases import Layer
from scan_checks import error
from torch import Tensor

from recurrent_lm.kernels import EVERY_CELL, LINEAR_CELLS, MinGRU, explain, recurrence, step

BACKENDS = pytest.mark.parametrize("backend", ["eager", "torch", "triton"])
HOST = pytest.mark.parametrize("backend", ["eager", "torch"])
# One of everything; T = 1 has no step before it; 35, 20, 50 is a training length
SHAPES = pytest.mark.parametrize("shape", [(1, 1, 1), (1, 3, 5), (4, 1, 7), (9, 3, 5), (35, 20, 50)], ids=str)
CLIPS = pytest.mark.parametrize("clip", [None, ("value", 0.3), ("norm", 0.5)], ids=["free", "value", "norm"])


@pytest.fixture(autouse=True)
def _nan_in_new_tensors() -> Iterator[None]:
    """torch.empty holds NaN, so that a number that nobody wrote shows."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(before)


def test_one_step_by_hand() -> None:
    """z = s(log 3) = 3/4: h' = 8 / 4 + 3/4 * 4; without any gate the state stays."""
    sums = torch.tensor([[3.0, 1.0, 4.0, 9.0]]).double()
    sums[0, :2] = torch.tensor([3.0, 1e-9]).double().log()
    (h,) = step("mingru", sums, (torch.tensor([[8.0, 5.0]]).double(),))
    torch.testing.assert_close(h, torch.tensor([[5.0, 5.0]]).double(), rtol=0, atol=1e-8)
    assert set(LINEAR_CELLS) <= set(EVERY_CELL)


@HOST
def test_a_sequence_is_the_sum_that_the_paper_unrolls(backend: str) -> None:
    """h(T) = sum over i of z(i) c(i) times the product of 1 - z(j) over j > i, and the first state times all of them."""
    case = Layer(7, 2, 3)
    x, h0, weight, bias = case.tensors
    z, c = (x @ weight.T + bias).chunk(2, dim=-1)
    z = torch.sigmoid(z)
    expected = h0 * (1 - z).prod(0) + sum(z[i] * c[i] * (1 - z[i + 1 :]).prod(0) for i in range(7))
    output, h = case.run(*case.tensors, backend=backend)
    torch.testing.assert_close(h, expected, rtol=1e-14, atol=1e-14)
    assert torch.equal(h, output[-1])


@CLIPS
@pytest.mark.parametrize("resets", [False, True], ids=["plain", "resets"])
@SHAPES
def test_float64_is_the_unrolled_twin(shape: tuple[int, int, int], resets: bool, clip: Any) -> None:
    """To a few roundings, and so are the norms of the trace."""
    case = Layer(*shape)
    options = {"reset": case.reset if resets else None, "clip_recurrent": clip}
    ours, twin = (case.traced(backend=name, **options) for name in ("torch", "eager"))
    assert error(ours[:-1], twin[:-1]) < 3e-15 * shape[0] ** 0.5 * shape[2] ** 0.5
    torch.testing.assert_close(ours[-1], twin[-1], rtol=1e-7, atol=1e-12)  # found by products of rows
    if clip is not None and shape == (35, 20, 50):
        assert error(ours[:-2], case(backend="torch", reset=options["reset"])) > 1e-3, "nothing was clipped"


@HOST
def test_the_trace_has_the_parts_of_each_step(backend: str) -> None:
    """||dL/dh(t)||, and of the gate's rows of the weight the part of each step, from autograd alone."""
    case = Layer(5, 2, 3)
    *_, hidden_norms, weight_norms = case.traced(backend=backend)
    x, h, weight, bias = case.tensors
    weights = [weight.clone().requires_grad_() for _ in x]
    states = []
    for row, own in zip(x, weights, strict=True):
        h = step("mingru", row @ own.T + bias, (h,))[0].requires_grad_()
        states.append(h)
    gradients = torch.autograd.grad([*states, h], [*weights, *states], [*case.upstream[0], case.upstream[1]])
    torch.testing.assert_close(weight_norms, torch.stack([g[:3].norm() for g in gradients[:5]]), rtol=1e-7, atol=0)
    torch.testing.assert_close(hidden_norms, torch.stack([g.norm(dim=1) for g in gradients[5:]]), rtol=1e-12, atol=0)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_errors_are_at_most_twice_those_of_eager(dtype: torch.dtype, bias: bool) -> None:
    case = Layer(35, 20, 50, dtype, bias)
    options = {"reset": case.reset}
    near(case(dtype, backend="torch", **options), case(dtype, backend="eager", **options), case(backend="eager", **options))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@HOST
def test_two_passes_are_one(dtype: torch.dtype, backend: str) -> None:
    """The state is handed over exactly; only the input's product of fewer rows may round otherwise."""
    case = Layer(9, 3, 5)
    x, h, *weights = (t.to(dtype) for t in case.tensors)
    whole, last = case.run(x, h, *weights, backend=backend)
    parts = []
    for piece in x.split(4):
        output, h = case.run(piece, h, *weights, backend=backend)
        parts.append(output)
    few = 4 * torch.finfo(dtype).eps
    torch.testing.assert_close(torch.cat(parts), whole, rtol=few, atol=few)
    torch.testing.assert_close(h, last, rtol=few, atol=few)
    assert torch.equal(h, parts[-1][-1])


@HOST
def test_a_reset_forgets_also_what_is_not_finite(backend: str) -> None:
    case = Layer(4, 2, 3)
    case.tensors[1][0] = torch.inf
    reset = torch.zeros(4, 2, dtype=torch.bool)
    reset[2] = True
    output, _ = case.run(*case.tensors, reset=reset, backend=backend)
    assert not output[:2, 0].isfinite().any()
    assert output[2:].isfinite().all()


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # torch's own forward mode
@BACKENDS
def test_torch_func_forward_mode_and_second_derivatives(backend: str) -> None:
    """grad, jvp, vmap and gradcheck's finite differences of both derivatives."""
    case = Layer(3, 2, 2)

    def run(*leaves: Tensor) -> Tensor:
        return torch.cat([r.flatten() for r in case.run(*leaves, reset=case.reset, backend=backend)])

    leaves = tuple(t.clone().requires_grad_() for t in case.tensors)
    assert torch.autograd.gradcheck(run, leaves, fast_mode=True)
    assert torch.autograd.gradgradcheck(run, leaves, fast_mode=True)
    plain = tuple(case.tensors)
    expected = torch.autograd.functional.jacobian(run, plain)
    for found, truth in zip(torch.func.jacrev(run, (0, 1, 2, 3))(*plain), expected, strict=True):
        torch.testing.assert_close(found, truth, rtol=1e-12, atol=1e-12)
    _, moved = torch.func.jvp(run, plain, plain)
    total = sum(j.flatten(1) @ t.flatten() for j, t in zip(expected, plain, strict=True))
    torch.testing.assert_close(moved, total, rtol=1e-12, atol=1e-12)
    rows = torch.func.vmap(lambda h: run(plain[0], h, *plain[2:]))(torch.stack([plain[1], 2 * plain[1]]))
    torch.testing.assert_close(rows[0], run(*plain))


@pytest.mark.parametrize("backend", ["torch", "eager"])
def test_a_compiled_layer_is_the_layer(backend: str) -> None:
    """One operation, whatever the length, with the same gradients."""
    layer = MinGRU(3, 4, 2, backend=backend, dtype=torch.float64)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True, dynamic=True)
    for steps in (3, 5):
        x = torch.randn(steps, 2, 3, dtype=torch.float64, requires_grad=True)
        results = []
        for module in (layer, compiled):
            output, h = module(x)
            gradients = torch.autograd.grad(output.square().sum() + h.sum(), [x, *layer.parameters()])
            results.append([output, h, *gradients])
        for ours, truth in zip(*results, strict=True):
            torch.testing.assert_close(ours, truth, rtol=1e-12, atol=1e-12)


def test_autocast_multiplies_in_bfloat16_and_keeps_float32_states() -> None:
    case = Layer(200, 4, 16, torch.float32)
    truth = case(backend="eager")
    with torch.autocast("cpu", torch.bfloat16):
        found = case(torch.float32, backend="torch")
    assert found[0].dtype == torch.bfloat16
    assert found[2].dtype == torch.float32
    assert error(found[:2], truth[:2]) < 2 * torch.finfo(torch.bfloat16).eps


def test_the_module_is_its_layers_one_after_another() -> None:
    torch.manual_seed(1)
    module = MinGRU(3, 4, 2, batch_first=True)
    assert {name: list(p.shape) for name, p in module.named_parameters()} == {
        "weight_ih_l0": [8, 3], "bias_ih_l0": [8], "weight_ih_l1": [8, 4], "bias_ih_l1": [8],
    }  # fmt: skip
    x, hx = torch.randn(2, 5, 3), torch.randn(2, 2, 4)
    output, h = module(x, hx)
    below, first = recurrence("mingru", x.transpose(0, 1), (hx[0],), *[module.weight_ih_l0, None, module.bias_ih_l0])
    above, second = recurrence("mingru", below, (hx[1],), *[module.weight_ih_l1, None, module.bias_ih_l1])
    assert torch.equal(output, above.transpose(0, 1))
    assert torch.equal(h, torch.stack([first[0], second[0]]))
    assert list(MinGRU(3, 4, bias=False).state_dict()) == ["weight_ih_l0"]
    meta = MinGRU(3, 4, device="meta")
    assert meta(torch.empty(5, 2, 3, device="meta"))[0].shape == (5, 2, 4)


@pytest.mark.parametrize(
    "wrong",
    [
        {"weight_hh": torch.zeros(8, 4)},
        {"weight_hh": torch.zeros(0, 3)},
        {"bias_hh": torch.zeros(8)},
        {"weight_ih": torch.zeros(12, 3)},
        {"state": (torch.zeros(2, 4), torch.zeros(2, 4))},
        {"plan": "resident", "backend": "triton"},
        {"precision": "tf32", "backend": "triton"},
        {"clip_recurrent": ("norm", 1.0), "backend": "triton"},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_what_it_does_not_have_is_refused(wrong: dict[str, Any]) -> None:
    good: dict[str, Any] = {"input": torch.zeros(5, 2, 3), "state": (torch.zeros(2, 4),), "weight_ih": torch.zeros(8, 3)}
    assert recurrence("mingru", **good)[0].shape == (5, 2, 4)
    with pytest.raises(ValueError):
        recurrence("mingru", **good | wrong)


def test_a_cell_with_a_recurrent_weight_needs_it() -> None:
    with pytest.raises(ValueError, match="weight_hh"):
        recurrence("gru", torch.zeros(5, 2, 3), (torch.zeros(2, 4),), torch.zeros(12, 3))
    with pytest.raises(ValueError, match="weight_hh"):
        step("gru", torch.zeros(2, 12), (torch.zeros(2, 4),))


def test_explain_counts_the_bytes_and_knows_no_plan(capsys: pytest.CaptureFixture[str]) -> None:
    """Three numbers a unit, row and step forward: z, c and h."""
    explain(10, 100, 500, cell="mingru", dtype="bfloat16")
    assert "3.0 MB" in capsys.readouterr().out
    with pytest.raises(ValueError, match="plan"):
        explain(10, 100, 500, cell="mingru", plan="resident")
