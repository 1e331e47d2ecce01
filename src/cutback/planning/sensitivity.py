"""How much accuracy each group costs when it alone is pruned: the curves of a scan, and what follows from them.

H. Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017, section 3.2: layers whose curve falls early are left
alone, and all others of a stage (of one map size) lose the same share.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from cutback.errors import CorruptFile, UserMistake
from cutback.graph.capture import operator_of
from cutback.graph.graph import Graph
from cutback.registry import near_misses

_NOISE = 1e-12  # 0.9 - 0.6 is more than 0.3 in binary


@dataclass(frozen=True)
class Sensitivity:
    """Accuracy after pruning one group alone, without training.

    Attributes:
        dense: accuracy of the uncut network, in 0..1.
        curves: for each group's name, the accuracy in 0..1 by the share of its units that was removed.
        score: the score by which units were removed.

    Example:
        >>> scan = Sensitivity(0.9, {"conv1": {0.25: 0.88, 0.5: 0.7}, "conv2": {0.25: 0.9, 0.5: 0.89}})
        >>> scan.skipped(loss=0.1, removed=0.5), scan.ratios(loss=0.02)
        (['conv1'], {'conv1': 0.25, 'conv2': 0.505618})
    """

    dense: float
    curves: Mapping[str, Mapping[float, float]]
    score: str = "l1"

    def __post_init__(self) -> None:
        """Freeze the curves.

        Raises:
            UserMistake: a share or an accuracy lies outside 0..1, or a group has no point.
        """
        frozen = {group: MappingProxyType(dict(sorted(curve.items()))) for group, curve in self.curves.items()}
        object.__setattr__(self, "curves", MappingProxyType(frozen))
        for group, curve in frozen.items():
            if not curve or not all(0 < share < 1 and 0 <= accuracy <= 1 for share, accuracy in curve.items()):
                raise UserMistake(
                    f"the curve of {group} must map shares between 0 and 1 to accuracies in 0..1, not {dict(curve)}"
                )

    def __hash__(self) -> int:
        return hash((self.dense, self.score, tuple(self.curves)))

    def loss(self, group: str, removed: float) -> float:
        """Return how much accuracy removing a share of a group costs.

        Straight lines join the points, which never rise; the first starts at the dense accuracy, the last ends at
        none when nothing of the group is left.

        Raises:
            UserMistake: the group was not scanned.
        """
        shares, losses = self._points(group)
        return float(np.interp(removed, shares, losses))

    def ratios(self, loss: float) -> dict[str, float]:
        """Return for each group the largest share whose removal alone costs at most so much accuracy."""
        found: dict[str, float] = {}
        for group in self.curves:
            shares, losses = self._points(group)
            last = int(np.searchsorted(losses, loss + _NOISE, side="right")) - 1  # the last point that costs no more
            share = shares[last]
            if last + 1 < len(losses):
                more = max(loss - losses[last], 0.0)
                share += (shares[last + 1] - share) * more / (losses[last + 1] - losses[last])
            found[group] = round(float(share), 6)
        return found

    def skipped(self, *, loss: float, removed: float) -> list[str]:
        """Return the groups that cost more than so much accuracy when a share of them is removed: better left whole."""
        return [group for group in self.curves if self.loss(group, removed) > loss]

    def stage_ratios(self, graph: Graph, *, loss: float, skip: Sequence[str] = ()) -> dict[str, float]:
        """Return for each group the share that every group of its stage can lose at so much accuracy at most.

        Args:
            graph: the traced model.
            loss: accuracy that each group alone may cost.
            skip: groups left whole, which do not limit their stage.
        """
        ratios = self.ratios(loss)
        found: dict[str, float] = {}
        for groups in stages(graph).values():
            counted = [group for group in groups if group in ratios and group not in skip]
            found |= dict.fromkeys(counted, min((ratios[group] for group in counted), default=0.0))
        return found

    def to_json(self) -> str:
        """Return the curves as JSON text."""
        curves = {group: [list(point) for point in curve.items()] for group, curve in self.curves.items()}
        document = {"format": "cutback sensitivity", "version": 1, "dense": self.dense, "score": self.score}
        return json.dumps({**document, "curves": curves})

    @classmethod
    def from_json(cls, text: str) -> "Sensitivity":
        """Read what ``to_json`` wrote.

        Raises:
            CorruptFile: the text is something else.
        """
        try:
            document = json.loads(text)
            if (document["format"], document["version"]) != ("cutback sensitivity", 1):
                raise ValueError(f"its format is {document['format']!r}, version {document['version']!r}")
            curves = {
                str(group): {float(share): float(accuracy) for share, accuracy in points}
                for group, points in document["curves"].items()
            }
            return cls(float(document["dense"]), curves, str(document["score"]))
        except (ValueError, KeyError, TypeError, AttributeError, UserMistake) as error:
            raise CorruptFile(f"this is no sensitivity scan of cutback ({error}); scan again") from error

    def _points(self, group: str) -> tuple[np.ndarray, np.ndarray]:
        """Return shares removed and accuracy lost, from nothing to everything, never falling."""
        if group not in self.curves:
            raise UserMistake(
                f"the sensitivity scan has no curve for group {group!r}; {near_misses(group, list(self.curves))}; scan "
                "it, or ignore its layers"
            )
        curve = self.curves[group]
        shares = np.array([0.0, *curve, 1.0])
        losses = self.dense - np.array([self.dense, *curve.values(), 0.0])
        return shares, np.maximum.accumulate(losses)


def stages(graph: Graph) -> dict[tuple[int, ...], list[str]]:
    """Return the groups by the size of the maps that their first convolution makes; ``()`` where there is none."""
    sizes: dict[str, tuple[int, ...]] = {}
    for capture in graph.captures[:1]:
        names = dict(zip(capture.nodes, capture.states, strict=False))
        for node in capture.nodes:
            if operator_of(node).startswith("aten::conv") and len(node.args) > 1:
                sizes.setdefault(names.get(node.args[1], ""), tuple(node.meta["val"].shape[2:]))  # type: ignore[arg-type]
    found: dict[tuple[int, ...], list[str]] = {}
    for group in graph.groups:
        making = (sizes[slot.state] for slot in group.slices if slot.role == "filter" and slot.state in sizes)
        found.setdefault(next(making, ()), []).append(group.name)
    return found
