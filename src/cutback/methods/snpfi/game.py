"""A layer as a cooperative game: units of a group are players, a coalition is worth what the network then knows."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cutback.errors import InvalidScore
from cutback.gates import Restart, Restarts
from cutback.graph.graph import Graph
from cutback.methods.activations import class_logits
from cutback.methods.snpfi.calibration import Calibration
from cutback.scores.data import device_of, over_ranks, seen

Coalitions = NDArray[np.bool_]
Values = NDArray[np.float64]


class Game(Protocol):
    """Players, and what coalitions of them are worth.

    Attributes:
        units: how many players there are.
    """

    units: int

    def of(self, coalitions: Coalitions) -> Values:
        """Return the worth of coalitions ``(K, units)``, each a row of who is in it: ``(K,)``."""
        ...


class Arena:
    """A model on the calibration pictures, for the games of its groups.

    Every picture is run once up to the layer that consumes a group; from there on coalitions are tried, many in one
    pass. Play the groups in their order, so that what was run once is run on and not anew.

    Args:
        graph: the traced model, in eval mode (see ``looked_at``).
        groups: names of the groups that are played.
        pictures: the calibration pictures.
        rows: so many pictures under coalitions go into one pass (those of one coalition at least).

    Attributes:
        evaluated: on how many pictures a coalition was tried, of all games together.
    """

    def __init__(self, graph: Graph, groups: Sequence[str], pictures: Calibration, rows: int) -> None:
        self._restarts, self._pictures = Restarts(graph, "consumer", groups=groups), pictures
        self.graph, self.rows, self.evaluated = graph, rows, 0
        self.runs: list[tuple[Restart, Tensor]] = []
        self.images = seen(pictures.images, device_of(graph))
        self.renew()

    def renew(self) -> None:
        """Begin anew: the model's values have changed, or the groups are played in another order."""
        self.runs = [(self._restarts.on(inputs), own) for inputs, own in self._pictures.batches]

    @property
    def order(self) -> list[str]:
        """The groups in the order of the layers that consume them."""
        return self.runs[0][0].order

    def worths(self, masks: Mapping[str, Tensor], worth: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Return the mean worth of the network under each mask, over all pictures of all processes, ``(K,)``.

        Args:
            masks: for one group or several one row a coalition, ``(K, units)``.
            worth: of logits and labels, (N,).
        """
        count = len(next(iter(masks.values())))
        total = torch.zeros(count, dtype=torch.float64)
        for run, labels in self.runs:
            most = max(1, self.rows // run.samples)
            for part in torch.arange(count).split(most):
                padded = _padded(part, most)  # few sizes of passes, since each one is captured anew
                outputs = run.masked({name: mask[padded] for name, mask in masks.items()})
                logits = class_logits(outputs, len(padded) * run.samples, "snpfi")
                each = worth(logits, labels.repeat(len(padded))).view(len(padded), -1)
                total[part] += each.sum(1)[: len(part)].cpu()
                self.evaluated += len(padded) * run.samples
        device = device_of(self.graph)
        return over_ranks(total.to(device)).cpu() / self.images


class GroupGame:
    """The units of one group, played in an arena; what is known already is not tried again.

    Args:
        arena: the model and the pictures.
        name: the group's.
        units: how many units it has.
        worth: of logits and labels, (N,).
    """

    def __init__(self, arena: Arena, name: str, units: int, worth: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.name, self.units = name, units
        self._arena, self._worth = arena, worth
        self._known: dict[bytes, float] = {}

    def of(self, coalitions: Coalitions) -> Values:
        """Return the worth of coalitions ``(K, units)``: ``(K,)``.

        Raises:
            InvalidScore: it is not finite.
        """
        keys = [row.tobytes() for row in np.packbits(coalitions, axis=1)]
        fresh = {key: place for place, key in reversed(list(enumerate(keys))) if key not in self._known}
        if fresh:
            rows = torch.from_numpy(coalitions[list(fresh.values())].astype(np.float32))
            found = self._arena.worths({self.name: rows}, self._worth).tolist()
            if not np.isfinite(found).all():
                raise InvalidScore(
                    f"the network is worth NaN or infinity with some filters of {self.name} alone; load sound weights"
                )
            self._known.update(zip(fresh, found, strict=True))
        return np.array([self._known[key] for key in keys], dtype=np.float64)


class Quotient:
    """A game on those that stay, in which each brings along all that joined it (the original network's side).

    Args:
        game: of all units.
        joined: for each unit the place of the one it belongs to among those that stay, ``(units,)``.
    """

    def __init__(self, game: Game, joined: NDArray[np.int64]) -> None:
        self.units = int(joined.max()) + 1
        self._game, self._joined = game, joined

    def of(self, coalitions: Coalitions) -> Values:
        """Return the worth of coalitions ``(K, units)``: ``(K,)``."""
        return self._game.of(coalitions[:, self._joined])


def _padded(part: Tensor, most: int) -> Tensor:
    """Return indices repeated up to a power of two, or up to the most."""
    size = min(most, 1 << (len(part) - 1).bit_length())
    return torch.cat([part, part[-1:].expand(size - len(part))])
