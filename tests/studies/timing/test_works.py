"""Works and their peers: the same numbers for all, one float64 truth, and nobody is timed who misses it."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from recurrent_lm import kernels
from recurrent_lm.studies.timing import losses, peaks, peers, recurrences, steps
from recurrent_lm.studies.timing.trial import Entry, trial
from recurrent_lm.studies.timing.work import Peer, Unavailable, Work, differentiable, relative_error

SIZE = {"batch": 3, "hidden": 8, "steps": 5}


def one(*values):
    return (torch.tensor(values, dtype=torch.float64),)


@pytest.mark.parametrize(
    ("result", "reference", "error"),
    [
        (one(1.0, 2.0), one(1.0, 2.0), 0.0),
        (one(1.0, 2.2), one(1.0, 2.0), 0.1),
        (one(1.2, 2.0), one(1.0, 2.0), 0.1),
        (one(0.5), one(0.0), 0.5),
        (one(math.nan, 2.0), one(1.0, 2.0), math.inf),
        (one(math.inf, 2.0), one(1.0, 2.0), math.inf),
        (one(1.0), one(1.0, 2.0), math.inf),
        (one(1.0) * 2, one(1.0), math.inf),
        (one(1.0) + one(3.0), one(1.0) + one(2.0), 0.5),
    ],
)
def test_relative_error_is_of_the_worst_element(result, reference, error):
    assert relative_error(result, reference) == pytest.approx(error)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("direction", ["forward", "forward+backward"])
@pytest.mark.parametrize("cell", kernels.CELLS)
def test_all_recurrences_compute_the_same(cell, direction, dtype):
    work = recurrences.recurrence(cell, direction, dtype, **SIZE)
    count = 1 if direction == "forward" else 6  # output; gradients of x, two weights, two biases
    for name in ("kernels:eager", "kernels:torch", "torch.nn", "loop"):
        try:
            results = work.peers[name]().result()
        except Unavailable as reason:
            assert cell in ("rnn-sigmoid", "rnn-identity") and "has no" in str(reason)
            continue
        assert len(results) == count
        assert relative_error(results, work.reference(name)) <= work.allowed
        assert results[0].shape == (5, 3, 8)
    assert work.allowed < {"float32": 1e-5, "bfloat16": 0.2}[dtype]


def test_the_reference_of_a_recurrence_is_torchs_own_float64():
    """By another road than the study's: nn.LSTM in float64, its gradients by ``backward``."""
    work = recurrences.recurrence("lstm", "forward+backward", "float32", **SIZE)
    random = torch.Generator().manual_seed(1)
    x = torch.randn(5, 3, 8, generator=random).double().requires_grad_()
    grad = torch.randn(5, 3, 8, generator=random).double()
    module = nn.LSTM(8, 8).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.empty(parameter.shape).uniform_(-(8**-0.5), 8**-0.5, generator=random))
    output, _ = module(x)
    output.backward(grad)
    truth = (output.detach(), x.grad, *(p.grad for p in module.parameters()))
    assert relative_error(work.reference("torch.nn"), truth) < 1e-12


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn-tanh"])
def test_a_traced_backward_pass_gives_the_gradients_of_the_recurrence(cell):
    """Traced, it records one layer a call."""
    work = recurrences.backward(cell, "float32", **SIZE)
    whole = recurrences.recurrence(cell, "forward+backward", "float32", **SIZE).reference("torch.nn")
    assert relative_error(work.reference("traced"), whole[1:]) < 1e-12
    for name in recurrences.TRACED:
        peer = work.peers[name]()
        assert relative_error(peer.result(), work.reference(name)) <= work.allowed < 1e-4
        assert relative_error(peer.result(), peer.result()) == 0, "the graph is kept"


@pytest.mark.parametrize("direction", ["forward", "forward+backward"])
def test_all_losses_compute_the_same(direction):
    work = losses.cross_entropy(direction, "float32", 300, 6, 20)
    for name in ("kernels:torch", "torch.nn", "linear_cross_entropy", "linear_cross_entropy-chunked"):
        assert relative_error(work.peers[name]().result(), work.reference(name)) <= work.allowed < 1e-5
    assert len(work.reference("torch.nn")) == (1 if direction == "forward" else 4)


@pytest.mark.parametrize("steps_", [1, 7])
def test_one_product_and_steps_that_wait_do_the_same_multiplications(steps_):
    """Step by step by another road: powers of W."""
    work = recurrences.sequential("float32", 3, 8, steps_)
    for name in ("product", "steps"):
        assert relative_error(work.peers[name]().result(), work.reference(name)) <= work.allowed < 1e-4
    assert work.flops == 2 * steps_ * 3 * 8 * 8
    wide = work.reference("steps")[0].view(steps_, 3, 8)
    norms = wide.norm(dim=-1)
    assert torch.allclose(norms, norms[:1].expand_as(norms), rtol=1e-5)  # W keeps lengths
    assert torch.allclose(work.reference("product")[0][:3], wide[0])


def test_a_training_step_is_checked_by_its_loss_and_every_parameters_move():
    work = steps.training(steps.Size(vocabulary=20, hidden=6, layers=2, rows=2, bptt=4), "float32")
    truth = work.reference("torch.nn")
    assert len(truth) == 1 + 1 + 2 * 4 + 2
    assert all(float(t.abs().max()) > 0 for t in truth)  # a reference that stands still would agree with anything still
    for name in ("kernels:torch", "torch.nn"):
        assert relative_error(work.peers[name]().result(), truth) <= work.allowed < 1e-2


def test_a_graphs_step_gives_the_loss_of_the_one_before_and_at_once_its_own():
    """On a CPU in the same buffers without a recording."""
    size = steps.Size(vocabulary=20, hidden=6, layers=2, rows=2, bptt=4)
    step, _ = steps.trainer(size, "float32")
    expected = [step() for _ in range(4)]
    later, at_once, training = steps.graphed(size, "float32", "torch", "cpu")
    assert [later() for _ in range(3)] == [pytest.approx(value, nan_ok=True) for value in (math.nan, *expected[:2])]
    assert at_once() == pytest.approx(expected[3])
    training.state = training.model.zero_state(2)
    assert at_once() != pytest.approx(step()), "a new state is taken over"


def test_a_graph_needs_a_gpu():
    work = steps.training(steps.Size(vocabulary=20, hidden=6, layers=1, rows=2, bptt=4), "float32")
    with pytest.raises(Unavailable, match="needs a GPU"):
        work.peers["kernels:triton-graph"]()


def test_flops_and_bytes_are_counted_by_hand():
    """LSTM, B 3, H 8, T 5: four gates of two products; x, two weights, two biases and the output in float32."""
    forward = recurrences.recurrence("lstm", "forward", "float32", **SIZE)
    assert forward.flops == 5 * 3 * 4 * 8 * (8 + 8) * 2
    assert forward.bytes == 4 * (2 * 5 * 3 * 8 + 2 * 32 * 8 + 2 * 32)
    both = recurrences.recurrence("lstm", "forward+backward", "float32", **SIZE)
    assert (both.flops, both.bytes) == (3 * forward.flops, 2 * forward.bytes)
    loss = losses.cross_entropy("forward", "float32", 10, 6, 20)
    assert loss.flops == 2 * 10 * 6 * 20
    assert loss.bytes == 4 * (10 * 6 + 20 * 6 + 20) + 8 * 10
    assert peaks.copy(2).bytes == 4e6
    assert peaks.product(16, "float32").flops == 2 * 16**3


def peer(value):
    return lambda: Peer(lambda: None, lambda: one(value))


def unavailable():
    raise Unavailable("it is not installed")


def broken():
    raise ZeroDivisionError("a\nbug")


def test_only_what_agrees_is_timed():
    calls = []
    makers = {
        "right": lambda: Peer(lambda: calls.append("right"), lambda: one(1.0)),
        "wrong": lambda: Peer(lambda: calls.append("wrong"), lambda: one(1.1)),
        "nan": peer(math.nan),
        "missing": unavailable,
        "broken": broken,
    }
    work = Work(makers, lambda name: one(1.0), allowed=0.05, flops=1.0, bytes=2.0)
    rows = trial(work, [Entry(name) for name in makers], ("hot",), rounds=3, device="cpu")
    status = {name: {r["status"] for r in rows if r["variant"] == name} for name in makers}
    assert status == {
        "right": {"timed"}, "wrong": {"disagrees"}, "nan": {"disagrees"}, "missing": {"skipped"}, "broken": {"failed"},
    }  # fmt: skip
    assert set(calls) == {"right"}
    timed = [r for r in rows if r["variant"] == "right"]
    assert [r["round"] for r in timed] == [0, 1, 2] and all(r["seconds"] > 0 for r in timed)
    others = {r["variant"]: r for r in rows if r["variant"] != "right"}
    assert all(math.isnan(r["seconds"]) for r in others.values())
    assert others["wrong"]["error"] == pytest.approx(0.1)
    assert others["wrong"]["note"] == "the relative error is 1.0e-01, and 5.0e-02 is allowed"
    assert others["missing"]["note"] == "it is not installed"
    assert others["broken"]["note"] == "ZeroDivisionError: a bug"


@pytest.mark.parametrize("name", ["FlashRNN", "torch.compile"])
def test_a_peer_that_is_not_there_says_why(name, monkeypatch):
    monkeypatch.setattr(peers.shutil, "which", lambda name: None)
    work = recurrences.recurrence("lstm", "forward", "float32", **SIZE)
    words = {"FlashRNN": "FlashRNN needs a CUDA GPU", "torch.compile": "needs a C"}[name]
    with pytest.raises(Unavailable, match=words):
        work.peers[name]()
    losses_ = losses.cross_entropy("forward", "float32", 10, 6, 20)
    for other in ("liger-kernel", "cut-cross-entropy"):
        with pytest.raises(Unavailable, match=f"{other} needs a CUDA GPU"):
            losses_.peers[other]()


# Other people's libraries as far as they are asked, with the signatures of their releases (flashrnn 1.0.8, liger-kernel 0.8.5,
# cut-cross-entropy 25.1.1 and its repository's later form); what they compute is written from their descriptions.


def flashrnn(Wx, R, b, states=None, function="lstm", config=None, backend="cuda_fused", dtype="bfloat16"):
    """Wx [B, T, gates, heads, H], R [gates, heads, H out, H in], b [gates, heads, H] to states [S, B, T, heads, H].

    Of a GRU Wx has r, z, n; R has n, r, z; b has n of the state, r, z, n of the input.
    """
    assert backend == "cuda_fused" and dtype == str(Wx.dtype).removeprefix("torch.")
    h = c = Wx.new_zeros(Wx.shape[0], *Wx.shape[3:])
    seen = []
    for t in range(Wx.shape[1]):
        recurrent = torch.einsum("gnij,bnj->bgni", R, h)
        if function == "gru":
            r, z = ((Wx[:, t, i] + recurrent[:, i + 1] + b[i + 1]).sigmoid() for i in (0, 1))
            h = z * h + (1 - z) * (Wx[:, t, 2] + b[3] + r * (recurrent[:, 0] + b[0])).tanh()
            seen.append(torch.stack([h]))
            continue
        gates = Wx[:, t] + recurrent + b
        if function == "elman":
            h = gates[:, 0].tanh()
        else:
            i, f, z, o = gates.unbind(1)
            c = f.sigmoid() * c + i.sigmoid() * z.tanh()
            h = o.sigmoid() * c.tanh()
        seen.append(torch.stack([h] if function == "elman" else [h, c]))
    return torch.stack(seen, dim=2), seen[-1][:, :, None]


class LigerFusedLinearCrossEntropyLoss(nn.Module):
    def forward(self, lin_weight, _input, target, bias=None):
        return nn.functional.cross_entropy(_input @ lin_weight.T + bias, target)


def cce(e, c, targets, ignore_index=-100, softcap=None, reduction="mean", shift=False, filter_eps="high", impl="cce"):
    assert e.shape[1] == c.shape[1] and e.shape[1] % 2 == 0
    return nn.functional.cross_entropy(e @ c.T, targets)


def cce_with_bias(e, c, targets, bias=None, ignore_index=-100, softcap=None):
    return nn.functional.cross_entropy(e @ c.T + bias, targets)


@pytest.fixture
def installed(monkeypatch):
    def install(**names):
        monkeypatch.setattr(peers, "_installed", lambda module, name, where: SimpleNamespace(**names))

    return install


@pytest.mark.parametrize("direction", ["forward", "forward+backward"])
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn-tanh"])
def test_flashrnn_gets_what_it_wants(cell, direction, installed):
    installed(flashrnn=flashrnn)
    work = recurrences.recurrence(cell, direction, "float32", **SIZE)
    assert relative_error(work.peers["FlashRNN"]().result(), work.reference("FlashRNN")) <= work.allowed
    with pytest.raises(Unavailable, match="FlashRNN has no rnn-sigmoid"):
        recurrences.recurrence("rnn-sigmoid", direction, "float32", **SIZE).peers["FlashRNN"]()


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn-tanh"])
def test_flashrnn_is_torch_to_the_last_bits(cell, installed):
    """With the weights in its orders: in float64, as its release's backend "vanilla" was found to be (1.1e-16 for a GRU)."""
    installed(flashrnn=flashrnn)
    module = peers.MODULES[cell](8, 8).double()
    weights = {name.removesuffix("_l0"): value.detach() for name, value in module.named_parameters()}
    x = torch.randn(5, 3, 8, dtype=torch.float64)
    forward, _ = peers.flash_rnn(cell, weights)
    torch.testing.assert_close(forward(x), module(x)[0], rtol=0, atol=4e-16)


def test_what_older_torch_lacks_is_skipped_with_a_reason(monkeypatch):
    monkeypatch.delattr(nn, "LinearCrossEntropyOptions", raising=False)
    work = losses.cross_entropy("forward", "float32", 10, 6, 20)
    row, *others = trial(work, [Entry("linear_cross_entropy-chunked")], ("hot",), rounds=1, device="cpu")
    assert not others and row["status"] == "skipped" and row["note"].endswith("2.13 has")


@pytest.mark.skipif(not hasattr(nn, "LinearCrossEntropyOptions"), reason="torch older than 2.13")
def test_chunks_save_memory():
    """Of torch's chunks and of ours each takes less than half of what all logits take."""
    work = losses.cross_entropy("forward+backward", "float32", 1024, 8, 5000)
    names = ("torch.nn", "linear_cross_entropy-chunked", "kernels:torch")
    rows = trial(work, [Entry(name) for name in names], ("hot",), rounds=1, device="cpu")
    whole, *chunked = (row["peak_bytes"] for row in rows)
    assert {row["status"] for row in rows} == {"timed"}
    assert 0 < max(chunked) < whole / 2


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("liger-kernel", {"LigerFusedLinearCrossEntropyLoss": LigerFusedLinearCrossEntropyLoss}),
        ("cut-cross-entropy", {"linear_cross_entropy": cce}),
        ("cut-cross-entropy", {"linear_cross_entropy": cce_with_bias}),
    ],
    ids=["liger", "cce", "cce with a bias"],
)
@pytest.mark.parametrize("direction", ["forward", "forward+backward"])
def test_losses_of_others_get_what_they_want(name, module, direction, installed):
    installed(**module)
    work = losses.cross_entropy(direction, "float32", 30, 6, 20)
    assert relative_error(work.peers[name]().result(), work.reference(name)) <= work.allowed


def test_the_compiler_that_cxx_names_is_looked_for(monkeypatch):
    monkeypatch.setattr(peers.shutil, "which", lambda name: name if name == "mine" else None)
    monkeypatch.setenv("CXX", "mine")
    peers.check_compiler()
    monkeypatch.setenv("CXX", "theirs")
    with pytest.raises(Unavailable):
        peers.check_compiler()


def test_forward_keeps_no_gradients_and_backward_makes_all():
    a = torch.ones(2, requires_grad=True)
    forward = differentiable(lambda: a * 3, (a,), torch.ones(2), "forward").result()
    assert len(forward) == 1 and not forward[0].requires_grad
    output, grad = differentiable(lambda: a * 3, (a,), torch.full((2,), 2.0), "forward+backward").result()
    assert output.tolist() == [3.0, 3.0] and grad.tolist() == [6.0, 6.0]
    assert a.grad is None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the compiler's own making
def test_a_compiled_step_computes_the_same():
    work = recurrences.recurrence("rnn-tanh", "forward", "float32", **SIZE)
    assert relative_error(work.peers["torch.compile"]().result(), work.reference("torch.compile")) <= work.allowed
