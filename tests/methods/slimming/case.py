"""Small cases of ``slimming``: one pass, one that masks first, and a network with channel selections."""

from cutback.testing import MethodCase
from tests.methods.slimming.networks import block, chained

CASES = {
    "one pass": MethodCase(chained, steps=5, settings={"steps": 4, "sparsity": 0.01}),
    "masked": MethodCase(
        chained, budget="params=60%", steps=6, settings={"steps": 2, "masked_steps": 2, "schedule": "rising"}
    ),
    "selections": MethodCase(block, budget="params=60%", steps=4, settings={"steps": 2, "initial_scale": 0.5}),
}
