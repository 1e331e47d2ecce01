"""Small cases of ``l1``: one cut, and filter by filter in a few rounds."""

from cutback.testing import MethodCase
from tests.scores.networks import projected

CASES = {
    "one-shot": MethodCase(projected, budget="macs=60%", steps=4),
    "filters": MethodCase(
        projected, budget="macs=60%", steps=4, settings={"schedule": "filters", "rounds": 3, "steps": 4}
    ),
}
