"""All that is found out about the filters of a network before it is cut."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cutback.graph.graph import Graph
from cutback.graph.inputs import Inputs
from cutback.methods.activations import Products, looked_at, products
from cutback.methods.functionality.ascent import Ascent
from cutback.methods.functionality.clustering import Clustering, clustered
from cutback.methods.functionality.contribution import contributions
from cutback.methods.functionality.looking import Look, looks
from cutback.methods.functionality.quota import Layer
from cutback.methods.functionality.sheet import Row
from cutback.planning.plan import Plan


@dataclass(frozen=True, eq=False)
class Study:
    """What was found out, by group.

    Attributes:
        seen: what filters look for.
        layers: their clusters and contributions.
        together: how their activations go together.
    """

    seen: Mapping[str, Look]
    layers: Mapping[str, Layer]
    together: Mapping[str, Products]

    def rows(self, plan: Plan) -> list[Row]:
        """Return the layers of a contact sheet, which shows what a plan keeps."""
        kept = {group.name: set(group.kept) for group in plan.groups}
        return [
            Row(
                name,
                look.pictures,
                range(len(look.pictures)),
                self.layers[name].labels.tolist(),
                [unit in kept[name] for unit in range(len(look.pictures))],
            )
            for name, look in self.seen.items()
        ]

    def told(self, plan: Plan) -> dict[str, object]:
        """Return what was found out about each layer and what a plan keeps of it, for JSON."""
        kept = {group.name: group.kept for group in plan.groups}
        return {
            name: {
                "clusters": layer.labels.tolist(),
                "functions": layer.clusters,
                "dead": int((layer.labels < 0).sum()),
                "contribution": layer.plain.tolist(),
                "scaled_contribution": layer.scaled.tolist(),
                "kept": list(kept[name]),
                "coverage": layer.coverage(kept[name]),
                "functions_lost": round((1 - layer.coverage(kept[name])) * layer.clusters),
                "activations_correlate": _inside(layer, self.together[name]),
            }
            for name, layer in self.layers.items()
        }


def studied(
    graph: Graph, names: Sequence[str], pictures: Sequence[Inputs], ascent: Ascent, clustering: Clustering
) -> Study:
    """Find out what the filters of groups look for, which look for the same, and what they contribute.

    Args:
        graph: the traced model.
        names: of the groups.
        pictures: batches of training pictures.
        ascent: how filters' pictures are made.
        clustering: how filters are put together.
    """
    index = contributions(graph, names, pictures)
    with looked_at(graph):
        together = products(graph, names, pictures)
        seen = looks(graph, dict.fromkeys(names), ascent)
    layers: dict[str, Layer] = {}
    for name, look in seen.items():
        labels = np.full(len(look.dead), -1, dtype=np.int64)
        alive = np.flatnonzero(~look.dead.numpy())
        if len(alive):
            labels[alive] = clustered(look.vectors.numpy()[alive], clustering)
        layers[name] = Layer(labels, index[name].plain.numpy(), index[name].scaled.numpy())
    return Study(seen, layers, together)


def _inside(layer: Layer, found: Products) -> float | None:
    """Return how much activations of filters of one function correlate, on average; ``None`` where all are alone."""
    same = (layer.labels[:, None] == layer.labels[None]) & (layer.labels >= 0)[:, None]
    pairs = np.triu(same, 1)
    return float(found.correlation[pairs].mean()) if pairs.any() else None
