"""Importance of filters and interactions among them, by sampled orders and contexts, with the error of each figure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from cutback.methods.snpfi.game import Game, Values

STRAIGHT = 1e-6
"""Draws of less skewness are taken to have none."""


@dataclass(frozen=True, eq=False)
class Estimate:
    """Means over independent draws.

    Attributes:
        mean: the figures, of any shape.
        error: the standard error of each; infinite for a single draw.
        skewness: of the draws of each: how much farther the rare ones lie above the mean than below.
        draws: how many draws they are the means of.
    """

    mean: Values
    error: Values
    skewness: Values
    draws: int

    @classmethod
    def of(cls, drawn: Values) -> "Estimate":
        """Return the means of draws ``(draws, ...)``."""
        count = len(drawn)
        mean = np.asarray(drawn.mean(axis=0))
        if count < 2:
            return cls(mean, np.full_like(mean, np.inf), np.zeros_like(mean), count)
        apart = drawn - mean
        spread = np.sqrt((apart**2).mean(axis=0))
        skewness = (apart**3).mean(axis=0) / np.where(spread > 0, spread, 1.0) ** 3
        return cls(mean, drawn.std(axis=0, ddof=1) / np.sqrt(count), np.asarray(skewness), count)

    def interval(self, confidence: float = 0.99) -> tuple[Values, Values]:
        """Return the bounds between which the true figures lie with a confidence.

        Of what a filter changes most is changed in few of the contexts, so that draws are skewed, and intervals to both
        sides alike would miss too often. They are Student's, of a cubic function of the mean that has no skewness (P.
        Hall, "On the Removal of Skewness by Transformation", J. R. Stat. Soc. B 54, 1992).
        """
        if self.draws < 2:
            return self.mean - np.inf, self.mean + np.inf
        quantile = float(cast("float", student.ppf((1 + confidence) / 2, self.draws - 1)))
        slope = self.skewness / (3 * np.sqrt(self.draws))
        bent = np.where(np.abs(slope) > STRAIGHT, slope, 1.0)

        def bound(side: float) -> Values:
            straight = side - slope / 2
            return np.where(np.abs(slope) > STRAIGHT, (np.cbrt(1 + 3 * bent * straight) - 1) / bent, straight)

        return self.mean - bound(quantile) * self.error, self.mean - bound(-quantile) * self.error


@dataclass(frozen=True, eq=False)
class Walks:
    """What a network gains, unit by unit, in random orders and their reverses.

    Attributes:
        orders: places of the players, ``(pairs, 2, players)``: each order, then its reverse.
        gains: what the one that comes at each place brings, in the same shape.
    """

    orders: NDArray[np.int64]
    gains: Values

    def _by_player(self, values: Values) -> Values:
        """Return values ``(pairs, 2, places)`` averaged over a pair, for each player, ``(pairs, players)``."""
        return np.take_along_axis(values, np.argsort(self.orders, axis=2), axis=2).mean(axis=1)

    @property
    def importance(self) -> Estimate:
        """``J``: the mean magnitude of what each player changes, ``(players,)``; see the README, *Steps*."""
        return Estimate.of(self._by_player(np.abs(self.gains)))

    @property
    def shapley(self) -> Estimate:
        """The mean of what each player brings: its Shapley value, ``(players,)``."""
        return Estimate.of(self._by_player(self.gains))

    @property
    def marginal(self) -> Estimate:
        """``g(m)``: what a random player brings to ``m`` others, ``(players,)``."""
        return Estimate.of(self.gains.mean(axis=1))


def walked(game: Game, players: Sequence[int], pairs: int, generator: np.random.Generator) -> Walks:
    """Let players join one by one in random orders, each also in reverse; all others are out of it.

    Args:
        game: the game.
        players: numbers of those that take part.
        pairs: how many orders.
        generator: source of the draw.
    """
    count = len(players)
    drawn = np.stack([generator.permutation(count) for _ in range(pairs)])
    orders = np.stack([drawn, drawn[:, ::-1]], axis=1)
    joined = np.arange(count + 1)[:, None] > np.argsort(orders, axis=2)[:, :, None, :]  # (pairs, 2, count + 1, count)
    coalitions = np.zeros((*joined.shape[:3], game.units), dtype=bool)
    coalitions[..., list(players)] = joined
    values = game.of(coalitions.reshape(-1, game.units)).reshape(joined.shape[:3])
    return Walks(orders, np.diff(values, axis=2))


def interactions(game: Game, members: NDArray[np.int64], contexts: NDArray[np.bool_]) -> Values:
    """Return what sets of players bring together beyond what their parts do, each in a context.

    The alternating sum ``sum_L (-1)^(|A| - |L|) V(S + L)`` over the subsets ``L`` of the set ``A``; for pairs
    ``V(S + i + j) - V(S + i) - V(S + j) + V(S)``. Above zero they need each other, below they can replace each other.

    Args:
        game: the game.
        members: the sets, ``(K, size)``.
        contexts: who else is there, ``(K, units)``, none of the members.
    """
    count, size = members.shape
    subsets = (np.arange(2**size)[:, None] >> np.arange(size)) & 1 == 1  # (2 ** size, size)
    coalitions = np.repeat(contexts[:, None], len(subsets), axis=1)
    rows, columns = np.arange(count)[:, None, None], np.arange(len(subsets))[None, :, None]
    coalitions[rows, columns, members[:, None, :]] = subsets[None]
    signs = np.where((size - subsets.sum(axis=1)) % 2, -1.0, 1.0)
    return game.of(coalitions.reshape(-1, game.units)).reshape(count, -1) @ signs


def interaction(game: Game, members: Sequence[int], order: int, draws: int, generator: np.random.Generator) -> Estimate:
    """Return the interaction of a set of players in random contexts of one size.

    Args:
        game: the game.
        members: the players: two for the pairwise interaction ``I_m(i, j)``, any number for the multivariate one.
        order: how many others are there, ``m``.
        draws: how many contexts.
        generator: source of the draw.
    """
    others = np.setdiff1d(np.arange(game.units), np.array(members))
    contexts = np.zeros((draws, game.units), dtype=bool)
    for row in contexts:
        row[generator.choice(others, order, replace=False)] = True
    return Estimate.of(interactions(game, np.tile(np.array(members), (draws, 1)), contexts))


def interaction_difference(first: Game, second: Game, draws: int, generator: np.random.Generator) -> Estimate | None:
    """Return how far the pairwise interactions of two games on the same players are apart: ``D``.

    The mean magnitude of ``I(i, j | S)`` of one less that of the other, over random orders, pairs and contexts.

    Args:
        first: a game.
        second: another one of as many players.
        draws: how many pairs in contexts.
        generator: source of the draw.

    Returns:
        ``None`` where there are no pairs.
    """
    units = first.units
    if units < 2:
        return None
    members = np.zeros((draws, 2), dtype=np.int64)
    contexts = np.zeros((draws, units), dtype=bool)
    for pair, context in zip(members, contexts, strict=True):
        drawn = generator.permutation(units)
        pair[:] = drawn[:2]
        context[drawn[2 : 2 + generator.integers(units - 1)]] = True
    apart = interactions(first, members, contexts) - interactions(second, members, contexts)
    return Estimate.of(np.abs(apart))
