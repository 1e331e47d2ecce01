"""What a layer returns under masks that change one unit each, by the difference alone.

A convolution or a linear layer is linear in the channels it is given: where one of them is multiplied by ``f`` it
returns what it returns otherwise, less ``1 - f`` times what that channel brings. So of all channels one is convolved.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from cutback.gates.places import Place
from cutback.graph.capture import operator_of
from cutback.graph.numbers import arguments_of

_CONVOLUTIONS = {f"aten::conv{n}d": n for n in (1, 2, 3)}


def changed_channels(node: fx.Node, place: Place, group: int, mask: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return which channels each mask changes, ``(K, channels of a unit)``, and their factors, ``(K,)``.

    Args:
        node: the call that is given the channels.
        place: where the masks stand.
        group: the number of the group that is masked.
        mask: its factors, ``(K, units)``.

    Returns:
        ``None`` where the call is not linear in its channels one by one, or a mask changes more than one unit, or none,
        or one that is not given to the call.
    """
    operator, shape = operator_of(node), place.group.shape
    linear = operator == "aten::linear" or (operator in _CONVOLUTIONS and arguments_of(node).get("groups", 1) == 1)
    if place.argument != "input" or not linear:
        return None
    along = len(shape) - 1 - _CONVOLUTIONS.get(operator, 0)
    changed = mask != 1
    if along < 1 or place.group.size != shape[along] or not bool((changed.sum(1) == 1).all()):
        return None
    units = changed.int().argmax(1)
    own = np.where(place.group.reshape(-1) == group, place.unit.reshape(-1), -1)
    found = [np.flatnonzero(own == unit) for unit in units.tolist()]
    if len({len(channels) for channels in found}) > 1 or not len(found[0]):
        return None
    return torch.from_numpy(np.stack(found)), mask[torch.arange(len(mask)), units]


def brought(node: fx.Node, arguments: Mapping[str, Any], channels: Tensor) -> Tensor:
    """Return what some channels bring to the result of a call, ``(K, N, ...)`` for results ``(N, ...)``.

    Args:
        node: a convolution without groups, or a linear layer.
        arguments: what it is given, by name.
        channels: ``K`` sets of input channels, ``(K, channels of a set)``.
    """
    source, weight = arguments["input"], arguments["weight"]
    channels = channels.to(source.device)
    columns = weight[:, channels]  # (outputs, K, channels of a set, ...)
    if operator_of(node) == "aten::linear":
        return torch.einsum("n...kc,okc->kn...o", source[..., channels], columns)
    count, outputs = len(channels), len(weight)
    given = {
        **arguments,
        "input": source[:, channels.flatten()],
        "weight": columns.movedim(1, 0).flatten(0, 1),
        "bias": None,
        "groups": count,
    }
    return node.target(**given).unflatten(1, (count, outputs)).movedim(1, 0)  # type: ignore[operator]
