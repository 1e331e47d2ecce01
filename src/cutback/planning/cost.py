"""What a network costs as a function of how many units of each group stay."""

import math
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Size, Tensor

from cutback.graph.clone import parameters_by_name
from cutback.graph.graph import Graph, Slot, UnitMap
from cutback.measure.macs import mac_terms
from cutback.planning.activations import Activations


class CostModel:
    """MACs and parameters of a graph's network for any widths, without building it.

    A weight's size is the product of the widths of its sliced dimensions, and each width is linear in the numbers of
    units that stay. So are the elements of an activation, which the MACs of products of two activations go with.

    Args:
        graph: the traced model.
    """

    def __init__(self, graph: Graph) -> None:
        shapes: dict[str, Size] = {name: parameter.shape for name, parameter in parameters_by_name(graph.model).items()}
        self._total = np.array([group.units for group in graph.groups], dtype=np.int64)
        sliced: dict[str, list[Slot]] = {name: [] for name in shapes}
        numbers: dict[Slot, int] = {}
        fixed: list[int] = []
        entries: list[tuple[int, int, int]] = []
        for slot, owners in graph.slots.items():
            if slot.state not in shapes:
                continue
            owned = owners.sizes
            if owned.keys() - {-1} and not goes_with_rows(slot, owners):
                fixed.append(owned.get(-1, 0))
                entries += [(n // int(self._total[g]), len(numbers), g) for g, n in owned.items() if g >= 0]
                numbers[slot] = len(numbers)
                sliced[slot.state].append(slot)
        most = max((len(slots) for slots in sliced.values()), default=0)
        self._names = list(shapes)
        self._static = np.ones(len(shapes), dtype=np.int64)
        self._factors = np.full((len(shapes), most), len(numbers))
        for row, (name, shape) in enumerate(shapes.items()):
            moving = {slot.dimension for slot in sliced[name]}
            self._static[row] = math.prod(size for dimension, size in enumerate(shape) if dimension not in moving)
            self._factors[row, : len(sliced[name])] = [numbers[slot] for slot in sliced[name]]
        positions, self._products = _positions(graph, {name: bool(slots) for name, slots in sliced.items()})
        self._positions = np.array([positions.get(name, 0) for name in shapes], dtype=np.float64)
        slices, rows, columns = np.array(entries, dtype=np.int64).reshape(-1, 3).T
        self._matrix = csr_matrix((slices, (rows, columns)), shape=(len(numbers), len(self._total)))
        self._offsets = np.array(fixed, dtype=np.int64)
        self._divisors = np.array([slot.blocks for slot in numbers], dtype=np.int64)

    @property
    def groups(self) -> int:
        """How many groups the graph has."""
        return len(self._total)

    def sizes(self, kept: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the elements of each parameter, ``(parameters,)``, given how many units of each group stay."""
        widths = np.append((self._matrix @ kept + self._offsets) // self._divisors, 1)
        return self._static * widths[self._factors].prod(axis=1)

    def of(self, quantity: str, kept: NDArray[np.int64]) -> int:
        """Return ``macs`` (batch 1) or ``params``."""
        sizes = self.sizes(kept)
        if quantity == "params":
            return int(sizes.sum())
        products = self._products[:-1] @ kept + self._products[-1]
        return round(float((sizes * self._positions).sum() + products))

    def smooth_macs(self, widths: Tensor) -> Tensor:
        """Return the MACs (batch 1) of widths that need not be whole, a scalar that can be differentiated.

        Args:
            widths: how many units of each group stay, ``(groups,)``, in double precision on the CPU.
        """
        sliced = torch.from_numpy(self._matrix.toarray()).to(widths) @ widths + torch.from_numpy(self._offsets)
        own = torch.cat([sliced / torch.from_numpy(self._divisors), widths.new_ones(1)])
        sizes = torch.from_numpy(self._static) * own[torch.from_numpy(self._factors)].prod(1)
        products = torch.from_numpy(self._products)
        return sizes @ torch.from_numpy(self._positions) + widths @ products[:-1] + products[-1]

    def macs_by_weight(self, kept: NDArray[np.int64]) -> dict[str, float]:
        """Return the MACs (batch 1) spent in each parameter, given how many units of each group stay."""
        return dict(zip(self._names, (self.sizes(kept) * self._positions).tolist(), strict=True))

    def dense(self, quantity: str) -> int:
        """Return the quantity for the uncut network."""
        return self.of(quantity, self._total)


def goes_with_rows(slot: Slot, owners: UnitMap) -> bool:
    """Whether the blocks of a grouped weight go whole, so that its rows tell what is left of it."""
    if slot.blocks == 1:
        return False
    group, unit = owners.group.reshape(slot.blocks, -1), owners.unit.reshape(slot.blocks, -1)
    return bool((group == group[:, :1]).all() and (unit == unit[:, :1]).all()) and group.shape[1] > 1


def _positions(graph: Graph, shrinks: Mapping[str, bool]) -> tuple[dict[str, float], NDArray[np.float64]]:
    """Return how often each weight is used in eval mode, and the MACs of the other products.

    Args:
        graph: the traced model.
        shrinks: whether each parameter may lose slices.

    Returns:
        The uses of each weight, and the MACs that each group's unit brings to products without a weight that shrinks
        and, last, those that stay anyway, ``(groups + 1,)``.
    """
    uses: dict[str, float] = {}
    stays = np.append(np.zeros(len(graph.groups)), 1.0)
    products = np.zeros(len(stays))
    if not graph.captures:
        return uses, products
    recorded, activations = graph.captures[0], Activations(graph)
    sizes = {name: node.meta["val"].numel() for name, node in zip(recorded.states, recorded.nodes, strict=False)}
    for term in mac_terms(recorded):
        shares = None if shrinks.get(term.state) else activations.shares(term.factors)
        if shares is None and term.state in shrinks:
            uses[term.state] = uses.get(term.state, 0.0) + float(term.positions)
            continue
        whole = float(term.positions) * (sizes[term.state] if term.state else 1)
        products += whole * (stays if shares is None else shares)
    return uses, products
