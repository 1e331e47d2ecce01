"""Networks written twice: as a module, and as a function with an explicit gate at each place."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import cutback
from cutback.graph.graph import Graph
from tests.helpers import image, randomised

BATCH = 5
IMAGES = image(1, (BATCH, 3, 8, 8)).double()
LABELS = torch.tensor([0, 1, 2, 3, 1])
UNITS = {"stem": 6, "first": 5, "third": 7}


class TwoBlocks(nn.Module):
    """A stem and two residual blocks on one stream, all gates written out where they are asked for."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace
        self.stem, self.stem_norm = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.first, self.first_norm = nn.Conv2d(6, 5, 3, padding=1), nn.BatchNorm2d(5)
        self.second, self.second_norm = nn.Conv2d(5, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.third, self.third_norm = nn.Conv2d(6, 7, 3, padding=1), nn.BatchNorm2d(7)
        self.fourth, self.fourth_norm = nn.Conv2d(7, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 4)

    def forward(self, images: Tensor) -> Tensor:
        return self.gated(images, "", {})

    def gated(self, images: Tensor, site: str, gates: dict[str, Tensor]) -> Tensor:
        """Run with a gate ``(N, units)`` a group, multiplied in at every place of a site by hand."""
        site = "consumer" if site == "input" else site  # there are no depthwise layers

        def gate(tensor: Tensor, at: str, group: str) -> Tensor:
            if at != site or group not in gates:
                return tensor
            factor = gates[group]
            return tensor * factor.view(*factor.shape, *[1] * (tensor.dim() - 2))

        def relu(tensor: Tensor) -> Tensor:
            return F.relu(tensor, inplace=self.inplace)

        stem = gate(self.stem_norm(gate(self.stem(images), "output", "stem")), "norm", "stem")
        x = gate(relu(stem), "feature", "stem")
        for first, first_norm, second, second_norm, name in (
            (self.first, self.first_norm, self.second, self.second_norm, "first"),
            (self.third, self.third_norm, self.fourth, self.fourth_norm, "third"),
        ):
            inner = gate(first(gate(x, "consumer", "stem")), "output", name)
            inner = gate(gate(first_norm(inner), "norm", name), "stream", name)
            inner = gate(gate(gate(relu(inner), "feature", name), "map", name), "consumer", name)
            outer = gate(second_norm(gate(second(inner), "output", "stem")), "norm", "stem")
            outer = gate(outer, "feature", "stem")  # no activation of its own follows
            x = gate(gate(relu(outer + x), "stream", "stem"), "map", "stem")
        return self.head(gate(x.mean((2, 3)), "consumer", "stem"))


def two_blocks(*, inplace: bool = False) -> TwoBlocks:
    return randomised(TwoBlocks(inplace)).double()


def traced(model: nn.Module) -> Graph:
    return cutback.trace(model, image().double())


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).detach().abs().max() / expected.detach().abs().max())
