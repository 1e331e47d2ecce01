"""Networks that ResRep is tried on."""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, relu, sigmoid
from torch.optim import SGD

import cutback
from cutback.graph.graph import Graph
from cutback.methods import ResRep
from tests.helpers import image, randomised


def pair(inputs: int, outputs: int, size: int = 3, **settings) -> nn.Sequential:
    """A convolution and a batch norm."""
    settings = {"padding": size // 2, "bias": False, **settings}
    return nn.Sequential(nn.Conv2d(inputs, outputs, size, **settings), nn.BatchNorm2d(outputs))


class Basic(nn.Module):
    """A stem, a basic block with a stride and a projection, and one without."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = pair(3, 8)
        self.first1, self.first2, self.project = pair(8, 10, stride=2), pair(10, 12), pair(8, 12, 1, stride=2)
        self.second1, self.second2 = pair(12, 9, bias=True), pair(9, 12)
        self.head = nn.Linear(12, 4)

    def forward(self, images: Tensor) -> Tensor:
        stream = relu(self.stem(images))
        stream = relu(self.first2(relu(self.first1(stream))) + self.project(stream))
        stream = relu(self.second2(relu(self.second1(stream))) + stream)
        return self.head(stream.mean((2, 3)))


class Bottleneck(nn.Module):
    """A stem and a bottleneck block, with activations that work in place."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first, self.second, self.third = pair(3, 8), pair(8, 6, 1), pair(6, 5), pair(5, 8, 1)
        self.activate, self.head = nn.ReLU(inplace=True), nn.Linear(8, 4)

    def forward(self, images: Tensor) -> Tensor:
        stream = self.activate(self.stem(images))
        inner = self.third(self.activate(self.second(self.activate(self.first(stream)))))
        inner += stream
        return self.head(self.activate(inner).mean((2, 3)))


class Separable(nn.Module):
    """A stem and two depthwise-separable layers, as in MobileNetV1."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = pair(3, 8)
        self.depth1, self.point1 = pair(8, 8, groups=8), pair(8, 10, 1)
        self.depth2, self.point2 = pair(10, 10, groups=10, stride=2), pair(10, 12, 1)
        self.head = nn.Linear(12, 4)

    def forward(self, images: Tensor) -> Tensor:
        found = relu(self.stem(images))
        for layer in (self.depth1, self.point1, self.depth2, self.point2):
            found = relu(layer(found))
        return self.head(found.mean((2, 3)))


class Gated(nn.Module):
    """A convolution whose channels a squeeze-excite gate reads and multiplies."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.last = pair(3, 8), pair(8, 6)
        self.squeeze, self.excite = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.head = nn.Linear(6, 4)

    def forward(self, images: Tensor) -> Tensor:
        stem = relu(self.stem(images))
        gate = sigmoid(self.excite(relu(self.squeeze(stem.mean((2, 3), keepdim=True)))))
        return self.head(relu(self.last(stem * gate)).mean((2, 3)))


class Unpaired(nn.Module):
    """Two layers make the channels of a sum, and only one has a batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other, self.last = pair(3, 8), nn.Conv2d(3, 8, 3, padding=1), pair(8, 6)
        self.head = nn.Linear(6, 4)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(relu(self.last(relu(self.one(images) + self.other(images)))).mean((2, 3)))


class Grouped(nn.Module):
    """A bottleneck with a grouped convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.outer = pair(3, 8), pair(8, 8, groups=2), pair(8, 6, 1)
        self.head = nn.Linear(6, 4)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(relu(self.outer(relu(self.inner(relu(self.stem(images)))))).mean((2, 3)))


def made(kind: type[nn.Module], seed: int = 0) -> nn.Module:
    """Return a network with weights and statistics of the seed."""
    return randomised(kind(), seed)


def traced(model: nn.Module) -> Graph:
    return cutback.trace(model, image())


def method_of(model: nn.Module, rate: float = 0.02, **settings) -> ResRep:
    """Return the method, and the optimiser of the model in it."""
    optimizer = SGD(model.parameters(), lr=rate)
    given = {"steps": 10, "budget": "macs=60%", "interval": 1, "before_masks": 0, "added": 100, **settings}
    return ResRep(traced(model), optimizers=optimizer, **given)


def step(method: ResRep, number: int = 0) -> bool:
    """Take a step as a user's loop does."""
    (optimizer,) = method.optimizers
    optimizer.zero_grad()
    cross_entropy(method.graph.model(image(number, (4, 3, 8, 8))), torch.arange(4)).backward()
    method.after_backward()
    method.before_step()
    optimizer.step()
    return method.after_step()


def spoiled(method: ResRep, dead: dict[str, list[int]], seed: int = 0) -> None:
    """Give compactors random weights, some rows exactly zero."""
    generator = torch.Generator().manual_seed(seed)
    held = method._insertion
    with torch.no_grad():
        for target, compactor in zip(held.targets, held.compactors, strict=True):
            noise = torch.randn(compactor.weight.shape, generator=generator)
            compactor.weight.copy_(torch.eye(target.rows) + 0.5 * noise)
            compactor.weight[dead.get(target.name, [])] = 0
