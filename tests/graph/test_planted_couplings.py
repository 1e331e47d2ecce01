"""Two channels that only one operator couples end in one unit, with exactly the slices written by hand."""

import pytest

from tests.graph.blocks import FAMILIES
from tests.graph.couplings import COUPLINGS


@pytest.mark.parametrize("name", sorted(COUPLINGS))
def test_a_planted_coupling_is_found_exactly(name: str) -> None:
    COUPLINGS[name].check()


def test_every_family_has_a_planted_coupling() -> None:
    assert {coupling.family for coupling in COUPLINGS.values()} - {""} == set(FAMILIES)
