"""The oracle benchmark's own parts."""

import pytest
import torch

from benchmarks.oracle_speed import Comparison, compare, page
from tests.helpers import chain, image


def test_both_ways_give_the_same_losses_and_ours_fewer_macs():
    found = compare("chain", chain(), image(1, (8, 3, 8, 8)), torch.arange(8) % 4, 2)
    assert found.units == 4 + 6
    assert found.batch == 8
    assert found.difference < 1e-5
    # Per picture: convolutions of 27 and 72 weights a filter at 64 places, a head of 48 weights.
    first, second, head = 27 * 8 * 64, 72 * 12 * 64, 12 * 4
    assert found.macs[0] == 10 * (first + second + head)
    # Ours: what comes before a group once, what its channel brings to the next layer, and what comes after that. What
    # one number brings to the head is no matrix product.
    restarted = first + 2 * second + head + 4 * (second / 8 + head)
    assert found.macs[1] == restarted


@pytest.mark.parametrize(("ours", "met"), [(4.0, True), (6.0, False)])
def test_the_page_says_which_bounds_are_met(ours, met):
    text, found = page([Comparison("Net", 3, 8, (10.0, ours), (100, 40), 0.0)])
    assert found is met
    assert ("MISSED" in text) is not met
    assert "| 2.50 |" in text
