"""Two channels that only one operator couples end in one unit, with exactly the slices written by hand."""

import pytest

from tests.graph.blocks import FAMILIES
from tests.graph.couplings import COUPLINGS
from tests.graph.pending import PENDING_COUPLINGS


@pytest.mark.parametrize("name", sorted(set(COUPLINGS) - set(PENDING_COUPLINGS)))
def test_a_planted_coupling_is_found_exactly(name: str) -> None:
    COUPLINGS[name].check()


@pytest.mark.parametrize("name", sorted(PENDING_COUPLINGS))
def test_a_pending_coupling_is_not_found_yet(name: str) -> None:
    graph = COUPLINGS[name].trace()
    assert PENDING_COUPLINGS[name] in " ".join(map(str, graph.boundaries))
    with pytest.raises(AssertionError):
        COUPLINGS[name].check()


def test_every_family_has_a_planted_coupling() -> None:
    assert {coupling.family for coupling in COUPLINGS.values()} - {""} == set(FAMILIES)
