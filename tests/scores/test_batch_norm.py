"""Scales of norms against plain loops."""

import pytest
import torch
from torch import nn

from cutback.errors import InvalidScore
from cutback.scores import L1, NormScale
from tests.helpers import randomised, residual
from tests.scores.networks import NETWORKS, assert_equal, numbers, projected, rated

NORMS = {
    "residual": {"stem": ["stem_norm"], "inner": ["inner_norm"]},
    "projected": {
        "stem": ["stem_norm"],
        "inner": ["inner_norm"],
        "outer": ["outer_norm", "projection_norm", "second_norm"],
    },
    "flattened": {"0": ["1"]},
    "grouped": {"0": ["1"], "3": ["4"], "6": ["7"]},
}


def negated(model):
    """Some scales of trained networks are negative."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight[::2] *= -1
    return model


@pytest.mark.parametrize("network", NETWORKS)
def test_bn_scale_equals_its_loop(network):
    model = negated(NETWORKS[network]())
    expected = {}
    for group, norms in NORMS[network].items():
        scales = [numbers(model.get_submodule(path).weight) for path in norms]
        expected[group] = [sum(abs(scale[unit]) for scale in scales) for unit in range(len(scales[0]))]
    assert_equal(rated(model, "bn-scale"), expected)


def test_the_leader_is_the_norm_of_the_projection():
    model = negated(projected())
    found = rated(model, NormScale(aggregate="leader"))
    assert numbers(found["outer"]) == [abs(scale) for scale in numbers(model.projection_norm.weight)]


def test_scales_of_group_norms_count_and_shifts_do_not():
    model = randomised(nn.Sequential(nn.Conv2d(3, 6, 3), nn.GroupNorm(2, 6), nn.ReLU(), nn.Conv2d(6, 2, 1)))
    assert_equal(rated(model, "bn-scale"), {"0": [abs(scale) for scale in numbers(model[1].weight)]})


def test_a_norm_in_functional_form_counts():
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 2, 1)
            self.shift, self.gain = nn.Parameter(torch.zeros(6)), nn.Parameter(torch.zeros(6))

        def forward(self, images):
            normed = nn.functional.batch_norm(self.first(images), None, None, self.gain, self.shift, training=True)
            return self.last(normed)

    model = randomised(Functional())
    assert_equal(rated(model, "bn-scale"), {"first": [abs(scale) for scale in numbers(model.gain)]})


def test_groups_without_a_norm_need_another_score():
    model = randomised(nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Conv2d(6, 5, 1), nn.Conv2d(5, 2, 1)))
    with pytest.raises(InvalidScore, match=r"no norm scales the channels of 2; say.*otherwise=cutback\.scores\.L1"):
        rated(model, "bn-scale")
    found = rated(model, NormScale(otherwise=L1()))
    assert torch.equal(found["2"], rated(model, "l1")["2"])
    assert numbers(found["0"]) == [abs(scale) for scale in numbers(model[1].weight)]


def test_a_slope_is_no_scale_of_a_norm():
    model = residual()
    assert_equal({"stem": rated(model, "bn-scale")["stem"]}, {"stem": numbers(model.stem_norm.weight)})
