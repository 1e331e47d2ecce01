"""What the contract of methods is checked on: a chain, a residual network whole, and depthwise layers."""

from torch import nn

from cutback.testing import MethodCase
from tests.helpers import chain
from tests.methods.resrep.networks import Basic, Separable, made


def narrow() -> nn.Module:
    return chain((6, 8))


def basic() -> nn.Module:
    return made(Basic)


def separable() -> nn.Module:
    return made(Separable)


FAST = {"interval": 1, "before_masks": 1, "strength": 1.0}
"""Rows are reset from the second step on; they cannot fall to nothing in so few, and go for the budget."""

CASES = {
    "chain": MethodCase(narrow, steps=6, settings={"steps": 5, "added": 3, **FAST}),
    "coupled": MethodCase(basic, steps=6, settings={"steps": 6, "added": 8, "coupled": True, **FAST}),
    "depthwise": MethodCase(separable, budget="params=60%", steps=6, settings={"steps": 6, "added": 6, **FAST}),
}
