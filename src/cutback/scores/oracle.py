"""What the loss says when a unit is gone: the measure that every other score approximates.

P. Molchanov et al., "Pruning Convolutional Neural Networks for Resource Efficient Inference", ICLR 2017, section 2.2:
``|C(D, W | h_i = 0) - C(D, W)|``, called the oracle; there with and without the absolute value. Squared:
P. Molchanov et al., "Importance Estimation for Neural Network Pruning", CVPR 2019: ``(E(D, W) - E(D, W | w_m = 0))^2``,
for each batch.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cutback.errors import UserMistake
from cutback.gates import Restart, Restarts
from cutback.graph.clone import random_state_kept, set_training
from cutback.graph.graph import Graph
from cutback.scores.catalogue import About, scores
from cutback.scores.data import batches_of, device_of, loss_of, over_ranks, seen


@scores.register("oracle")
@dataclass(frozen=True)
class Oracle:
    """Exact change of the loss when a unit is gone.

    The unit is silenced where it is consumed, and all others are there. The model runs in eval mode, from the first
    layer that consumes the unit on, with several units' silence in one pass. Every unit costs part of a forward pass
    over all batches: give it few. What runs in train mode alone scores zero.

    Attributes:
        loader: batches ``(inputs, labels)``.
        loss: of outputs and labels, averaged over the samples.
        absolute: rate by the size of the change, as Molchanov 2017 recommends; else a unit whose absence lowers the
            loss scores below zero.
        squared: rate by the mean over batches of the squared change of each (Molchanov 2019) instead; how samples are
            put into batches then makes a difference.
        samples: at most so many samples, each under one mask, in one pass (one mask's batch at least).
    """

    about = About("Molchanov 2017, section 2.2", needs=("activations", "labels"), coupled="all silenced")

    loader: Iterable[object]
    loss: Callable[..., Tensor]
    absolute: bool = False
    samples: int = 256
    squared: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        if self.absolute and self.squared:
            raise UserMistake("an oracle is of absolute changes or of squared ones; drop absolute=True or squared=True")

    def __call__(self, graph: Graph) -> Mapping[str, Tensor]:
        """Return the scores, ``(units,)`` for each group.

        Raises:
            UserMistake: there are no batches, something else is given as one, or the loss is no scalar.
            Ungatable: some unit cannot be silenced, or samples meet in eval mode.
        """
        if not graph.groups:
            return {}
        units = {group.name: torch.arange(group.units) for group in graph.groups}
        means, _ = changes_without(
            Restarts(graph), units, self.loader, self.loss, samples=self.samples, squared=self.squared
        )
        return {name: mean.abs() if self.absolute else mean for name, mean in means.items()}


def changes_without(
    restarts: Restarts,
    units: Mapping[str, Tensor],
    loader: Iterable[object],
    loss: Callable[..., Tensor],
    *,
    samples: int,
    squared: bool = False,
) -> tuple[dict[str, Tensor], int]:
    """Return by how much the loss changes without each of some units, alone, over all batches and processes.

    Args:
        restarts: made of the traced model with masks where channels are consumed; it runs in eval mode.
        units: numbers of the units to be tried, ``(K,)`` for each of some groups' names.
        loader: batches ``(inputs, labels)``.
        loss: of outputs and labels, averaged over the samples.
        samples: see ``Oracle``.
        squared: see ``Oracle``.

    Returns:
        The mean change for each, ``(K,)`` in double precision, zero in groups that run in train mode alone; and the
        multiply-accumulates that it took.

    Raises:
        UserMistake: there are no batches, something else is given as one, or the loss is no scalar.
        Ungatable: samples meet in eval mode.
    """
    graph, count, macs = restarts.graph, 0, 0
    sizes = {group.name: group.units for group in graph.groups}
    device = device_of(graph)
    changes = {name: torch.zeros(len(own), dtype=torch.float64) for name, own in units.items()}
    modes = set_training(graph.model, False)
    try:
        with random_state_kept(), torch.no_grad():
            for inputs, labels in batches_of(graph, loader):
                run = restarts.on(inputs)
                before = float(loss_of(loss, run.plain(), labels))
                for name in (name for name in run.order if name in units):
                    for some in torch.arange(len(units[name])).split(max(1, samples // run.samples)):
                        found = losses_without(run, name, units[name][some], sizes[name], loss, labels) - before
                        changes[name][some] += (found.square() if squared else found) * run.samples
                count, macs = count + run.samples, macs + run.macs
    finally:
        set_training(graph.model, modes)
    total = seen(count, device)
    means = {name: over_ranks(change.to(device)) / total for name, change in changes.items()}
    return means, int(over_ranks(torch.tensor(macs, device=device)))


def losses_without(
    run: Restart, name: str, units: Tensor, count: int, loss: Callable[..., Tensor], labels: object
) -> Tensor:
    """Return the losses of a batch without each of some units, all in one pass.

    Args:
        run: the batch.
        name: the units' group.
        units: their numbers, ``(K,)``.
        count: how many units the group has.
        loss: of outputs and labels.
        labels: the batch's.

    Returns:
        The losses ``(K,)`` in double precision.
    """
    masks = torch.ones(len(units), count)
    masks[torch.arange(len(units)), units] = 0
    return torch.tensor(
        [float(loss_of(loss, outputs, labels)) for outputs in run.each({name: masks})], dtype=torch.float64
    )
