"""The search of one layer: which of its filters, taken out together, do the next layer the least damage."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

Action = Literal["prune", "halve", "restart"]
_KEPT = ("searched", "out", "damage", "drawn")


@dataclass(frozen=True)
class Decision:
    """What the end of a half has shown.

    Attributes:
        action: ``prune``: the picked filters go, and a new move begins. ``halve``: the search goes on among them.
            ``restart``: a single filter was picked, and does too much damage; a new move begins.
        searched: how many filters were searched.
        picked: their half of the lowest mean damage, the lowest first.
        worst: the highest mean damage among the picked ones; infinite where one was never taken out.
    """

    action: Action
    searched: int
    picked: tuple[int, ...]
    worst: float


class Search:
    """Random halving among the filters of one layer.

    Args:
        filters: how many the layer has.
        start: the iteration at which the search begins, the first being 0.

    Attributes:
        filters: how many the layer has.
        start: the iteration at which the search begins.
        searched: the filters among which is searched, ``(filters,)`` of bool.
        out: those that are taken out in the present iteration, ``(filters,)`` of bool.
        damage: the sum of the damage of the iterations in which each was out, ``(filters,)`` in double precision.
        drawn: how many these were, ``(filters,)``.
        done: iterations of the present half.
    """

    def __init__(self, filters: int, start: int) -> None:
        self.filters, self.start = filters, start
        self._begin(np.ones(filters, dtype=np.bool_))

    @property
    def granularity(self) -> int:
        """How many filters are out at a time: half of those that are searched, rounded down."""
        return int(self.searched.sum()) // 2

    def draw(self, generator: torch.Generator) -> None:
        """Draw the filters that are out in the next iteration."""
        own = np.flatnonzero(self.searched)
        order = torch.randperm(len(own), generator=generator).numpy()
        self.out = np.zeros(self.filters, dtype=np.bool_)
        self.out[own[order[: len(own) // 2]]] = True

    def add(self, damage: float | None) -> None:
        """Add what an iteration has shown.

        Args:
            damage: what the filters that are out did; ``None`` where that cannot be told.
        """
        self.done += 1
        if damage is not None:
            self.damage[self.out] += damage
            self.drawn[self.out] += 1

    def means(self) -> NDArray[np.float64]:
        """Return the mean damage of the iterations in which each filter was out, infinite where it never was."""
        return np.where(self.drawn > 0, self.damage / np.maximum(self.drawn, 1), np.inf)

    def decision(self, threshold: float) -> Decision:
        """Return what follows of the half; nothing changes.

        Args:
            threshold: the picked filters go where the worst of them is below it.
        """
        own, means = np.flatnonzero(self.searched), self.means()
        picked = own[np.argsort(means[own], kind="stable")[: self.granularity]]
        worst = float(means[picked].max())
        alone: Action = "halve" if len(picked) > 1 else "restart"
        return Decision("prune" if worst < threshold else alone, len(own), tuple(picked.tolist()), worst)

    def follow(self, decision: Decision, gone: int = 0) -> None:
        """Begin the next half, or the next move.

        Args:
            decision: what was decided.
            gone: how many filters the layer has lost by it.
        """
        self.filters -= gone
        searched = np.ones(self.filters, dtype=np.bool_)
        if decision.action == "halve":
            searched[:] = False
            searched[list(decision.picked)] = True
        self._begin(searched)

    def state_dict(self) -> dict[str, Any]:
        """Return all that is needed to go on."""
        tensors = {name: torch.from_numpy(getattr(self, name).copy()) for name in _KEPT}
        return {"filters": self.filters, "start": self.start, "done": self.done, **tensors}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Search":
        """Return the search that ``state_dict`` was of."""
        search = cls(int(state["filters"]), int(state["start"]))
        for name in _KEPT:
            setattr(search, name, state[name].numpy().copy())
        search.done = int(state["done"])
        return search

    def _begin(self, searched: NDArray[np.bool_]) -> None:
        """Begin a half among some filters."""
        self.searched, self.done = searched, 0
        self.out = np.zeros(self.filters, dtype=np.bool_)
        self.damage = np.zeros(self.filters)
        self.drawn = np.zeros(self.filters, dtype=np.int64)
