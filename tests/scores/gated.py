"""The networks again, with an explicit gate at each place, and plain loops over what their gradients say."""

import copy
from collections import defaultdict
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.scores.networks import NETWORKS, SAMPLES, Batches, filters

Gate = Callable[[Tensor, str, str], Tensor]
"""Multiplies a tensor at a site by the gates of a group."""
PICTURES, LABELS = Batches().pictures.double(), torch.arange(SAMPLES) % 4


def double(network: str) -> nn.Module:
    return NETWORKS[network]().double().eval()


def run(network: str, model: nn.Module, images: Tensor, gate: Gate) -> Tensor:
    """Return the outputs of a network whose tensors pass through gates."""

    def normed(tensor: Tensor, group: str, *, streamed: bool = False) -> Tensor:
        tensor = gate(tensor, "norm", group)
        return tensor if streamed else gate(tensor, "stream", group)

    def active(tensor: Tensor, group: str) -> Tensor:
        return gate(torch.relu(tensor), "feature", group)

    if network == "residual":
        stem = active(normed(model.stem_norm(model.stem(images)), "stem", streamed=True), "stem")
        inner = active(normed(model.inner_norm(model.inner(gate(stem, "consumer", "stem"))), "inner"), "inner")
        outer = gate(gate(model.outer(gate(inner, "consumer", "inner")), "norm", "stem"), "feature", "stem")
        block = gate(stem + outer, "stream", "stem")
        last = gate(model.slope(gate(model.depthwise(block), "norm", "stem")), "feature", "stem")
        return model.head(gate(last.mean((2, 3)), "consumer", "stem"))
    if network == "projected":
        stem = active(normed(model.stem_norm(model.stem(images)), "stem"), "stem")
        inner = model.inner(gate(stem, "consumer", "stem"))
        inner = active(normed(model.inner_norm(inner), "inner"), "inner")
        outer = normed(model.outer_norm(model.outer(gate(inner, "consumer", "inner"))), "outer", streamed=True)
        projection = model.projection_norm(model.projection(gate(stem, "consumer", "stem")))
        projection = normed(projection, "outer", streamed=True)
        first = torch.relu(gate(outer, "feature", "outer") + gate(projection, "feature", "outer"))
        first = gate(first, "stream", "outer")
        second = model.second_norm(model.second(gate(first, "consumer", "outer")))
        second = gate(normed(second, "outer", streamed=True), "feature", "outer")
        last = gate(torch.relu(first + second), "stream", "outer")
        return model.head(gate(last.mean((2, 3)), "consumer", "outer"))
    value = images
    for number in (0,) if network == "flattened" else (0, 3, 6):
        group = str(number)
        value = active(normed(model[number + 1](model[number](value)), group), group)
        value = gate(value, "consumer", group)
    return model[3:](value) if network == "flattened" else model[9:](value)


def gradients(network: str, model: nn.Module, site: str, images: Tensor, labels: Tensor) -> dict[str, list[Tensor]]:
    """Return for each group and place the derivative of the mean loss by gates ``(N, units)``, one row a sample."""
    made = defaultdict(list)

    def gate(tensor: Tensor, at: str, group: str) -> Tensor:
        if at != site:
            return tensor
        factor = torch.ones(tensor.shape[:2], dtype=tensor.dtype, requires_grad=True)
        made[group].append(factor)
        return tensor * factor.view(*factor.shape, *[1] * (tensor.dim() - 2))

    loss = functional.cross_entropy(run(network, model, images, gate), labels)
    found = iter(torch.autograd.grad(loss, [factor for factors in made.values() for factor in factors]))
    return {group: [next(found) for _ in factors] for group, factors in made.items()}


@cache
def each_sample(network: str, site: str) -> dict[str, list[list[list[float]]]]:
    """Return for each group, place, unit and sample the derivative of the sample's own loss, run all by itself."""
    model = double(network)
    alone = [gradients(network, model, site, PICTURES[n : n + 1], LABELS[n : n + 1]) for n in range(SAMPLES)]
    return {
        group: [torch.cat([each[group][place] for each in alone]).T.tolist() for place in range(len(places))]
        for group, places in alone[0].items()
    }


def weight_gradient(model: nn.Module, images: Tensor, labels: Tensor) -> nn.Module:
    """Return a copy of a model that holds, in place of its parameters, the mean loss's derivatives by them."""
    result = copy.deepcopy(model)
    functional.cross_entropy(result(images), labels).backward()
    with torch.no_grad():
        for parameter in result.parameters():
            parameter.copy_(parameter.grad)
    return result


def products(network: str, left: nn.Module, right: nn.Module) -> dict[str, list[list[list[float]]]]:
    """Return for each group, layer and filter the products of two models' weights."""
    mine, other = filters(network, left), filters(network, right)
    return {
        group: [(first * second).flatten(1).tolist() for first, second in zip(layers, other[group], strict=True)]
        for group, layers in mine.items()
    }
