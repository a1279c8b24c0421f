"""The language model against torch.nn, against its eager twin, and its regularisers one by one."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recurrent_lm import kernels
from recurrent_lm.lm.base.errors import InputError
from recurrent_lm.lm.config import CELLS, ModelConfig
from recurrent_lm.lm.model import LanguageModel, detach, flatten, unflatten
from recurrent_lm.lm.parameter_counts import parameter_table

V, K, N, H = 11, 3, 7, 6
PLAIN = {"hidden_size": H, "dropout": 0.0}


def build(vocabulary: int = V, backend: str = "eager", seed: int = 0, **settings: Any) -> LanguageModel:
    torch.manual_seed(seed)
    return LanguageModel(vocabulary, ModelConfig(**{**PLAIN, **settings}), backend).double()


def tokens(n: int = N, k: int = K, seed: int = 1) -> Tensor:
    return torch.randint(0, V, (k, n), generator=torch.Generator().manual_seed(seed))


def some_state(model: LanguageModel, k: int = K) -> list[Any]:
    generator = torch.Generator().manual_seed(2)
    lstm = model.config.cell == "lstm"
    zero = flatten(model.zero_state(k))
    return unflatten([torch.randn(z.shape, generator=generator, dtype=z.dtype) for z in zero], pairs=lstm)


def loss_of(model: LanguageModel, x: Tensor, y: Tensor, state: Any, reset: Tensor | None, backend: str) -> Tensor:
    hidden, _ = model(x, state, reset)
    return kernels.linear_cross_entropy(
        hidden.flatten(0, 1), model.decoder.weight, y.t().flatten(), linear_bias=model.decoder.bias, backend=backend
    )


def spy_inputs(model: LanguageModel) -> list[tuple[Tensor, Any]]:
    """(what a layer reads, its W_h during the pass) of every later call, in order."""
    seen: list[tuple[Tensor, Any]] = []
    for layer in model.layers:
        layer.register_forward_pre_hook(
            lambda m, args: seen.append((args[0].detach().clone(), getattr(m, "weight_hh_l0", None)))
        )
    return seen


@pytest.mark.parametrize("tie, d", [(True, 0), (True, 4), (False, 0), (False, 4)])
@pytest.mark.parametrize("cell", CELLS)
def test_backends_agree_on_loss_and_every_gradient(cell: str, tie: bool, d: int) -> None:
    models = {b: build(backend=b, cell=cell, tie=tie, embedding_size=d, layers=2) for b in ("eager", "torch")}
    models["torch"].load_state_dict(models["eager"].state_dict())
    x, y = tokens(), tokens(seed=3)
    reset = torch.zeros(K, N, dtype=torch.bool)
    reset[1, 4] = reset[2, 0] = True
    losses, gradients = {}, {}
    for backend, model in models.items():
        loss = loss_of(model, x, y, some_state(model), reset, backend)
        loss.backward()
        losses[backend] = loss.detach()
        gradients[backend] = {name: p.grad for name, p in model.named_parameters()}
    torch.testing.assert_close(losses["torch"], losses["eager"], rtol=1e-12, atol=1e-12)
    assert all(g is not None and g.abs().sum() > 0 for g in gradients["eager"].values())
    for name, gradient in gradients["eager"].items():
        torch.testing.assert_close(gradients["torch"][name], gradient, rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.parametrize("cell", [c for c in CELLS if c not in ("rnn-sigmoid", "mingru")])
def test_hidden_states_are_those_of_torch_nn(cell: str) -> None:
    model = build(cell=cell, tie=True, embedding_size=4, layers=2)
    kind: Any = {"lstm": nn.LSTM, "gru": nn.GRU}.get(cell)
    peers = []
    for layer, size in zip(model.layers, (4, H), strict=True):
        peer = kind(size, H) if kind else nn.RNN(size, H, nonlinearity=cell.removeprefix("rnn-"))
        peer.double().load_state_dict(layer.state_dict())
        peers.append(peer)
    x, state = tokens(), some_state(model)
    hidden, after = model(x, state)
    z = F.embedding(x.t(), model.embedding.weight)
    for peer, before, last in zip(peers, state, after, strict=True):
        z, expected = peer(z, before)
        torch.testing.assert_close(last, expected)
    assert model.projection is not None
    torch.testing.assert_close(hidden, z @ model.projection.weight.T)
    torch.testing.assert_close(model.logits(hidden), hidden @ model.embedding.weight.T + model.decoder.bias)


def test_sigmoid_cell_follows_the_lectures_formula() -> None:
    model = build(cell="rnn-sigmoid", tie=False)
    layer = model.layers[0]
    x = tokens()
    h = torch.zeros(K, H, dtype=torch.double)
    outputs = []
    for t in range(N):
        e = model.embedding.weight[x[:, t]]
        h = 1 / (1 + torch.exp(-(e @ layer.weight_ih_l0.T + layer.bias_ih_l0 + h @ layer.weight_hh_l0.T + layer.bias_hh_l0)))
        outputs.append(h)
    torch.testing.assert_close(model(x, model.zero_state(K))[0], torch.stack(outputs))


# -- tying ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [0, 4, 9])
@pytest.mark.parametrize("cell", CELLS)
def test_a_tied_decoder_shares_storage_and_gets_both_gradients(cell: str, d: int) -> None:
    tied = build(cell=cell, tie=True, embedding_size=d)
    assert tied.decoder.weight is tied.embedding.weight
    assert (tied.projection is None) == (d == 0)
    assert sum(p is tied.embedding.weight for p in tied.parameters()) == 1
    x, y = tokens(), tokens(seed=3)
    loss_of(tied, x, y, tied.zero_state(K), None, "eager").backward()
    # The same function of two separate copies: their gradients must add up to the shared one's.
    e = tied.embedding.weight.detach().clone().requires_grad_()
    u = tied.embedding.weight.detach().clone().requires_grad_()
    z = F.embedding(x.t(), e)
    z, _ = tied.layers[0](z, None)
    z = z if tied.projection is None else tied.projection(z)
    F.cross_entropy((z @ u.T + tied.decoder.bias).flatten(0, 1), y.t().flatten()).backward()
    assert e.grad is not None
    assert u.grad is not None
    assert e.grad.abs().sum() > 0
    torch.testing.assert_close(tied.embedding.weight.grad, e.grad + u.grad)


@pytest.mark.parametrize("d", [0, 4])
def test_an_untied_decoder_reads_the_hidden_state_itself(d: int) -> None:
    model = build(tie=False, embedding_size=d)
    assert model.decoder.weight.shape == (V, H)
    assert model.embedding.weight.shape == (V, d or H)
    assert model.decoder.weight.data_ptr() != model.embedding.weight.data_ptr()
    assert model.projection is None


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("d", [0, 4])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("cell", CELLS)
def test_the_table_of_parameters_counts_the_model(cell: str, layers: int, d: int, tie: bool) -> None:
    model = build(cell=cell, layers=layers, embedding_size=d, tie=tie)
    table = parameter_table(V, model.config, tie)
    assert sum(count for _, count in table.values()) == sum(p.numel() for p in model.parameters())


# -- initialisation -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("cell", CELLS)
def test_init_width_bounds_every_parameter(cell: str, tie: bool) -> None:
    model = build(100, cell=cell, tie=tie, embedding_size=20, hidden_size=30, layers=2, init_width=0.02)
    for name, parameter in model.named_parameters():
        assert parameter.abs().max() <= 0.02, name
        assert parameter.max() > 0.01, name
        assert parameter.min() < -0.01, name


def test_embedding_and_decoder_start_within_a_tenth() -> None:
    model = build(500, tie=False, hidden_size=30)
    for weight in (model.embedding.weight, model.decoder.weight):
        assert 0.099 < weight.abs().max() <= 0.1
    assert model.decoder.bias.abs().max() == 0


def test_the_forget_bias_lands_in_the_forget_gate_only() -> None:
    low, high = (dict(build(cell="lstm", layers=2, forget_bias=b).named_parameters()) for b in (0.0, 1.5))
    for name, parameter in high.items():
        changed = (parameter != low[name]).nonzero().flatten().tolist() if parameter.dim() == 1 else []
        if name in ("layers.0.bias_ih_l0", "layers.1.bias_ih_l0"):
            assert changed == list(range(H, 2 * H)), "torch's gate order is i f g o"
        else:
            torch.testing.assert_close(parameter, low[name])
    for name in ("layers.0.bias_ih_l0", "layers.1.bias_ih_l0"):
        torch.testing.assert_close((high[name] - low[name])[H : 2 * H], torch.full((H,), 1.5).double())


def test_without_a_forget_bias_an_lstm_begins_as_torch_s_own() -> None:
    model = build(cell="lstm")
    for parameter in (model.layers[0].bias_ih_l0, model.layers[0].bias_hh_l0):
        forget = parameter[H : 2 * H]
        assert 0 < forget.abs().max() <= H**-0.5


def test_the_forget_bias_holds_with_an_init_width_and_leaves_other_cells_alone() -> None:
    layer = build(cell="lstm", init_width=0.01, forget_bias=1.0).layers[0]
    assert (layer.bias_ih_l0[H : 2 * H] - 1).abs().max() <= 0.01
    for cell in ("gru", "rnn-tanh"):
        for a, b in zip(build(cell=cell).parameters(), build(cell=cell, forget_bias=3.0).parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_the_seed_decides_the_weights() -> None:
    for a, b in zip(build().parameters(), build().parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(build().embedding.weight, build(seed=1).embedding.weight)


# -- regularisers ---------------------------------------------------------------------------------------------------


def masks(model: LanguageModel) -> list[Tensor]:
    """Where each layer's input and the output were dropped: [n, k, units], by comparison with the same pass undropped."""
    for layer in model.layers:  # makes each output independent of the dropped input
        nn.init.zeros_(layer.weight_ih_l0)
    seen = spy_inputs(model)
    x = tokens()
    model.eval()
    kept = model(x, model.zero_state(K))[0]
    kept_inputs = [z for z, _ in seen]
    seen.clear()
    model.train()
    dropped = model(x, model.zero_state(K))[0]
    pairs = [*zip([z for z, _ in seen], kept_inputs, strict=True), (dropped, kept)]
    ratios = [a / b for a, b in pairs]
    for ratio in ratios:
        near = ((ratio - 2).abs() < 1e-9) | (ratio == 0)
        assert near.all(), "kept units are scaled by 1 / (1 - p), the others are zero"
    return ratios


@pytest.mark.parametrize("backend", ["eager", "torch"])
def test_locked_dropout_uses_one_mask_over_time_and_another_for_each_row(backend: str) -> None:
    drawn_masks = masks(build(backend=backend, dropout=0.5, locked=True, layers=2, tie=False, hidden_size=32))
    assert len(drawn_masks) == 3, "the input of both layers and what the decoder reads"
    for mask in drawn_masks:
        assert all(torch.equal(mask[t] > 0, mask[0] > 0) for t in range(N))
        assert 0.3 < (mask[0] > 0).double().mean() < 0.7
        assert not torch.equal(mask[0, 0] > 0, mask[0, 1] > 0)
        assert not torch.equal(mask[0, 1] > 0, mask[0, 2] > 0)


def test_plain_dropout_uses_a_new_mask_each_step() -> None:
    for mask in masks(build(dropout=0.5, locked=False, layers=2, tie=False, hidden_size=32)):
        assert not any(torch.equal(mask[t] > 0, mask[0] > 0) for t in range(1, N))
        assert 0.4 < (mask > 0).double().mean() < 0.6


def test_locked_masks_are_drawn_anew_for_each_pass() -> None:
    model = build(dropout=0.5, hidden_size=32).train()
    first, second = (model(tokens(), model.zero_state(K))[0] == 0 for _ in range(2))
    assert not torch.equal(first, second)


def test_embedding_dropout_drops_whole_types() -> None:
    model = build(embedding_dropout=0.5).train()
    before = model.embedding.weight.detach().clone()
    seen = spy_inputs(model)
    x = torch.arange(V).repeat(K, 2)  # each type twice in every row
    model(x, model.zero_state(K))
    ratio = seen[0][0] / before[x.t()]
    fates = []
    for token in range(V):
        factor = ratio[(x == token).t()]
        assert torch.allclose(factor, factor[0, 0], atol=1e-9), "one fate for all units and all occurrences of a type"
        fates.append(round(factor[0, 0].item(), 6))
    assert set(fates) == {0.0, 2.0}
    assert torch.equal(model.embedding.weight, before)
    again = spy_inputs(model)
    model(x, model.zero_state(K))
    assert not torch.equal(again[0][0], seen[0][0]), "a new draw for each batch"


@pytest.mark.parametrize("backend", ["eager", "torch"])
@pytest.mark.parametrize("cell", [c for c in CELLS if c != "mingru"])
def test_weight_drop_masks_the_recurrence_and_its_gradient_and_spares_the_parameter(cell: str, backend: str) -> None:
    model = build(cell=cell, backend=backend, weight_drop=0.4, layers=2, hidden_size=8).train()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    objects = {name: id(p) for name, p in model.named_parameters()}
    seen = spy_inputs(model)
    x, y, state = tokens(), tokens(seed=3), some_state(model)
    loss = loss_of(model, x, y, state, None, "eager")
    loss.backward()
    used = [w.detach() for _, w in seen]
    model(x, state)
    assert not torch.equal(seen[2][1] != 0, used[0] != 0), "a new mask for each batch"
    assert {name: id(p) for name, p in model.named_parameters()} == objects
    plain = build(cell=cell, backend=backend, layers=2, hidden_size=8).train()
    plain.load_state_dict(model.state_dict())
    for number, (layer, w) in enumerate(zip(model.layers, used, strict=True)):
        whole = before[f"layers.{number}.weight_hh_l0"]
        assert torch.equal(layer.weight_hh_l0, whole), "the parameter keeps its values"
        kept = w != 0
        assert 0.4 < kept.double().mean() < 0.8
        torch.testing.assert_close(w[kept], whole[kept] / 0.6)
        gradient = layer.weight_hh_l0.grad
        assert not gradient[~kept].any(), "the gradient is masked as the weight"
        assert cell == "rnn-relu" or gradient[kept].all(), "only a dead unit of a relu may get none"
        plain.layers[number].weight_hh_l0.data.copy_(w)
    assert not torch.equal(used[0] != 0, used[1] != 0), "each layer has its own mask"
    expected = loss_of(plain, x, y, state, None, "eager")
    expected.backward()
    torch.testing.assert_close(loss, expected)
    for number, w in enumerate(used):
        expected_grad = plain.layers[number].weight_hh_l0.grad * (w != 0) / 0.6
        torch.testing.assert_close(model.layers[number].weight_hh_l0.grad, expected_grad)


def test_weight_drop_is_refused_where_there_is_no_recurrent_weight() -> None:
    with pytest.raises(InputError, match="--weight-drop"):
        ModelConfig(cell="mingru", weight_drop=0.1)
    assert ModelConfig(cell="mingru", dropout=0.5, embedding_dropout=0.1).weight_drop == 0


def test_evaluation_uses_no_regulariser_and_is_deterministic() -> None:
    noisy = build(dropout=0.5, embedding_dropout=0.3, weight_drop=0.3, layers=2)
    plain = build(layers=2)
    plain.load_state_dict(noisy.state_dict())
    x = tokens()
    first, second = (noisy.eval()(x, noisy.zero_state(K))[0] for _ in range(2))
    assert torch.equal(first, second)
    torch.testing.assert_close(first, plain(x, plain.zero_state(K))[0], rtol=0, atol=0)
    assert not torch.equal(first, noisy.train()(x, noisy.zero_state(K))[0])


# -- state ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["eager", "torch"])
@pytest.mark.parametrize("cell", CELLS)
def test_two_passes_with_carried_state_equal_one_long_pass(cell: str, backend: str) -> None:
    model = build(cell=cell, backend=backend, layers=2)
    x = tokens(n=10)
    whole, last = model(x, model.zero_state(K))
    first, state = model(x[:, :4], model.zero_state(K))
    second, after = model(x[:, 4:], detach(state))
    torch.testing.assert_close(torch.cat([first, second]), whole)
    for a, b in zip(flatten(after), flatten(last), strict=True):
        torch.testing.assert_close(a, b)
    assert not torch.allclose(model(x[:, 4:], model.zero_state(K))[0], second), "the state matters"


@pytest.mark.parametrize("backend", ["eager", "torch"])
@pytest.mark.parametrize("cell", CELLS)
def test_a_reset_forgets_one_row_before_the_marked_token(cell: str, backend: str) -> None:
    model = build(cell=cell, backend=backend, layers=2)
    x, state = tokens(), some_state(model)
    reset = torch.zeros(K, N, dtype=torch.bool)
    reset[1, 3] = True
    hidden, _ = model(x, state, reset)
    plain, _ = model(x, state)
    torch.testing.assert_close(hidden[:, [0, 2]], plain[:, [0, 2]])
    torch.testing.assert_close(hidden[:3, 1], plain[:3, 1])
    fresh, _ = model(x[1:2, 3:], model.zero_state(1))
    torch.testing.assert_close(hidden[3:, 1:2], fresh)


@pytest.mark.parametrize("cell", CELLS)
def test_states_survive_flattening_and_detaching(cell: str) -> None:
    model = build(cell=cell, layers=3)
    _, state = model(tokens(), model.zero_state(K))
    flat = flatten(state)
    assert len(flat) == (6 if cell == "lstm" else 3)
    again = unflatten(flat, pairs=cell == "lstm")
    assert all(a is b for a, b in zip(flatten(again), flat, strict=True))
    for a, b in zip(flatten(detach(state)), flat, strict=True):
        assert b.requires_grad
        assert not a.requires_grad
        assert torch.equal(a, b)


def test_the_zero_state_is_zero() -> None:
    for t in flatten(build(cell="lstm", layers=2).zero_state(5)):
        assert t.shape == (1, 5, H)
        assert not t.any()


def test_the_decoders_bias_begins_at_the_log_frequencies() -> None:
    model = LanguageModel(4, ModelConfig(hidden_size=3))
    model.know_frequencies(torch.tensor([5, 0, 2, 1]))
    assert torch.allclose(model.decoder.bias.exp(), torch.tensor([6.0, 1, 3, 2]) / 12)


@pytest.mark.parametrize("how, known", [({}, True), ({"frequency_bias": False}, False), ({"init_width": 0.1}, False)], ids=str)
def test_a_training_begins_with_the_frequencies_unless_told_otherwise(
    tmp_path: Path, corpus: Path, make_config: Any, how: dict[str, Any], known: bool
) -> None:
    from recurrent_lm.lm.training.start import new_training

    training = new_training(make_config(corpus, **how), tmp_path / "run")
    counts = torch.bincount(torch.from_numpy(training.data.train.ids).long(), minlength=training.model.vocabulary) + 1.0
    assert torch.allclose(training.model.decoder.bias, (counts / counts.sum()).log(), atol=1e-5) == known
