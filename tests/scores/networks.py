"""Networks that scores are tried on, batches for them, and how a score is asked."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import cutback
from cutback.graph.graph import Graph
from cutback.scores import make_score, score_groups
from tests.helpers import image, randomised, residual

SAMPLES = 6


class Projected(nn.Module):
    """Two blocks that add to one stream, the first with a 1x1 projection as its shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.inner, self.inner_norm = nn.Conv2d(6, 7, 3, padding=1, bias=False), nn.BatchNorm2d(7)
        self.outer, self.outer_norm = nn.Conv2d(7, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.projection, self.projection_norm = nn.Conv2d(6, 8, 1, bias=False), nn.BatchNorm2d(8)
        self.second, self.second_norm = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 4)

    def forward(self, images: Tensor) -> Tensor:
        stem = torch.relu(self.stem_norm(self.stem(images)))
        branch = self.outer_norm(self.outer(torch.relu(self.inner_norm(self.inner(stem)))))
        stream = torch.relu(branch + self.projection_norm(self.projection(stem)))
        stream = torch.relu(stream + self.second_norm(self.second(stream)))
        return self.head(stream.mean((2, 3)))


def projected(seed: int = 0) -> nn.Module:
    return randomised(Projected(), seed)


def flattened(seed: int = 0) -> nn.Module:
    """A convolution whose maps a linear layer reads as 16 columns each."""
    layers = (nn.Conv2d(3, 5, 3, 2, 1), nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 16, 4))
    return randomised(nn.Sequential(*layers), seed)


def grouped(seed: int = 0) -> nn.Module:
    """A convolution of two groups, and a transposed one."""
    layers: list[nn.Module] = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()]
    layers += [nn.Conv2d(8, 12, 3, padding=1, groups=2), nn.BatchNorm2d(12), nn.ReLU()]
    layers += [nn.ConvTranspose2d(12, 6, 2, groups=2), nn.BatchNorm2d(6), nn.ReLU()]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)]
    return randomised(nn.Sequential(*layers), seed)


NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "residual": residual,
    "projected": projected,
    "flattened": flattened,
    "grouped": grouped,
}


@dataclass(frozen=True)
class Batches:
    """A loader that splits the same six pictures in batches of the given sizes, and may fail at the last one."""

    sizes: tuple[int, ...] = (4, 2)
    dtype: torch.dtype = torch.float32
    fails: bool = False
    device: str = "cpu"
    pictures: Tensor = field(default_factory=lambda: image(7, (SAMPLES, 3, 8, 8)))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        labels = torch.arange(SAMPLES) % 4
        chunks = zip(self.pictures.split(self.sizes), labels.split(self.sizes), strict=True)
        for number, (pictures, classes) in enumerate(chunks):
            if self.fails and number == len(self.sizes) - 1:
                raise OSError("the disk is gone")
            yield pictures.to(self.device, self.dtype), classes.to(self.device)


def rated(model: nn.Module | Graph, score: object, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Score a model or a graph; a name is made with batches and cross entropy."""
    graph = model if isinstance(model, Graph) else cutback.trace(model, image().to(device_of(model), dtype))
    batches = Batches(dtype=dtype)
    made = make_score(score, loader=batches, loss=functional.cross_entropy) if isinstance(score, str) else score
    values = score_groups(graph, made)
    return {group.name: torch.from_numpy(found) for group, found in zip(graph.groups, values, strict=True)}


def device_of(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


@cache
def _traced(network: str, dtype: torch.dtype) -> tuple[Graph, dict[str, Tensor]]:
    model = NETWORKS[network]().to(dtype)
    states = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    return cutback.trace(model, image().to(dtype)), states


def traced(network: str, dtype: torch.dtype = torch.float32) -> Graph:
    """Return the graph of a network that has its first values; traced once, as values do not change what is coupled."""
    graph, states = _traced(network, dtype)
    graph.model.load_state_dict(states)
    return graph


def numbers(tensor: Tensor) -> list[float]:
    return tensor.detach().double().flatten().tolist()


def filters(network: str, model: nn.Module) -> dict[str, list[Tensor]]:
    """Return, written by hand, the filters that make each group's channels: ``(C, ...)`` for each layer."""
    if network == "residual":
        return {"stem": [model.stem.weight, model.outer.weight, model.depthwise.weight], "inner": [model.inner.weight]}
    if network == "projected":
        stream = [model.outer.weight, model.projection.weight, model.second.weight]
        return {"stem": [model.stem.weight], "inner": [model.inner.weight], "outer": stream}
    if network == "flattened":
        return {"0": [model[0].weight]}
    transposed = model[6].weight  # (C_in, C_out / 2, ...): the first half of the inputs makes the first filters
    halves = [transposed[half, made] for half in (slice(0, 6), slice(6, 12)) for made in range(3)]
    return {"0": [model[0].weight], "3": [model[3].weight], "6": [torch.stack(halves)]}


def summed(network: str, model: nn.Module, loop: Callable[[Tensor], list[float]]) -> dict[str, list[float]]:
    """Return what a loop over the filters of one layer gives, summed over the layers of each group."""
    return {
        group: [sum(values) for values in zip(*map(loop, layers), strict=True)]
        for group, layers in filters(network, model).items()
    }


def outputs(network: str, model: nn.Module, images: Tensor) -> dict[str, list[Tensor]]:
    """Return, computed by hand in eval mode, what the layers of each group return: ``(N, C, H, W)`` for each layer."""
    return _activations(network, model.eval(), images)[0]


def features(network: str, model: nn.Module, images: Tensor) -> dict[str, list[Tensor]]:
    """Return each group's feature maps: after norm and activation, of a stream after sum and activation of a block."""
    return _activations(network, model.eval(), images)[1]


def _activations(network: str, model: nn.Module, images: Tensor) -> tuple[dict[str, list[Tensor]], ...]:
    if network == "residual":
        stem = model.stem(images)
        begun = torch.relu(model.stem_norm(stem))
        inner = model.inner(begun)
        inside = torch.relu(model.inner_norm(inner))
        outer = model.outer(inside)
        made = {"stem": [stem, outer, model.depthwise(begun + outer)], "inner": [inner]}
        return made, {"stem": [begun + outer], "inner": [inside]}
    if network == "projected":
        stem = model.stem(images)
        begun = torch.relu(model.stem_norm(stem))
        inner = model.inner(begun)
        inside = torch.relu(model.inner_norm(inner))
        outer, projection = model.outer(inside), model.projection(begun)
        first = torch.relu(model.outer_norm(outer) + model.projection_norm(projection))
        second = model.second(first)
        last = torch.relu(first + model.second_norm(second))
        made = {"stem": [stem], "inner": [inner], "outer": [outer, projection, second]}
        return made, {"stem": [begun], "inner": [inside], "outer": [first, last]}
    made, found = {}, {}
    for number in (0,) if network == "flattened" else (0, 3, 6):
        made[str(number)] = [model[: number + 1](images)]
        found[str(number)] = [model[: number + 3](images)]
    return made, found


def over_images(maps: dict[str, list[Tensor]], loop: Callable[[list[list[float]]], float]) -> dict[str, list[float]]:
    """Return for each group what a loop over the maps of one channel gives, summed over the group's layers."""
    return {
        group: [
            sum(loop([numbers(picture[unit]) for picture in layer]) for layer in layers)
            for unit in range(layers[0].shape[1])
        ]
        for group, layers in maps.items()
    }


def assert_equal(found: dict[str, Tensor], expected: dict[str, list[float]], tolerance: float = 1e-6) -> None:
    assert set(found) == set(expected)
    for group, values in expected.items():
        assert numbers(found[group]) == pytest.approx(values, rel=tolerance, abs=1e-12), group
