"""What the contract of methods is checked on."""

from cutback.testing import MethodCase
from tests.methods.gradient_pruning.networks import branched, normed, pooled

CASES = {
    "norms": MethodCase(normed, budget=None, steps=4, settings={"steps": 4, "depth": 2}),
    "pools": MethodCase(pooled, budget=None, steps=5, settings={"steps": 3, "depth": 1, "ramp": 3, "calibrate": True}),
    "branches": MethodCase(
        branched, budget=None, steps=3, settings={"steps": 3, "depth": 0, "granularity": "channel", "log": False}
    ),
}
