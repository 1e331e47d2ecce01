"""In which order the filters of a layer go: repeats first, no function lost as long as one is there twice."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cutback.methods.in_order import Leaving

Values = NDArray[np.float64]
Labels = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Layer:
    """What is known of the filters of a layer.

    Attributes:
        labels: the cluster of each, ``(units,)``; -1 for dead ones, which are in none.
        plain: contribution index ``C`` of each.
        scaled: contribution index ``C'`` of each.
    """

    labels: Labels
    plain: Values
    scaled: Values

    @property
    def clusters(self) -> int:
        """How many functions there are, at least one."""
        return max(1, len(set(self.labels[self.labels >= 0].tolist())))

    @property
    def repeats(self) -> int:
        """How many filters may go without loss of a function."""
        return len(self.labels) - self.clusters

    @property
    def keys(self) -> Values:
        """The share of the redundancy at which so many are gone, ``(units,)``; above 1 functions are lost."""
        gone = np.arange(1, len(self.labels) + 1, dtype=np.float64)
        return gone / self.repeats if self.repeats else np.full(len(gone), np.inf)

    def coverage(self, kept: Sequence[int]) -> float:
        """Return the share of functions of which a filter stays."""
        there = set(self.labels[list(kept)].tolist()) - {-1}
        return min(1.0, len(there) / self.clusters) if (self.labels >= 0).any() else 1.0


def inside_clusters(layer: Layer) -> Leaving:
    """Return the order of functionality-oriented pruning.

    Dead filters go first. Then, again and again, of the cluster that most filters are left of (of equal ones that with
    the smaller least contribution) the one that contributes least. Once every function has one filter, these go by
    what they contribute, scale aside: functions are lost.
    """
    return Leaving(_order(layer), layer.keys)


def by_value(layer: Layer, values: Values) -> Leaving:
    """Return the order of the lowest values first, as many of each layer as functionality-oriented pruning takes."""
    return Leaving(np.argsort(values, kind="stable").tolist(), layer.keys)


def _order(layer: Layer) -> list[int]:
    dead = np.flatnonzero(layer.labels < 0)
    order = dead[np.argsort(layer.plain[dead], kind="stable")].tolist()
    left: dict[int, list[int]] = {}
    for unit, label in enumerate(layer.labels.tolist()):
        if label >= 0:
            left.setdefault(label, []).append(unit)
    for members in left.values():
        members.sort(key=lambda unit: layer.plain[unit])
    while any(len(members) > 1 for members in left.values()):
        label = min(left, key=lambda label: (-len(left[label]), layer.plain[left[label][0]]))
        order.append(left[label].pop(0))
    alone = [members[0] for members in left.values()]
    return order + sorted(alone, key=lambda unit: layer.scaled[unit])
