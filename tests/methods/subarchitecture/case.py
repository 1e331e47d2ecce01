"""What the contract of methods is checked on."""

from cutback.testing import MethodCase
from tests.helpers import chain, residual


def narrow():
    return chain((6, 8))


CASES = {
    "budget": MethodCase(narrow, steps=5, settings={"steps": 5, "cycles": 2}),
    "penalty": MethodCase(
        residual, budget=None, steps=4, settings={"steps": 4, "cycles": 2, "strength": 1.0, "rate": 2.0, "floor": 0.3}
    ),
}
