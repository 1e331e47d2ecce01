"""Keeping the units of rectified recurrent layers alive: each is positive at some step of some sequence."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def awaken_(arguments: Sequence[Any], *, free: Callable[[int], bool]) -> None:
    """Raise the first bias of units that are dead at the first step, or negate the weights of the input without biases.

    Args:
        arguments: those of ``aten::rnn_relu.input``: sequences ``(T, B, I)`` or ``(B, T, I)``, first states
            ``(L * D, B, H)`` of L layers and D directions, and for each of these the weights of the input ``(H, I)``
            and of the recurrence ``(H, H)`` and two biases ``(H,)`` or none; the parameters are changed in place.
        free: whether the parameter of a number, counted from 0 through all layers, may be changed.
    """
    source, start, parameters, biased, layers, _, _, both, batch_first = arguments
    steps: Tensor = source.transpose(0, 1) if batch_first else source
    directions = 2 if both else 1
    each = len(parameters) // (layers * directions)
    for layer in range(layers):
        numbers = range(layer * directions, (layer + 1) * directions)
        for number in numbers:
            place = number * each
            incoming, recurrent, *shifts = parameters[place : place + each]
            given = steps @ incoming.T
            if biased and free(place + 2):
                first = given[-1 if number % directions else 0] + start[number] @ recurrent.T + sum(shifts)
                highest, wanted = first.amax(0), first.std().clamp(min=1e-3)
                shifts[0].add_(torch.where(highest < wanted, wanted - highest, 0))
            elif not biased and free(place):
                incoming.mul_(torch.where(given.amax((0, 1)) < -given.amin((0, 1)), -1.0, 1.0)[:, None])
        own = parameters[layer * directions * each : (layer + 1) * directions * each]
        steps = torch.rnn_relu(steps, start[list(numbers)], own, biased, 1, 0.0, False, both, False)[0]
