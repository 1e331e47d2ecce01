"""Small cases of ``functionality``: with retraining, and the inside of a residual block with weight transfer."""

from cutback.testing import MethodCase
from tests.helpers import chain, residual


def narrow():
    return chain((6, 5))


QUICK = {"ascent_steps": 3, "images": 8}

CASES = {
    "retrained": MethodCase(narrow, steps=4, settings={**QUICK, "steps": 3}),
    "transferred": MethodCase(
        residual, budget="macs=60%", steps=2, settings={**QUICK, "transfer": True, "ignore": "head"}
    ),
}
