"""What Network Slimming promises, on handwritten digits; ``benchmarks/slimming_acceptance.py`` has more seeds."""

import warnings
from functools import cache

import pytest

from benchmarks.digits_protocol import accuracy
from benchmarks.slimming_acceptance import Outcome, sparsely_trained, widths


@cache
def sparse() -> Outcome:
    """Trained with a penalty that pulls by 3.3, the order of the published runs scaled to a short one."""
    return sparsely_trained(seed=0, strength=0.03)


@cache
def plain() -> Outcome:
    return sparsely_trained(seed=0, strength=0.0, epochs=4)


@pytest.mark.slow
def test_scales_fall_into_two_heaps_under_the_penalty_alone() -> None:
    found = sparse()
    assert found.pulled == pytest.approx(3.3, rel=0.01)
    assert found.share(0, 0.01) >= 0.5
    assert found.share(0.01, 0.05) <= 0.1
    assert found.scales.max() > 0.5
    assert plain().share(0, 0.05) == 0


@pytest.mark.slow
def test_the_lower_heap_is_free_to_go_and_nothing_else_is() -> None:
    found = sparse()
    assert found.dense - accuracy(found.slimmed(0.5), found.data) <= 2
    assert found.dense - accuracy(found.at_random(0.5, seed=0), found.data) >= 70
    assert found.dense - accuracy(found.slimmed(0.7), found.data) > 20, "the knee: more than the lower heap"
    other = plain()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert other.dense - accuracy(other.slimmed(0.5), other.data) >= 50, "without the penalty nothing is free"


@pytest.mark.slow
def test_without_the_penalty_a_threshold_would_empty_layers_and_the_guard_says_so() -> None:
    with pytest.warns(UserWarning, match="the layer would be empty, and keeps its best channels"):
        cut = plain().slimmed(0.7, rule="strict")
    assert min(widths(cut)) == 1
    assert cut(plain().data.test_pictures).isfinite().all()
