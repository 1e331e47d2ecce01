"""The paper's claims on digits, one seed and few epochs; the whole of it is ``benchmarks/l1_acceptance.py``."""

import pytest

import cutback
from benchmarks.digits_protocol import trained
from benchmarks.l1_acceptance import (
    LEAST_OVER_LARGEST,
    LEAST_OVER_RANDOM,
    RATIOS,
    Ordering,
    Recovery,
    bounds,
    curve,
    ordering,
    page,
    recovery,
)
from cutback import scores


@pytest.mark.slow
def test_small_filters_go_best_l2_is_no_different_and_training_recovers():
    model, data = trained(0, 8, decay=2e-3)
    graph = cutback.trace(model, data.pictures[:2])
    order = ordering(graph, data, draws=2)
    norms = order.smallest, curve(graph, data, scores.L2())
    reached = bounds([order], [recovery(graph, data, 0)], [norms])
    # Chance and the largest come apart later in training than this; both come after the smallest from early on.
    early = {bound: met for bound, met in reached.items() if "random over largest" not in bound}
    assert len(early) == 7
    assert all(early.values()), early
    least = LEAST_OVER_RANDOM + LEAST_OVER_LARGEST
    assert all(order.smallest[ratio] - order.largest[ratio] >= least for ratio in RATIOS)


def test_the_page_says_which_bounds_are_met():
    good = Ordering(dict.fromkeys(RATIOS, 80.0), dict.fromkeys(RATIOS, 70.0), dict.fromkeys(RATIOS, 50.0))
    reversed_ = Ordering(good.largest, good.random, good.smallest)
    recovered, norms = Recovery(98.0, 15.0, 97.0), (good.smallest, good.random)
    text, met = page([good], [recovered], [(good.smallest, good.smallest)], 1.0)
    assert met
    assert "MISSED" not in text
    for orders, seed, pair, missed in (
        (reversed_, recovered, (good.smallest, good.smallest), 6),
        (good, Recovery(98.0, 15.0, 95.9), (good.smallest, good.smallest), 1),
        (good, recovered, norms, 3),
    ):
        text, met = page([orders], [seed], [pair], 1.0)
        assert not met
        assert text.count("MISSED") == missed
