"""How far filters' functions drift while a cut network is trained again."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from cutback.graph.graph import Graph
from cutback.methods.functionality.ascent import Ascent
from cutback.methods.functionality.looking import Look, looks
from cutback.methods.functionality.sight import Sight

RESHAPED = 0.5
"""A layer of a higher median drift has been reshaped."""


@dataclass(frozen=True, eq=False)
class Drift:
    """What the filters that stay looked for before.

    Attributes:
        vectors: for each group of the cut network the pictures' vectors, ``(units, pixels)``.
        sights: what is seen, for each place of each.
        units: which unit of the dense network each unit was.
    """

    vectors: Mapping[str, Tensor]
    sights: Mapping[str, Sequence[Sight]]
    units: Mapping[str, Sequence[int]]

    @classmethod
    def since_cut(cls, seen: Mapping[str, Look], now: Mapping[str, tuple[str, Sequence[int]]]) -> "Drift":
        """Return what the filters that stay looked for in the dense network.

        Args:
            seen: what all filters looked for, by the names before the cut.
            now: what groups have become, see ``followed``.
        """
        pairs = {name: now[name] for name in seen if name in now}
        return cls(
            {after: seen[name].vectors[list(units)] for name, (after, units) in pairs.items()},
            {after: seen[name].sights for name, (after, _) in pairs.items()},
            {after: list(units) for after, units in pairs.values()},
        )

    def renewed(self, graph: Graph, how: Ascent) -> "Drift":
        """Return the same with what the filters look for now; the model is in eval mode."""
        now = looks(graph, self.sights, how)
        return Drift({name: look.vectors for name, look in now.items()}, self.sights, self.units)

    def measured(self, graph: Graph, how: Ascent) -> tuple[dict[str, Any], dict[str, Look]]:
        """Return ``1 - corr(before, now)`` of each filter and the medians, for JSON, and what is looked for now.

        Args:
            graph: the traced model, in eval mode.
            how: how pictures are made: from the same beginning as before.
        """
        now = looks(graph, self.sights, how)
        told: dict[str, Any] = {}
        for name, look in now.items():
            each = 1 - (self.vectors[name] * look.vectors).sum(1)
            median = float(each.quantile(0.5))
            told[name] = {"each": each.tolist(), "median": median, "reshaped": median > RESHAPED}
        return told, now

    def to_tree(self) -> dict[str, Any]:
        """Return all of it for a checkpoint."""
        return {
            "vectors": {name: vectors.clone() for name, vectors in self.vectors.items()},
            "sights": {
                name: [{key: list(value) for key, value in asdict(sight).items()} for sight in sights]
                for name, sights in self.sights.items()
            },
            "units": {name: list(units) for name, units in self.units.items()},
        }

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any]) -> "Drift":
        """Read what ``to_tree`` has written."""
        sights = {
            name: [Sight(*(tuple(map(int, given[key])) for key in ("crop", "seen", "position"))) for given in each]  # type: ignore[arg-type]
            for name, each in tree["sights"].items()
        }
        vectors = {name: torch.as_tensor(value).clone() for name, value in tree["vectors"].items()}
        return cls(vectors, sights, {name: list(map(int, units)) for name, units in tree["units"].items()})
