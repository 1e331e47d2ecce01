"""What the tests of checkpoints share."""

import torch
from torch import nn

import cutback
from tests.helpers import image, residual


def pruned(make=residual, budget="macs=50%"):
    model = make()
    graph = cutback.trace(model, image())
    plan = cutback.plan(graph, budget=budget)
    cutback.apply_(graph, plan, prove=False)
    return model, plan


def same_outputs(first, second):
    return torch.equal(first.eval()(image()), second.eval()(image()))


class Tied(nn.Module):
    """One convolution under two names, and two linear layers that share a weight."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.again = nn.Conv2d(8, 8, 3, padding=1)
        self.alias = self.again
        self.up, self.down, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 2)
        self.down.weight = self.up.weight

    def forward(self, images):
        features = self.alias(self.again(self.first(images).relu()).relu()).relu()
        return self.head(self.down(self.up(features.mean((2, 3))).relu()))
