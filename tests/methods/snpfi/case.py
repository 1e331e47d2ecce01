"""Small cases of ``snpfi``: a budget on a chain, and the inside of a residual block."""

from cutback.testing import MethodCase
from tests.helpers import chain, residual


def narrow():
    return chain((6, 5))


QUICK = {"images": 8, "triples": 4}

CASES = {
    "chain": MethodCase(narrow, steps=2, settings={**QUICK, "block": 2}),
    "residual": MethodCase(
        residual, budget="macs=60%", steps=2, settings={**QUICK, "block": 4, "worth": "log-odds", "recover": False}
    ),
}
