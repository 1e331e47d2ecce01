"""The queue of thresholds: first in, first out, and nothing is pruned before it is full."""

import torch

from cutback.methods.gradient_pruning.thresholds import Thresholds


def run(queue, *values):
    return [None if (found := queue.next(torch.tensor(value))) is None else float(found) for value in values]


def test_the_mean_of_the_last_ones_is_used_once_there_are_enough():
    assert run(Thresholds(3), 1.0, 2.0, 6.0, 7.0, 3.0) == [None, None, None, 3.0, 5.0]


def test_the_one_before_and_the_own_one():
    assert run(Thresholds(1), 1.0, 2.0, 6.0) == [None, 1.0, 2.0]
    assert run(Thresholds(0), 1.0, 2.0, 6.0) == [1.0, 2.0, 6.0]


def test_what_overflows_or_vanishes_is_not_pruned_and_not_remembered():
    nan, inf = float("nan"), float("inf")
    assert run(Thresholds(1), 4.0, inf, nan, 0.0, 2.0, 1.0) == [None, None, None, None, 4.0, 2.0]
    assert run(Thresholds(0), inf, nan, 0.0) == [None, None, None]


def test_thresholds_of_channels_begin_anew_where_channels_were_cut():
    queue = Thresholds(1)
    assert queue.next(torch.ones(1, 4, 1, 1)) is None
    assert queue.next(torch.tensor([2.0, 0.0, 2.0, 2.0]).view(1, 4, 1, 1)).tolist() == torch.ones(1, 4, 1, 1).tolist()
    assert queue.next(torch.ones(1, 3, 1, 1)) is None
    assert queue.next(torch.ones(1, 3, 1, 1)) is not None


def test_its_state_is_a_copy():
    queue, other = Thresholds(2), Thresholds(2)
    run(queue, 1.0, 3.0)
    state = queue.state()
    other.load(state)
    run(queue, 7.0)
    assert run(other, 5.0) == [2.0]
    assert [float(own) for own in state] == [1.0, 3.0]
