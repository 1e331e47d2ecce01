"""A cut network beside the original: whom removed filters join, how interactions differ, and recovery."""

from typing import Any

import numpy as np

from cutback.graph.graph import Graph
from cutback.methods.snpfi.calibration import Calibration
from cutback.methods.snpfi.game import Arena, GroupGame, Quotient
from cutback.methods.snpfi.joining import assignments
from cutback.methods.snpfi.recovery import Objective, recovered_
from cutback.methods.snpfi.sampling import interaction_difference
from cutback.methods.snpfi.worth import log_odds
from cutback.planning.plan import Plan
from cutback.surgery.columns import columns_cut, followed


class Repair:
    """What recovery needs to know of a cut.

    Args:
        dense: the network before the cut, in eval mode.
        cut: the network after it.
        plan: the plan between them.
        pictures: the calibration pictures.
        objective: what is minimised.
        rows: pictures under coalitions in one pass.

    Attributes:
        pairs: names of the groups that lost units, before and after the cut.
        kept: for each of these, by its name before, its units that stay, in the order they have now.
    """

    def __init__(
        self, dense: Graph, cut: Graph, plan: Plan, pictures: Calibration, objective: Objective, rows: int
    ) -> None:
        self._dense, self._cut, self._plan = dense, cut, plan
        self._pictures, self._objective, self._rows = pictures, objective, rows
        self.pairs: dict[str, str] = {}
        self.kept: dict[str, list[int]] = {}
        now = followed(dense, cut, plan)
        for planned in plan.groups:
            if len(planned.kept) < planned.total:
                name, self.kept[planned.name] = now.get(planned.name, ("", list(planned.kept)))
                if name:
                    self.pairs[planned.name] = name

    def apply_(self, triples: int, seed: int) -> dict[str, Any]:
        """Recover the cut network in place; return how far interactions were apart before and after, for JSON.

        Args:
            triples: pairs in contexts that are compared.
            seed: of their draw.

        Raises:
            CutbackError: a coalition cannot be tried.
        """
        joined = assignments(self._dense, self.kept, self._pictures)
        numbers = {number: joined[g.name] for number, g in enumerate(self._dense.groups) if g.name in joined}
        columns, left = columns_cut(self._dense, self._plan)
        arena = Arena(self._dense, list(self.pairs), self._pictures, self._rows)
        own = Arena(self._cut, list(self.pairs.values()), self._pictures, self._rows)
        original = {
            name: Quotient(GroupGame(arena, name, len(joined[name]), log_odds), joined[name]) for name in arena.order
        }
        before = self._differences(original, own, triples, seed)
        done, skipped = recovered_(self._dense, self._cut, columns, numbers, self._pictures, self._objective)
        own.renew()
        after = self._differences(original, own, triples, seed)
        return {
            "recovered": done,
            "not_recovered": {**left, **skipped},
            "interaction_difference": {name: {"before": before[name], "after": after[name]} for name in before},
        }

    def _differences(
        self, original: dict[str, Quotient], arena: Arena, triples: int, seed: int
    ) -> dict[str, dict[str, float]]:
        """Return ``D`` of each group with its standard error; the same triples are drawn each time."""
        found: dict[str, dict[str, float]] = {}
        for number, (name, game) in enumerate(original.items()):
            own = GroupGame(arena, self.pairs[name], game.units, log_odds)
            apart = interaction_difference(own, game, triples, np.random.default_rng([seed, number, 1]))
            if apart is not None:
                found[name] = {"mean": float(apart.mean), "error": float(apart.error)}
        return found
