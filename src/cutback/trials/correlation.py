"""How well scores foretell what the loss does without a unit: correlation with an oracle that tries each.

P. Molchanov et al., "Importance Estimation for Neural Network Pruning", CVPR 2019, section 4: Pearson's, Spearman's and
Kendall's coefficients, for each layer and over all, with and without the gates of skip connections.
"""

import json
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from cutback.errors import UserMistake
from cutback.gates import stream_groups
from cutback.graph.graph import Graph
from cutback.scores.catalogue import Score, score_groups

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Agreement:
    """How far two sets of values go together; from -1 to 1, ``None`` where one of them has a single value only.

    Attributes:
        units: how many values there are.
        pearson: of the values.
        log_pearson: of the logarithms of their sizes; zeros count as the smallest size there is beside zero.
        spearman: of the ranks.
        kendall: tau-b: how many pairs are in the same order, less those in the opposite one.
    """

    units: int
    pearson: float | None
    log_pearson: float | None
    spearman: float | None
    kendall: float | None

    @classmethod
    def between(cls, first: Values, second: Values) -> "Agreement":
        """Compare two sets of values of the same units, ``(units,)`` each.

        Example:
            >>> Agreement.between(np.array([1.0, 2.0, 4.0]), np.array([1.0, 8.0, 64.0])).spearman
            1.0
        """
        logarithms = _logarithms(first), _logarithms(second)
        return cls(
            len(first),
            _coefficient(stats.pearsonr, first, second),
            _coefficient(stats.pearsonr, *logarithms),
            _coefficient(stats.spearmanr, first, second),
            _coefficient(stats.kendalltau, first, second),
        )


@dataclass(frozen=True, eq=False)
class Correlation:
    """What several scores and an oracle say of a network's units.

    Attributes:
        oracle: for each group what the oracle says of its units, ``(units,)``.
        scores: for each score's name the same.
        streams: the groups that are streams of residual blocks.
    """

    oracle: Mapping[str, Values]
    scores: Mapping[str, Mapping[str, Values]]
    streams: frozenset[str]

    @cached_property
    def overall(self) -> dict[str, Agreement]:
        """How each score agrees with the oracle over all units together."""
        return self._over(list(self.oracle))

    @cached_property
    def without_streams(self) -> dict[str, Agreement]:
        """The same without the units of streams."""
        return self._over([group for group in self.oracle if group not in self.streams])

    @cached_property
    def groups(self) -> dict[str, dict[str, Agreement]]:
        """For each score's name how it agrees with the oracle in each group."""
        return {
            name: {group: Agreement.between(values[group], self.oracle[group]) for group in self.oracle}
            for name, values in self.scores.items()
        }

    def _over(self, groups: list[str]) -> dict[str, Agreement]:
        """Return how each score agrees with the oracle over the units of some groups."""
        truth = _joined(self.oracle, groups)
        return {name: Agreement.between(_joined(values, groups), truth) for name, values in self.scores.items()}

    def to_json(self) -> str:
        """Return all values and coefficients as JSON."""
        document = {
            "oracle": {group: values.tolist() for group, values in self.oracle.items()},
            "streams": sorted(self.streams),
            "scores": {
                name: {
                    "overall": asdict(self.overall[name]),
                    "without_streams": asdict(self.without_streams[name]),
                    "groups": {group: asdict(found) for group, found in self.groups[name].items()},
                    "values": {group: own.tolist() for group, own in values.items()},
                }
                for name, values in self.scores.items()
            },
        }
        return json.dumps(document)


def correlate(
    graph: Graph,
    scores: Mapping[str, str | Score | type[Score]],
    oracle: Score,
    *,
    told: Callable[[int, int, str], None] | None = None,
) -> Correlation:
    """Compare scores with an oracle, such as ``cutback.scores.Oracle(loader, loss, squared=True)``.

    Args:
        graph: the traced model.
        scores: what is compared, by the name it is to have in the result; see ``cutback.plan`` for what is a score.
            Give those that need data the oracle's batches.
        oracle: what they are compared with.
        told: called with how many of how many have been computed, and which is next.

    Raises:
        UserMistake: there is no score, or no group.
        CutbackError: see ``cutback.plan``.

    Example:
        >>> import torch, cutback
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 2, 3))
        >>> net = net.extend([torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()])
        >>> loader, loss = [(torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 1, 0]))], torch.nn.functional.cross_entropy
        >>> graph = cutback.trace(net, torch.zeros(1, 3, 8, 8))
        >>> oracle, taylor = cutback.scores.Oracle(loader, loss, squared=True), cutback.scores.Taylor(loader, loss)
        >>> found = cutback.correlate(graph, {"taylor": taylor, "l2": "l2"}, oracle)
        >>> list(found.overall), found.overall["taylor"].units
        (['taylor', 'l2'], 8)
    """
    if not isinstance(graph, Graph):
        kind = type(graph).__name__
        raise UserMistake(f"correlate needs a graph, not {kind}; pass what cutback.trace(model, inputs) returns")
    if not scores:
        raise UserMistake("there is no score to compare with the oracle; give at least one, such as {'l2': 'l2'}")
    if not graph.groups:
        raise UserMistake("no channel of this model may be removed, so there is nothing to compare")
    found: dict[str, dict[str, Values]] = {}
    rated = {"": oracle, **scores}
    for number, (name, score) in enumerate(rated.items()):
        if told:
            told(number, len(rated), name or "the oracle")
        values = score_groups(graph, score)
        found[name] = {group.name: own for group, own in zip(graph.groups, values, strict=True)}
    return Correlation(found.pop(""), found, stream_groups(graph))


def _joined(values: Mapping[str, Values], groups: list[str]) -> Values:
    return np.concatenate([np.empty(0), *(values[group] for group in groups)])


def _logarithms(values: Values) -> Values:
    """Return logarithms of sizes; those of zeros are as if they were the smallest size beside them."""
    sizes = np.abs(values)
    positive = sizes[sizes > 0]
    return np.log(np.maximum(sizes, positive.min())) if len(positive) else np.zeros_like(sizes)


def _coefficient(formula: Callable[..., tuple[float, float]], first: Values, second: Values) -> float | None:
    """Return a coefficient; ``None`` where it is not defined."""
    if len(first) < 2:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.ConstantInputWarning)
        warnings.simplefilter("ignore", stats.NearConstantInputWarning)
        value = float(formula(first, second)[0])
    return value if math.isfinite(value) else None
