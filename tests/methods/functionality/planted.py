"""A layer with planted repeats of four functions and one opposite, and activation maximisation by plain loops."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

COPIES, FUNCTIONS = 3, 4
SIZE = 12


def planted(seed: int, noise: float = 0.0, *, flipped: bool = True) -> tuple[nn.Sequential, list[int]]:
    """Return a network and the function of each filter of its layer ``2``.

    Function ``q`` is there three times, ``(q + 1) * (0.5, 1, 2)`` as large, each weight with noise; a sign-flipped copy
    of the first is function 4. The order is random.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    prototypes = normal(FUNCTIONS, 8, 3, 3)
    weights, truth = [], []
    for number, prototype in enumerate(prototypes):
        for scale in (0.5, 1.0, 2.0):
            weights.append((number + 1) * scale * (prototype + noise * prototype.std() * normal(8, 3, 3)))
            truth.append(number)
    if flipped:
        weights.append(-prototypes[0])
        truth.append(FUNCTIONS)
    order = torch.randperm(len(truth), generator=generator).tolist()
    filters = len(truth)
    first, second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, filters, 3, padding=1, bias=False)
    third, head = nn.Conv2d(filters, 6, 3, padding=1), nn.Linear(6, 4)
    with torch.no_grad():
        first.weight.copy_(0.3 * normal(8, 3, 3, 3))
        first.bias.copy_(0.1 * normal(8))
        second.weight.copy_(torch.stack([weights[place] for place in order]))
        for layer in (third, head):
            layer.weight.copy_(0.3 * normal(*layer.weight.shape))
            layer.bias.copy_(0.1 * normal(*layer.bias.shape))
    layers = [first, nn.ReLU(), second, nn.ReLU(), third, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head]
    return nn.Sequential(*layers).eval(), [truth[place] for place in order]


def pictures(count: int = 24, seed: int = 50) -> Tensor:
    return torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def by_hand(
    model: nn.Sequential, units: Iterable[int], *, steps: int = 60, middle: bool = True, shared: bool = True
) -> Tensor:
    """Return the pictures of some of layer ``2``'s filters, made one after the other on crops of 5x5 pixels.

    Args:
        model: a planted network.
        units: the filters.
        steps: of the ascent.
        middle: maximise the middle position; else the mean over the map.
        shared: let all filters begin with one picture.
    """
    found = []
    for unit in units:
        generator = torch.Generator().manual_seed(0 if shared else 1 + unit)
        picture = 0.05 * torch.randn(3, 5, 5, generator=generator)
        for _ in range(steps):
            picture.requires_grad_()
            inner = model[1](nn.functional.conv2d(picture[None], model[0].weight, model[0].bias, padding=1))
            outputs = nn.functional.conv2d(inner, model[2].weight[unit : unit + 1], padding=1)[0, 0]
            value = outputs[2, 2] if middle else outputs.mean()
            (gradient,) = torch.autograd.grad(value, [picture])
            step = gradient / (gradient.square().mean().sqrt() + 1e-12)
            picture = (0.999 * picture.detach() + 0.2 * step).clamp(-2, 2)
        found.append(picture.detach())
    return torch.stack(found)


def unit_vectors(found: Tensor) -> Tensor:
    flat = found.flatten(1).double()
    flat = flat - flat.mean(1, keepdim=True)
    return flat / flat.norm(dim=1, keepdim=True)
