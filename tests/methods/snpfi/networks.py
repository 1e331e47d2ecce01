"""Networks with known interactions, and what coalitions are worth by plain loops."""

import itertools
import math

import numpy as np
import torch
from torch import nn

PICTURES = torch.ones(4, 2, 1, 1)
LABELS = torch.zeros(4, dtype=torch.int64)
A, B, C, D, E, F = range(6)


def planted() -> nn.Sequential:
    """Six filters that each put out 1: ``a`` and ``b`` need each other, ``c`` and ``d`` replace each other.

    The logit of the first class is ``4 relu(a + b - 1) + 3 (c + d - relu(c + d - 1)) + 1.8 e - 1``, the other's is 0.
    The filters' own weights are rescaled so that the smallest norms are those of ``a`` and ``b``.
    """
    model = nn.Sequential(
        nn.Conv2d(2, 6, 1, bias=False), nn.ReLU(), nn.Conv2d(6, 4, 1), nn.ReLU(), nn.Flatten(), nn.Linear(4, 2)
    )
    first = torch.tensor([[0.5, 0.5], [0.5, 0.5], [2.0, -1.0], [2.0, -1.0], [1.5, -0.5], [3.0, -2.0]])
    inner = torch.zeros(4, 6)
    inner[0, [A, B]] = inner[1, [C, D]] = inner[2, [C, D]] = 1.0
    inner[3, E] = 1.0
    with torch.no_grad():
        model[0].weight.copy_(first[:, :, None, None])
        model[2].weight.copy_(inner[:, :, None, None])
        model[2].bias.copy_(torch.tensor([-1.0, 0.0, -1.0, 0.0]))
        model[5].weight.copy_(torch.tensor([[4.0, 3.0, -3.0, 1.8], [0.0, 0.0, 0.0, 0.0]]))
        model[5].bias.copy_(torch.tensor([-1.0, 0.0]))
    return model


def planted_worth(coalition: tuple[int, ...]) -> float:
    """Return the log-odds of the first class by the formula."""
    a, b, c, d, e, _ = (float(unit in coalition) for unit in range(6))
    return 4 * max(a + b - 1, 0) + 3 * (c + d - max(c + d - 1, 0)) + 1.8 * e - 1


def subsets(items):
    """Yield all subsets as tuples."""
    for size in range(len(items) + 1):
        yield from itertools.combinations(items, size)


def exact_importance(worth, units: int, *, signed: bool = False) -> list[float]:
    """Return for each unit the mean (magnitude of the) change that it makes, over all orders."""
    found = []
    for unit in range(units):
        total = 0.0
        for context in subsets([other for other in range(units) if other != unit]):
            share = math.factorial(len(context)) * math.factorial(units - len(context) - 1) / math.factorial(units)
            change = worth(tuple(sorted((*context, unit)))) - worth(context)
            total += share * (change if signed else abs(change))
        found.append(total)
    return found


def exact_interaction(worth, units: int, i: int, j: int, order: int) -> float:
    """Return the mean of ``V(S + i + j) - V(S + i) - V(S + j) + V(S)`` over all contexts of one size."""
    others = [unit for unit in range(units) if unit not in (i, j)]
    found = []
    for context in itertools.combinations(others, order):

        def of(*more: int, context=context) -> float:
            return worth(tuple(sorted((*context, *more))))

        found.append(of(i, j) - of(i) - of(j) + of())
    return sum(found) / len(found)


class Table:
    """A game whose coalitions are looked up."""

    def __init__(self, worth, units: int) -> None:
        self.units, self._worth = units, worth

    def of(self, coalitions):
        return np.array([self._worth(tuple(np.flatnonzero(row).tolist())) for row in coalitions])
