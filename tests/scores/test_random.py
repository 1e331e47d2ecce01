"""Chance against plain draws."""

import torch

import cutback
from cutback.scores import Random
from tests.helpers import image, residual
from tests.scores.networks import assert_equal, numbers, rated


def test_random_draws_group_by_group():
    generator = torch.Generator().manual_seed(0)
    expected = {group.name: numbers(torch.rand(group.units, generator=generator)) for group in groups(residual())}
    assert_equal(rated(residual(), "random"), expected)


def test_random_is_seeded_and_leaves_the_global_state_alone():
    model = residual()
    before = torch.get_rng_state()
    first, again, other = (numbers(rated(model, Random(seed))["stem"]) for seed in (3, 3, 4))
    assert first == again != other
    assert torch.equal(torch.get_rng_state(), before)


def groups(model):
    return cutback.trace(model, image()).groups
