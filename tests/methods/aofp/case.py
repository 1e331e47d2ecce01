"""Small cases of ``aofp``: to a budget, and without one for so many steps."""

from cutback.testing import MethodCase
from tests.helpers import chain, residual


def narrow():
    return chain((6, 8))


EAGER = {"threshold": 2.0, "half": 2, "warm_up": 1}

CASES = {
    "budget": MethodCase(narrow, budget="macs=60%", steps=9, settings={"threshold": 0.4, "half": 2, "warm_up": 1}),
    "widths": MethodCase(
        residual, budget=None, steps=6, settings={"steps": 5, "threshold": 2.0, "half": 2, "warm_up": 0}
    ),
}
