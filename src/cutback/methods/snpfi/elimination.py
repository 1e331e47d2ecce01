"""Backward elimination by importance, and how much of a layer's decision its best filters still carry."""

from dataclasses import dataclass

import numpy as np

from cutback.methods.in_order import Leaving
from cutback.methods.snpfi.game import Game, Values
from cutback.methods.snpfi.sampling import Estimate, Walks, walked

SHORTCUT = 0.05
"""A layer that brings less, in nats, is passed by on a shortcut: its utilisation is told in nats, not as a share."""


@dataclass(frozen=True, eq=False)
class Elimination:
    """In which order the units of a layer went, and what was found on the way.

    Attributes:
        order: all units, the first to go first.
        first: what was sampled while all were there.
        importance: that of each unit when it was last estimated, ``(units,)``, with its standard error.
        worth: ``V`` of the nested sets: of the ``m`` units that go last, ``(units + 1,)``, ``m`` from zero.
    """

    order: tuple[int, ...]
    first: Walks
    importance: Estimate
    worth: Values

    @property
    def strength(self) -> Values:
        """``U(m)``: the share of the layer's gain that its best ``m`` units deliver together, ``(units + 1,)``.

        Where the whole layer gains less than ``SHORTCUT``: one less what is lost, in nats.
        """
        gain = self.worth[-1] - self.worth[0]
        return 1 - (self.worth[-1] - self.worth) / (gain if gain >= SHORTCUT else 1.0)

    @property
    def leaving(self) -> Leaving:
        """Order and thresholds: ``j`` units may go once ``1 - U`` is at most epsilon for all widths not below that."""
        keys = 1 - self.strength[::-1]
        return Leaving(self.order, np.maximum.accumulate(np.maximum(keys[1:], 0.0)))


def block_of(units: int, block: int | None) -> int:
    """Return how many units go before importance is estimated anew: one of up to 32 units, else a sixteenth."""
    return block if block is not None else 1 if units <= 32 else -(-units // 16)


def eliminated(
    game: Game, *, pairs: int, block: int | None, generator: np.random.Generator, signed: bool = False
) -> Elimination:
    """Remove the units of the lowest importance, again and again, estimating importance anew in between.

    Args:
        game: the game of a group.
        pairs: orders that are drawn at each estimate, each walked in both directions.
        block: units that go before importance is estimated anew; ``None`` for what the number of units suggests.
        generator: source of the draw.
        signed: rank by Shapley values instead.
    """
    units, step = game.units, block_of(game.units, block)
    left, order = list(range(units)), list[int]()
    mean, error, skewness = np.zeros((3, units))
    first: Walks | None = None
    while first is None or len(left) > 1:
        walks = walked(game, left, pairs, generator)
        first = first or walks
        importance = walks.shapley if signed else walks.importance
        mean[left], error[left], skewness[left] = importance.mean, importance.error, importance.skewness
        lowest = np.argsort(importance.mean, kind="stable")[: min(step, len(left) - 1)]
        gone = [left[place] for place in lowest.tolist()]
        order += gone
        left = [unit for unit in left if unit not in gone]
    order += left
    nested = np.zeros((units + 1, units), dtype=bool)
    for size in range(1, units + 1):
        nested[size, order[units - size :]] = True
    return Elimination(tuple(order), first, Estimate(mean, error, skewness, pairs), game.of(nested))
