"""Activation maximisation: the picture that each filter answers to most."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cutback.gates import Place
from cutback.graph.graph import Graph
from cutback.methods.functionality.sight import Objective, Sight, picture_shape

SHALLOW, STEPS, MORE_STEPS = 3, 60, 150
"""The first layers take fewer steps, and need no smoothing."""
DEAD = 0.1
"""A filter is dead if its objective has not risen by this share of where it began."""


@dataclass(frozen=True)
class Ascent:
    """How pictures are made.

    Attributes:
        steps: of the ascent; ``None``: 60 in the first three layers, 150 behind.
        rate: length of a step.
        decay: share that pictures lose each step.
        variation: weight of the total variation, in layers behind the first three.
        jitter: pixels by which pictures are moved at random before each step, the same for all, in these layers too.
        deviation: standard deviation of the picture that all filters begin with.
        low: the lowest value of a pixel, as the model is given it.
        high: the highest.
        together: pictures in one pass.
        seed: of the picture that all begin with, and of the jitter.
    """

    steps: int | None = None
    rate: float = 0.2
    decay: float = 1e-3
    variation: float = 1e-4
    jitter: int = 1
    deviation: float = 0.05
    low: float = -2.0
    high: float = 2.0
    together: int = 64
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Functions:
    """What filters look for.

    Attributes:
        pictures: what each sees at its end, ``(units, C, height, width)``.
        start: its objective on the picture all began with, ``(units,)``.
        end: on its own one.
    """

    pictures: Tensor
    start: Tensor
    end: Tensor

    @property
    def dead(self) -> Tensor:
        """Which filters answer to nothing, ``(units,)``."""
        return self.end - self.start <= DEAD * self.start.abs()

    @property
    def vectors(self) -> Tensor:
        """The pictures without their mean, of length one, ``(units, pixels)``: products are correlations."""
        flat = self.pictures.flatten(1).double()
        flat = flat - flat.mean(1, keepdim=True)
        return flat / flat.norm(dim=1, keepdim=True).clamp(min=1e-12)


def maximised(graph: Graph, place: Place, number: int, sight: Sight, how: Ascent, depth: int) -> Functions:
    """Return the pictures that the units of a group answer to most at the middle of a place.

    Each step goes along the gradient divided by its root mean square, so that the scale of a filter does not matter;
    pictures shrink a little at each, and stay within bounds. All filters begin with one picture.

    Args:
        graph: the traced model, in eval mode.
        place: the place, before the activation.
        number: number of the group.
        sight: what the middle of the place sees.
        how: how pictures are made.
        depth: how many layers come before, to find out whether it is one of the first.
    """
    units, like = graph.groups[number].units, graph.inputs.tensors()[0]
    top, bottom, left, right = sight.crop
    generator = torch.Generator().manual_seed(how.seed)
    first = how.deviation * torch.randn(picture_shape(graph)[0], bottom - top, right - left, generator=generator)
    start, end = torch.zeros(units), torch.zeros(units)
    pictures: list[Tensor] = []
    for part in torch.arange(units).split(how.together):
        objective = Objective(graph, place, number, len(part))
        made = first.to(like.device, like.dtype).expand(len(part), *first.shape).clone()
        made, start[part], end[part] = _risen(objective, made, part, sight, how, shallow=depth < SHALLOW)
        pictures.append(sight.of(made))
    return Functions(torch.cat(pictures).cpu(), start, end)


def _risen(
    objective: Objective, pictures: Tensor, units: Tensor, sight: Sight, how: Ascent, *, shallow: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return pictures after the ascent, and the objectives before and after it."""
    generator = torch.Generator().manual_seed(how.seed + 1)
    rows, columns = torch.arange(len(units)).to(pictures.device), units.to(pictures.device)
    steps = how.steps if how.steps is not None else STEPS if shallow else MORE_STEPS

    def own(given: Tensor) -> Tensor:
        return objective.at(given, sight.position)[rows, columns]

    with torch.no_grad():
        start = own(pictures).float().cpu()
    for _ in range(steps):
        moved: list[int] = [0, 0]
        if how.jitter and not shallow:
            moved = torch.randint(-how.jitter, how.jitter + 1, (2,), generator=generator).tolist()
        given = pictures.roll(moved, (2, 3)).requires_grad_()
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(own(given).sum(), [given])
        gradient = gradient.roll([-moved[0], -moved[1]], (2, 3))
        size = gradient.square().mean((1, 2, 3), keepdim=True).sqrt()
        step = gradient / (size + 1e-12)
        if how.variation and not shallow:
            step = step - how.variation * _variation_gradient(pictures)
        pictures = ((1 - how.decay) * pictures + how.rate * step).clamp(how.low, how.high)
    with torch.no_grad():
        return pictures, start, own(pictures).float().cpu()


def _variation_gradient(pictures: Tensor) -> Tensor:
    """Return the derivative of the total variation, the sum of magnitudes of differences between neighbours."""
    result = torch.zeros_like(pictures)
    for dimension in (2, 3):
        sign = pictures.diff(dim=dimension).sign()
        length = sign.shape[dimension]
        result.narrow(dimension, 0, length).sub_(sign)
        result.narrow(dimension, 1, length).add_(sign)
    return result
