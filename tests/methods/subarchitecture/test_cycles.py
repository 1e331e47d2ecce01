"""When cycles end, and how the penalty follows a budget."""

import math

import pytest

from cutback.methods.subarchitecture.cycles import Cycles, controlled


@pytest.mark.parametrize(
    ("steps", "count", "ends"),
    [(6, 3, [2, 4, 6]), (8, 3, [2, 4, 8]), (5, 5, [1, 2, 3, 4, 5]), (5, 1, [5]), (7, 4, [1, 2, 3, 7])],
)
def test_cycles_are_of_one_length_and_the_last_takes_what_is_left(steps, count, ends):
    cycles = Cycles(steps, count)
    assert [step for step in range(1, steps + 1) if cycles.ends_after(step)] == ends


def test_the_strength_rises_above_the_budget_and_falls_below_it():
    assert controlled(0.1, 1.0, 0.3) == pytest.approx(0.1 * math.exp(0.3))
    assert controlled(0.1, -0.5, 0.3) == pytest.approx(0.1 / math.exp(0.15))
    assert controlled(0.1, 0.0, 0.3) == 0.1
