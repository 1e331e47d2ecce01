"""The comparison with the oracle's own parts, and its central claim at a smaller scale."""

import pytest

from benchmarks.correlation import AVERAGED, CONTROLS, SCORES, correlations, page


def test_taylor_foretells_the_oracle_and_chance_does_not() -> None:
    found = correlations(0, epochs=3, batches=5, names=("taylor", AVERAGED, "random"))
    assert min(found["taylor"]) >= 0.8
    assert found[AVERAGED][0] < found["taylor"][0]
    assert abs(found["random"][0]) < 0.35


@pytest.mark.parametrize(("name", "value"), [("taylor", 0.85), (AVERAGED, 0.9), *((name, -0.4) for name in CONTROLS)])
def test_the_page_says_which_bounds_are_met(name, value) -> None:
    good = {**dict.fromkeys(SCORES, (0.95, 0.95)), AVERAGED: (0.6, 0.6), **dict.fromkeys(CONTROLS, (0.1, 0.1))}
    text, met = page([good, good])
    assert met
    assert "MISSED" not in text
    text, met = page([good, {**good, name: (value, value)}])
    assert not met
    assert text.count("MISSED") == 1
