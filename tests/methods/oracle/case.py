"""Small cases of ``oracle``: all units rated once, and greedily."""

from cutback.testing import MethodCase
from tests.helpers import chain
from tests.scores.networks import projected


def narrow():
    return chain((6, 5))


CASES = {
    "once": MethodCase(projected, budget="macs=60%", steps=2),
    "greedy": MethodCase(narrow, budget="macs=70%", steps=2, settings={"greedy": True}),
}
