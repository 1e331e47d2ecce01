"""Groups that only train mode runs, and channels that a buffer holds: they score zero, and nothing fails."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import cutback
from cutback.scores import about, make_score, scores
from cutback.scores.gradient import differentiated
from tests.helpers import image, randomised
from tests.scores.networks import Batches, rated

DATA = [name for name in sorted(scores) if "activations" in about(name).needs]
WEIGHTS = [name for name in sorted(scores) if {"weights", "gradients"} <= set(about(name).needs)]


class Auxiliary(nn.Module):
    """A head of its own in train mode."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 6, 3), nn.Linear(6, 4)
        self.side, self.side_head = nn.Conv2d(6, 5, 1), nn.Linear(5, 4)

    def forward(self, images):
        maps = torch.relu(self.stem(images))
        outputs = self.head(maps.mean((2, 3)))
        if self.training:
            outputs = outputs + self.side_head(torch.relu(self.side(maps)).mean((2, 3)))
        return outputs


@pytest.fixture(scope="module")
def graph():
    return cutback.trace(randomised(Auxiliary()), image())


@pytest.mark.parametrize("name", DATA)
def test_what_runs_in_train_mode_alone_scores_zero_in_eval_mode(name, graph):
    found = rated(graph, name)
    assert set(found) == {"stem", "side"}
    assert found["side"].tolist() == [0.0] * 5
    assert bool((found["stem"] != 0).any())


class Placed(nn.Module):
    """Maps of a convolution beside those of a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.last, self.head = nn.Conv2d(3, 6, 3), nn.Conv2d(8, 5, 1), nn.Linear(5, 4)
        self.register_buffer("position", torch.ones(1, 2, 6, 6))

    def forward(self, images):
        maps = torch.cat([torch.relu(self.stem(images)), self.position.expand(len(images), -1, -1, -1)], 1)
        return self.head(torch.relu(self.last(maps)).mean((2, 3)))


@pytest.mark.parametrize("name", WEIGHTS)
def test_what_a_buffer_holds_scores_zero(name):
    graph = cutback.trace(randomised(Placed()), image())
    assert "position" in {slot.state for group in graph.groups for slot in group.slices}
    found = rated(graph, make_score(name, loader=Batches((3, 3)), loss=functional.cross_entropy))
    assert found["position"].tolist() == [0.0] * 2
    assert all(bool((found[group] != 0).all()) for group in ("stem", "last"))


def test_a_constant_gradient_has_a_hessian_of_zeros():
    weight = torch.ones(3, requires_grad=True)
    (gradient,) = differentiated((2 * weight).sum(), [weight], create_graph=True)
    (product,) = differentiated(gradient.sum(), [weight])
    assert gradient.tolist() == [2.0] * 3
    assert product.tolist() == [0.0] * 3
