"""Small cases of ``l1``: one cut by a budget, and cuts layer by layer and filter by filter."""

from cutback.testing import MethodCase
from tests.helpers import residual
from tests.scores.networks import projected

CASES = {
    "one-shot": MethodCase(projected, budget="macs=60%"),
    "layers": MethodCase(projected, budget="macs=60%", steps=4, settings={"schedule": "layers", "steps": 4}),
    "filters": MethodCase(
        residual, budget=None, steps=5, settings={"ratios": "inner=50%", "schedule": "filters", "steps": 5}
    ),
}
