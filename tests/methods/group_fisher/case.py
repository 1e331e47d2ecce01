"""What the contract of methods is checked on."""

from cutback.testing import MethodCase
from tests.helpers import chain, residual


def narrow():
    return chain((6, 8))


CASES = {
    "chain": MethodCase(narrow, steps=8, settings={"interval": 1, "cut_every": 3}),
    "residual": MethodCase(residual, steps=6, settings={"interval": 2, "removed": 3, "normalise": "macs"}),
}
