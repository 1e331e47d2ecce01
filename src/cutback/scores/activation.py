"""What scores that look at activations share: running over batches, adding up, and finding each unit's channels.

Only sums are kept, so memory does not grow with the number of batches, and how samples are put into batches makes no
difference. The model runs in eval mode without gradients. Where several processes train together, all of them have to
ask for the scores, each with data of its own; all receive the same.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from cutback.errors import InvalidScore, Ungatable
from cutback.gates import Gates, Place, Rows
from cutback.graph.clone import random_state_kept, set_training
from cutback.graph.graph import Graph
from cutback.graph.replay import effective_calls
from cutback.scores.aggregation import aggregated, check_aggregate, layers_until
from cutback.scores.data import batches_of, device_of, over_ranks, seen


@dataclass(frozen=True)
class ActivationScore:
    """One number for each channel, from its maps over many samples.

    Attributes:
        loader: batches ``(inputs, labels)``; labels are not used.
        aggregate: ``sum``, ``mean``, ``max`` or ``leader`` over the channels of a unit (see ``aggregation``).
    """

    loader: Iterable[object] = field(repr=False)
    aggregate: str = "sum"
    site = "map"
    sums = 1

    def __post_init__(self) -> None:
        check_aggregate(self.aggregate)

    def measure(self, maps: Tensor) -> Tensor:
        """Return what is added up over samples.

        Args:
            maps: the channels of one layer for some samples, ``(N, C, positions...)``.

        Returns:
            Each sum of what these samples contribute, ``(sums, C)`` in double precision.
        """
        raise NotImplementedError

    def rate(self, means: Tensor) -> Tensor:
        """Return the scores of channels, ``(C,)``, given the sums divided by the number of samples, ``(sums, C)``."""
        return means[0]

    def __call__(self, graph: Graph) -> Mapping[str, Tensor]:
        """Return the scores, ``(units,)`` for each group.

        Raises:
            UserMistake: there are no batches, or something else is given as one.
            Ungatable: the channels of some group cannot be observed.
        """
        if not graph.groups:
            return {}
        totals: dict[int, Tensor] = {}

        def see(number: int, maps: Tensor) -> None:
            found = self.measure(maps)
            totals[number] = totals[number] + found if number in totals else found

        places, samples, device = observed(graph, self.loader, self.site, see)
        total = seen(samples, device)
        zero = torch.zeros((), dtype=torch.float64, device=device)
        sums = (totals.get(n, zero.expand(self.sums, place.group.size)) for n, place in enumerate(places))
        rated = [self.rate(over_ranks(values.contiguous()) / total) for values in sums]
        return put_together(graph, places, rated, self.aggregate)


def observed(
    graph: Graph, loader: object, site: str, see: Callable[[int, Tensor], None]
) -> tuple[Sequence[Place], int, torch.device]:
    """Run a model over batches, in eval mode and without gradients, and show the channels at each place of a site.

    Args:
        graph: the traced model.
        loader: batches ``(inputs, labels)``.
        site: ``output`` or ``map``, see ``cutback.gates``.
        see: receives the number of a place and the channels there, ``(N, C, positions...)``, in the order of its
            ``group``.

    Returns:
        The places, in the same order in every process; how many samples there were; the model's device.

    Raises:
        UserMistake: a batch is none.
        InvalidScore: an activation is not finite.
        Ungatable: a channel's samples cannot be told apart.
    """
    model, samples = graph.model, 0
    rows: dict[Place, Rows] = {}

    def observe(place: Place, activation: Tensor) -> None:
        nonlocal samples
        if place not in rows:
            rows[place] = gates.rows(place)
        if not bool(activation.isfinite().all()):
            raise InvalidScore(f"NaN or infinity comes out of {place.where}; check the data and the weights")
        maps = channels_first(activation, place, rows[place])
        samples += len(maps) if numbers[place] == 0 else 0
        see(numbers[place], maps)

    gates = Gates(graph, site, reading=False, observe=observe)
    numbers = {place: number for number, place in enumerate(gates.places[0])}
    modes = set_training(model, False)
    try:
        with random_state_kept(), torch.no_grad(), gates:
            for inputs, _ in batches_of(graph, loader):
                model(*inputs.positional, **inputs.keyword)
    finally:
        set_training(model, modes)
    return gates.places[0], samples, device_of(graph)


def channels_first(activation: Tensor, place: Place, rows: Rows) -> Tensor:
    """Return an activation as ``(N, C, positions...)``: samples first, then what ``place.group`` tells apart.

    Raises:
        Ungatable: it belongs to no sample, or channels lie along the samples.
    """
    channels = [dimension for dimension, size in enumerate(place.group.shape) if size > 1]
    if rows.dimension is None or rows.dimension in channels:
        raise Ungatable(f"the channels at {place.where} do not lie beside the samples; leave the layer to other scores")
    others = [d for d in range(activation.dim()) if d != rows.dimension and d not in channels]
    maps = activation.permute(rows.dimension, *channels, *others)
    maps = maps.flatten(1, len(channels)) if channels else maps.unsqueeze(1)
    if rows.repeats == 1:
        return maps
    shape = (-1, rows.repeats) if rows.inner else (rows.repeats, len(maps) // rows.repeats)
    split = maps.unflatten(0, shape)
    return (split if rows.inner else split.transpose(0, 1)).transpose(1, 2)


def put_together(graph: Graph, places: Sequence[Place], rated: Sequence[Tensor], aggregate: str) -> dict[str, Tensor]:
    """Return the scores of units ``(units,)`` for each group, given those of the channels at each place."""
    calls, _ = effective_calls(graph.captures[0], graph.coupling.labellings[0].trails)
    until = layers_until(graph, 0) if aggregate == "leader" else {}
    result: dict[str, Tensor] = {}
    for number, group in enumerate(graph.groups):
        parts: list[Tensor] = []
        depths: list[int] = []
        for place, values in zip(places, rated, strict=True):
            mine = np.flatnonzero(place.group.reshape(-1) == number)
            if len(mine):
                order = mine[np.argsort(place.unit.reshape(-1)[mine], kind="stable")]
                owners = np.repeat(np.arange(group.units), len(mine) // group.units)
                if not np.array_equal(place.unit.reshape(-1)[order], owners):
                    raise Ungatable(f"only some channels of group {group.name} pass {place.where}")
                parts.append(values.cpu()[torch.from_numpy(order)].view(group.units, -1))
                depths.append(until.get(calls[place.call], 0))
        runs = len(parts) > 0  # what runs in train mode alone scores zero
        result[group.name] = aggregated(parts, aggregate, depths) if runs else torch.zeros(group.units).double()
    return result
