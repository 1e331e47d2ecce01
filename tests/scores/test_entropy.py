"""The entropy of pooled features against plain loops."""

import math

import pytest

from cutback.errors import UserMistake
from cutback.scores import Entropy
from tests.scores.networks import NETWORKS, Batches, assert_equal, features, over_images, rated


def loop(maps, bins):
    pooled = [sum(values) / len(values) for values in maps]
    low, high = min(pooled), max(pooled)
    counts = [0] * bins
    for value in pooled:
        place = int((value - low) / (high - low) * bins) if high > low else 0
        counts[min(place, bins - 1)] += 1
    shares = [count / len(pooled) for count in counts if count]
    return -sum(share * math.log(share) for share in shares)


@pytest.mark.parametrize("bins", [2, 3, 32])
@pytest.mark.parametrize("network", NETWORKS)
def test_entropy_equals_its_loop(network, bins):
    model = NETWORKS[network]()
    expected = over_images(features(network, model, Batches().pictures), lambda maps: loop(maps, bins))
    assert_equal(rated(model, Entropy(Batches(), bins=bins)), expected)


def test_by_its_name_it_has_32_bins():
    model = NETWORKS["flattened"]()
    maps = features("flattened", model, Batches().pictures)
    assert_equal(rated(model, "entropy"), over_images(maps, lambda channel: loop(channel, 32)))


def test_a_loader_that_is_empty_the_second_time_is_named():
    with pytest.raises(UserMistake, match="a generator is empty the second time"):
        rated(NETWORKS["flattened"](), Entropy(batch for batch in Batches()))


def test_one_bin_tells_nothing():
    with pytest.raises(UserMistake, match="at least 2 bins, not 1"):
        Entropy(Batches(), bins=1)
