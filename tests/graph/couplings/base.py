"""The table of planted couplings, and what is checked of each."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

import cutback
from cutback.graph.graph import Graph
from cutback.planning.plan import Plan
from cutback.surgery.verify import prove
from tests.graph.blocks import FAMILIES

Owners = dict[int, tuple[int, int]]
"""Group and unit of each index of a slot; indices that stay are missing."""

Unit = Mapping[str, Iterable[int]]
"""Slices of one unit: for ``a`` and ``b`` their filters, for ``head`` its columns, else ``state:dimension``."""

SHORT = {"a": "a.weight:0", "b": "b.weight:0", "head": "head.weight:1"}


class Pair(nn.Module):
    """Two convolutions ``a`` and ``b`` of the picture, a function of both, and a ``head`` that consumes the result."""

    def __init__(self, function: Callable, widths: tuple[int, int, int], *, tokens: bool = False, **extra) -> None:
        super().__init__()
        first, second, out = widths
        self.a, self.b = nn.Conv2d(3, first, 1), nn.Conv2d(3, second, 1)
        self.head = nn.Linear(out, 4) if tokens else nn.Conv2d(out, 4, 1)
        self.function = function
        for name, value in extra.items():
            setattr(self, name, value)

    def forward(self, x, *others):
        return self.head(self.function(self, self.a(x), self.b(x), *others))


@dataclass(frozen=True)
class Coupling:
    """A network and what must be found in it.

    Attributes:
        family: the operator family it stands for; empty for a case beside them.
        build: makes the network.
        units: units it must have.
        exact: whether these are the whole units as far as the slots named go; else a unit may hold more indices
            (operators whose blocks must lose equally many may be coupled more coarsely).
        stays: slices that no unit may have.
        balanced: slots ``(name, blocks)`` whose equal blocks must lose equally many.
        shape: of the picture.
    """

    family: str
    build: Callable[[], nn.Module]
    units: Sequence[Unit] = ()
    exact: bool = True
    stays: Unit | None = None
    balanced: Sequence[tuple[str, int]] = ()
    shape: tuple[int, ...] = (2, 3, 4, 4)
    others: tuple[torch.Tensor, ...] = ()

    def trace(self) -> Graph:
        """Return the traced network."""
        torch.manual_seed(0)
        return cutback.trace(self.build(), (torch.randn(self.shape), *self.others))

    def check(self) -> None:
        """Compare the units with those written by hand, then prove a cut at half the channels."""
        graph = self.trace()
        owners = {slot: _owners(graph, slot) for slot in _names(graph)}
        for expected in self.units:
            _check_unit(graph, owners, expected, exact=self.exact)
        for name, indices in (self.stays or {}).items():
            found = owners.get(SHORT.get(name, name), {})
            assert not set(indices) & set(found), f"{name}: {sorted(set(indices) & set(found))} may go"
        if graph.groups:
            for seed in range(2 if self.balanced else 1):
                plan = cutback.plan(graph, budget="channels=50%", score=cutback.scores.Random(seed=seed))
                for name, blocks in self.balanced:
                    _check_balance(plan, SHORT.get(name, name), blocks)
                prove(graph, plan)


COUPLINGS: dict[str, Coupling] = {}


def planted(name: str, family: str, function: Callable, widths: tuple[int, int, int], **options) -> None:
    """Register a coupling through a function of ``a`` and ``b``; what ``Coupling`` does not know goes to ``Pair``."""
    known = {key: options.pop(key) for key in list(options) if key in Coupling.__dataclass_fields__}
    register(name, family, lambda: Pair(function, widths, **{k: _made(v) for k, v in options.items()}), **known)


def register(name: str, family: str, build: Callable[[], nn.Module], **options) -> None:
    """Register a coupling in a network of its own."""
    if family and family not in FAMILIES:
        raise ValueError(f"{family!r} is no family")
    if name in COUPLINGS:
        raise ValueError(f"the coupling {name!r} is registered twice")
    COUPLINGS[name] = Coupling(family, build, **options)


def _made(value: object) -> object:
    """Make a module or parameter that is given by its maker; everything else is itself."""
    return value() if callable(value) and not isinstance(value, nn.Module) else value


def _names(graph: Graph) -> list[str]:
    return [f"{slot.state}:{slot.dimension}" for group in graph.groups for slot in group.slices]


def _owners(graph: Graph, name: str) -> Owners:
    """Return for each index of a slot the group and unit that own it."""
    found: Owners = {}
    for number, group in enumerate(graph.groups):
        for slot, table in group.slices.items():
            if f"{slot.state}:{slot.dimension}" == name:
                for unit, indices in enumerate(np.asarray(table)):
                    found |= {int(index): (number, unit) for index in indices}
    return found


def _check_unit(graph: Graph, owners: Mapping[str, Owners], expected: Unit, *, exact: bool) -> None:
    """Check that slices belong to one unit, and where asked that it has no others of these slots."""
    named = {SHORT.get(name, name): set(indices) for name, indices in expected.items()}
    seen = {owners.get(name, {}).get(index) for name, indices in named.items() for index in indices}
    assert len(seen) == 1, f"{expected} belong to the units {seen}\n{graph}"
    assert None not in seen, f"{expected} stay\n{graph}"
    for name, indices in named.items():
        whole = {index for index, owner in owners[name].items() if owner in seen}
        assert whole == indices or not exact, (
            f"{name}: {sorted(whole)} go together, expected {sorted(indices)}\n{graph}"
        )


def _check_balance(plan: Plan, name: str, blocks: int) -> None:
    """Check that equal blocks of a slot lose equally many."""
    state, _, dimension = name.rpartition(":")
    kept = plan.slices[state][int(dimension)]
    counts = np.bincount(np.array(kept.indices) // (kept.total // blocks), minlength=blocks)
    assert len(set(counts.tolist())) == 1, f"{name} keeps {counts.tolist()}"
    assert len(kept.indices) < kept.total
