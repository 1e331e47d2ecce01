"""Activations sorted by the units that their elements belong to."""

import numpy as np
import torch
from torch import Tensor

from cutback.gates.places import Place


def by_unit(place: Place, activation: Tensor, number: int, units: int) -> Tensor | None:
    """Return what each unit of a group puts out at a place, in an order that is the same for all.

    Args:
        place: the place.
        activation: what is there, of any number of samples.
        number: the number of the group.
        units: how many units it has.

    Returns:
        ``(units, elements)``: for each unit its channels' elements over samples and positions; ``None`` where units
        have unequally many channels, or none.
    """
    along = [d for d in range(activation.dim()) if place.group.shape[d] > 1]
    others = [d for d in range(activation.dim()) if d not in along]
    labels = np.where(place.group == number, place.unit, -1).reshape(-1)
    counts = np.bincount(labels[labels >= 0], minlength=units)
    if not counts[0] or (counts != counts[0]).any():
        return None
    order = np.argsort(labels, kind="stable")[len(labels) - counts.sum() :]
    table = activation.permute(*along, *others).reshape(len(labels), -1)
    return table[torch.from_numpy(order).to(activation.device)].reshape(units, -1)
