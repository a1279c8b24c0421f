"""The three tasks: where markers stand, what is asked, what counts as right."""

import pytest
import torch

from recurrent_lm.studies.long_range.tasks import COPIED, TASKS


def generated(name, steps, count=4000, seed=0):
    x, target = TASKS[name].generate(torch.Generator().manual_seed(seed), steps, count)
    assert x.shape == (TASKS[name].length(steps), count, TASKS[name].channels) and x.dtype == torch.float32
    assert (x[..., -1] == 1).all()
    return x, target


@pytest.mark.parametrize("steps", [10, 30, 57])
def test_temporal_order_has_a_marker_in_the_second_tenth_and_one_after_the_middle(steps):
    x, target = generated("temporal_order", steps)
    symbols = x[..., :-1].argmax(dim=-1)
    assert (x[..., :-1].sum(dim=-1) == 1).all()
    marks = symbols < 2
    assert (marks.sum(dim=0) == 2).all()
    places = marks.t().nonzero()[:, 1].view(-1, 2)  # two a sequence, in order
    tenth = steps // 10
    assert set(places[:, 0].tolist()) == set(range(tenth, 2 * tenth))
    assert set(places[:, 1].tolist()) == set(range(steps // 2, steps // 2 + tenth))
    first, second = (symbols.t().gather(1, places[:, k : k + 1])[:, 0] for k in (0, 1))
    assert torch.equal(target[0], first + 2 * second)
    assert (target.bincount() if target.dim() == 1 else target[0].bincount()).min() > 900  # of 4,000, four classes
    assert {2, 3, 4, 5} <= set(symbols[0].tolist()) <= {2, 3, 4, 5}


@pytest.mark.parametrize("steps", [10, 41])
def test_adding_asks_for_the_mean_of_the_two_marked_values(steps):
    x, target = generated("adding", steps)
    values, marks = x[..., 0], x[..., 1]
    assert (marks.sum(dim=0) == 2).all() and set(marks.unique().tolist()) == {0, 1}
    torch.testing.assert_close(target[0], (values * marks).sum(dim=0) / 2)
    assert (marks[: steps // 10].sum(dim=0) == 1).all() and (marks[steps // 2 :] == 0).all()
    assert 0 <= values.min() < 0.01 and 0.99 < values.max() <= 1


@pytest.mark.parametrize("steps", [10, 25])
def test_copy_asks_for_each_symbol_as_many_steps_after_it(steps):
    x, target = generated("copy", steps)
    symbols = x[..., :-1].argmax(dim=-1)
    assert torch.equal(symbols[:COPIED], target)
    assert len(symbols) - COPIED == steps  # asked at the last steps, so symbol s at s + T
    assert (symbols[COPIED:steps] == 4).all() and (symbols[steps] == 5).all() and (symbols[steps + 1 :] == 4).all()
    assert target.unique().tolist() == [0, 1, 2, 3]


def test_a_seed_gives_the_same_sequences_and_another_others():
    for name in TASKS:
        assert torch.equal(generated(name, 20)[0], generated(name, 20)[0])
        assert not torch.equal(generated(name, 20)[0], generated(name, 20, seed=1)[0])


def test_a_sequence_is_wrong_if_one_answer_is_or_is_no_number():
    task = TASKS["copy"]
    target = torch.tensor([[[0, 1, 2, 3]], [[3, 2, 1, 0]]])  # [S, R, B]
    y = torch.nn.functional.one_hot(target, 4).float()
    assert task.wrong(y, target).tolist() == [[False] * 4]
    y[1, 0, 2] = torch.tensor([9.0, 0, 0, 0])
    y[0, 0, 3, 0] = float("nan")
    assert task.wrong(y, target).tolist() == [[False, False, True, True]]


def test_a_value_is_right_within_four_hundredths():
    y = torch.tensor([0.5, 0.539, 0.541, 0.459, float("nan")])[None, None, :, None]
    assert TASKS["adding"].wrong(y, torch.full((1, 1, 5), 0.5)).tolist() == [[False, False, True, True, True]]
