"""The benchmark of recovery says which bound is met."""

import pytest

from benchmarks.recovery import CHAINS, Found, page


@pytest.mark.parametrize(("after", "met"), [(0.55, True), (0.54, False)])
def test_the_page_says_whether_the_bound_is_met(after: float, met: bool) -> None:
    good = Found(0, "macs=50%", 0.9, 0.2, dict.fromkeys(CHAINS, 0.9), dict.fromkeys(CHAINS, 1.0))
    other = Found(1, "macs=50%", 0.9, 0.2, {**good.recovered, "least-squares": after}, good.seconds)
    text, found = page([good, other])
    assert found == met
    assert ("MISSED" in text) != met
    assert "| 1 | macs=50% | 90.00% | 20.00% | 90.00% (100%, 1.0 s) |" in text
