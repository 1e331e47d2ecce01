"""The contribution index: how much the answer depends on what a filter puts out."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cutback.errors import UserMistake
from cutback.gates import Gates, Place
from cutback.gates.by_unit import by_unit
from cutback.graph.graph import Graph
from cutback.graph.inputs import Inputs
from cutback.methods.activations import class_logits
from cutback.methods.functionality.sight import places_of
from cutback.scores.data import over_ranks
from cutback.scores.gradient import to_differentiate


@dataclass(frozen=True, eq=False)
class Contribution:
    """Of the units of a group.

    Attributes:
        plain: ``C``: mean over pictures and positions of ``|dz / dA|``, ``z`` being the predicted class's logit and
            ``A`` what the filter puts out behind its activation, ``(units,)``.
        scaled: ``C'``: mean over pictures of ``|sum A dz / dA|``, which does not change when a filter is made larger
            and its consumers smaller, ``(units,)``.
    """

    plain: Tensor
    scaled: Tensor


def contributions(graph: Graph, groups: Sequence[str], pictures: Iterable[Inputs]) -> dict[str, Contribution]:
    """Return the contribution index of the units of groups, by gradients on a copy of the model in eval mode.

    Channels of a stream are read wherever a block adds to them, and added up.

    Args:
        graph: the traced model, of a classification.
        groups: names of the groups.
        pictures: batches of pictures; of several processes each has its own.

    Raises:
        UserMistake: there are no pictures, or this is no classification.
    """
    numbers = {number: group for number, group in enumerate(graph.groups) if group.name in groups}
    # What may stand for the same place in another list is the same call and result.
    read = {(place.call, place.item, n) for n, g in numbers.items() for place in places_of(graph, g.name, "feature")}
    sums = {number: torch.zeros(2, group.units, dtype=torch.float64) for number, group in numbers.items()}
    count = 0

    def see(place: Place, activation: Tensor) -> None:
        held = [number for number in numbers if (place.call, place.item, number) in read]
        if held:
            value = activation.detach().clone()  # it may be written over later
            activation.register_hook(lambda gradient: _add(sums, held, place, value, gradient))

    with (
        to_differentiate(graph, training=False, learning=True) as copy,
        Gates(copy, "feature", groups=groups, reading=False, observe=see),
    ):
        for inputs in pictures:
            samples = len(inputs.tensors()[0])
            logits = class_logits(copy.model(*inputs.positional, **inputs.keyword), samples, "functionality")
            logits.gather(1, logits.argmax(1, keepdim=True)).sum().backward()
            count += samples
    device = graph.inputs.tensors()[0].device
    total = int(over_ranks(torch.tensor(count, device=device)))
    if not total:
        raise UserMistake("functionality's loader gave no batch; pass batches (inputs, labels) of the training split")
    means = {numbers[n].name: over_ranks(each.to(device)).cpu() / total for n, each in sums.items()}
    return {name: Contribution(*mean) for name, mean in means.items()}


def _add(
    sums: Mapping[int, Tensor],
    held: Sequence[int],
    place: Place,
    value: Tensor,
    gradient: Tensor,
) -> None:
    """Add what the gradient at a place says, times the samples."""
    samples = len(value)
    positions = [d for d in range(1, value.dim()) if place.group.shape[d] == 1]
    size = gradient.abs().mean(positions, keepdim=True) if positions else gradient.abs()
    product = (value * gradient).sum(positions, keepdim=True) if positions else value * gradient
    for number in held:
        units = sums[number].shape[1]
        plain, signed = (by_unit(place, part.detach().double(), number, units) for part in (size, product))
        if plain is None or signed is None:
            raise UserMistake(f"not all units have equally many channels at {place.where}; leave it out with ignore")
        sums[number][0] += plain.view(units, -1, samples).mean(1).sum(1).cpu()
        sums[number][1] += signed.view(units, -1, samples).sum(1).abs().sum(1).cpu()
