"""Small cases of ``taylor``: cut once by a budget, and cut after every second removal."""

from cutback.testing import MethodCase
from tests.scores.networks import projected

CASES = {
    "budget": MethodCase(projected, budget="macs=60%", settings={"units": 2, "minibatches": 1}),
    "cuts": MethodCase(
        projected,
        budget=None,
        steps=10,
        settings={"units": 2, "minibatches": 2, "removals": 3, "cut_every": 2, "score": "taylor-example"},
    ),
}
