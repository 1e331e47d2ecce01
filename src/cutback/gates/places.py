"""Where the gates of a site stand: at which call, on which tensor, and which unit each of its elements belongs to."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, fx

from cutback.errors import Ungatable, UnknownName
from cutback.gates.calls import matters
from cutback.gates.following import activation_after, last_of_block, normalised
from cutback.graph.call import Trail
from cutback.graph.capture import Capture, module_path, operator_of
from cutback.graph.graph import Graph, Slot
from cutback.graph.labels import compact, core
from cutback.graph.replay import effective_calls
from cutback.graph.states import State
from cutback.graph.weights import ComputedWeight, computes_weight
from cutback.registry import near_misses

SITES = ("consumer", "input", "norm", "stream", "output", "feature", "map")
"""The sites a gate can stand at, see ``cutback.gates``."""

_CONVOLUTIONS = {f"aten::conv{n}d" for n in (1, 2, 3)}
_TRANSPOSED = {f"aten::conv_transpose{n}d" for n in (1, 2, 3)}
_SUMS = {"aten::add", "aten::sub"}


@dataclass(frozen=True, eq=False)
class Place:
    """One tensor that gates multiply.

    Attributes:
        call: the number of the call, among those that all captures have (see ``matters``).
        argument: which of its arguments, by the name in the operator's schema; ``None`` for its result.
        item: which tensor, where the argument or the result is a list.
        group: the number of the group each element belongs to, or -1. It has size 1 along every dimension along which
            all elements are alike: shape ``(1, C, 1, 1)`` for ``(N, C, H, W)``, ``(1, C * H * W)`` after flattening.
        unit: the number of the unit in its group, in the same shape.
        where: module path and operator, for messages.
    """

    call: int
    argument: str | None
    item: int | None
    group: NDArray[np.int64]
    unit: NDArray[np.int64]
    where: str

    def has(self, wanted: Sequence[int]) -> bool:
        """Whether it has elements of some of the groups with these numbers."""
        return not self.groups.isdisjoint(wanted)

    @cached_property
    def groups(self) -> frozenset[int]:
        """The numbers of the groups it has elements of."""
        return frozenset(int(n) for n in np.unique(self.group) if n >= 0)

    def only(self, wanted: Sequence[int]) -> "Place | None":
        """Return the place for some groups alone, ``None`` where it has none of them."""
        inside = np.isin(self.group, wanted)
        if not inside.any():
            return None
        group = np.where(inside, self.group, -1)
        return Place(self.call, self.argument, self.item, group, np.where(inside, self.unit, -1), self.where)


def find_places(graph: Graph, number: int, site: str, groups: Sequence[str] | None = None) -> list[Place]:
    """Return the places of a site's gates in one of a graph's captures, in the order they are computed.

    Args:
        graph: the traced model.
        number: the number of the capture.
        site: one of ``SITES``.
        groups: names of the groups to be gated, all of them by default.

    Raises:
        UnknownName: there is no such site or group.
        Ungatable: a group that runs in the capture's mode has no place at the site, or is consumed where no gate can
            stand.
    """
    if site not in SITES:
        raise UnknownName(f"no site is called {site!r}; write one of {', '.join(SITES)}")
    finder = _Finder(graph, number)
    numbers = _numbers(graph, groups)
    places = list(finder.at(site))
    reasons = {n: why for n, why in finder.ungatable(site, places).items() if n in numbers}
    if reasons:
        first = min(reasons)
        named = ", ".join(graph.groups[n].name for n in sorted(reasons))
        raise Ungatable(
            f"group {graph.groups[first].name} cannot be gated: {reasons[first]}; pass groups=[...] without {named}"
        )
    places.sort(key=lambda place: (place.call, place.argument is None))
    return [part for place in places if (part := place.only(numbers)) is not None]


def ungatable_groups(graph: Graph, site: str) -> Mapping[str, str]:
    """Return the groups that gates at a site would refuse, each with the reason."""
    finders = [_Finder(graph, number) for number in range(len(graph.captures))]
    found = [finder.ungatable(site, list(finder.at(site))) for finder in finders]
    return {graph.groups[n].name: why for reasons in reversed(found) for n, why in reasons.items()}


def mixed_groups(graph: Graph) -> frozenset[str]:
    """Return the groups whose channels are normalised, averaged or compared with one another.

    Such an operator sees the silenced channels of a masked network, but not those of a cut one.
    """
    components = graph.coupling.components
    owners = graph.coupling.owners
    found: set[int] = set()
    for labelling in graph.coupling.labellings:
        for trail in labelling.trails:
            for mixing in trail.mixed:
                if mixing.dimensions and mixing.argument not in ("weight", "bias"):
                    found |= {int(n) for n in np.unique(owners.group[components[core(mixing.labels).numpy()]])}
    return frozenset(graph.groups[n].name for n in found if n >= 0)


def stream_groups(graph: Graph) -> frozenset[str]:
    """Return the groups whose channels are those of a stream of blocks, summed where the blocks end."""
    ends = (place for number in range(len(graph.captures)) for place in _Finder(graph, number).ends_of_blocks())
    return frozenset(graph.groups[n].name for place in ends for n in place.groups)


def _numbers(graph: Graph, groups: Sequence[str] | None) -> list[int]:
    """Return the numbers of groups by name."""
    known = {group.name: n for n, group in enumerate(graph.groups)}
    for name in groups or ():
        if name not in known:
            raise UnknownName(f"no group is called {name!r}; {near_misses(name, list(known))}")
    return list(known.values()) if groups is None else [known[name] for name in groups]


class _Finder:
    """Looks for the places in one capture."""

    def __init__(self, graph: Graph, number: int) -> None:
        self._graph = graph
        capture: Capture = graph.captures[number]
        self._outputs = set(capture.results[: capture.outputs])
        calls = zip(*effective_calls(capture, graph.coupling.labellings[number].trails), strict=True)
        numbered = [(node, trail) for node, trail in calls if matters(node)]
        self._calls, self._trails = [node for node, _ in numbered], [trail for _, trail in numbered]
        self._number = {node: n for n, node in enumerate(self._calls)}
        self._used = {name for node, name in zip(capture.nodes, capture.states, strict=False) if node.users}
        self._producing = {
            slot.state
            for slot, owners in graph.slots.items()
            if slot.role in ("filter", "depthwise", "selection") and (owners.group >= 0).any()
        }
        self._depthwise = {slot.state for slot in graph.slots if slot.role == "depthwise"} & self._producing
        self._covered: set[tuple[str, int]] = set()

    def at(self, site: str) -> Iterator[Place]:
        """Yield the places of a site."""
        if site == "consumer":
            yield from self._consumers()
        elif site == "input":
            yield from self._consumers(depthwise=True)
        elif site == "stream":
            yield from self._stream(self.at("norm"))
        elif site == "norm":
            yield from self._after_producers(lambda node: normalised(node, self._outputs) or node)
        elif site == "feature":
            yield from self._after_producers(self._feature)
        elif site == "map":
            yield from self._stream(self.at("feature"))
        else:
            yield from self._after_producers(lambda node: node)

    def running(self) -> set[int]:
        """Return the groups of which some layer runs: not those of heads that run in train mode alone."""
        groups = enumerate(self._graph.groups)
        return {n for n, group in groups if any(slot.state in self._used for slot in group.slices)}

    def ungatable(self, site: str, places: Sequence[Place]) -> Mapping[int, str]:
        """Return the groups that run but have no place among all those of a site, or consumers at none, and why."""
        missing = self.running().difference(*(place.groups for place in places))
        reasons = dict.fromkeys(missing, f"it has no {site} that a gate could stand at")
        return reasons | self._uncovered() if site in ("consumer", "input") else reasons

    def _uncovered(self) -> dict[int, str]:
        """Return the groups with columns at no place that was yielded, and why."""
        found: dict[int, str] = {}
        for slot, owners in self._graph.slots.items():
            missed = _is_column(slot) and (slot.state, slot.dimension) not in self._covered
            if missed and slot.state in self._used:
                for n in np.unique(owners.group[owners.group >= 0]):
                    found.setdefault(int(n), f"its channels are consumed by {slot.state} inside an operator")
        return found

    # ---------------------------------------------------------------------------------------------------- consumers

    def _consumers(self, *, depthwise: bool = False) -> Iterator[Place]:
        for n, (node, trail) in enumerate(zip(self._calls, self._trails, strict=True)):
            argument = self._consumed(node, trail)
            if depthwise and argument is None and self._is_depthwise(trail):
                argument = "input", None
            if argument is not None:
                name, item = argument
                value = trail.given[name]
                labels = value[item] if isinstance(value, list | tuple) and item is not None else value
                if isinstance(labels, Tensor):
                    yield from self._place(n, name, item, labels)
            for mixing in trail.mixed:
                if not mixing.dimensions and mixing.argument != "weight":
                    yield from self._place(n, mixing.argument, mixing.position, mixing.labels)

    def _consumed(self, node: fx.Node, trail: Trail) -> tuple[str, int | None] | None:
        """Return the argument whose channels a call multiplies with the columns of a weight."""
        operator = operator_of(node)
        weight = trail.given.get("weight")
        if isinstance(weight, ComputedWeight):
            silenced = any(mixing.argument == "weight" and not mixing.dimensions for mixing in trail.mixed)
            if silenced:
                self._cover_computed(weight)
            return ("input", None) if silenced else None
        if operator == "aten::linear" or operator in _CONVOLUTIONS | _TRANSPOSED:
            dimension = 0 if operator in _TRANSPOSED else 1
            return ("input", None) if self._cover(weight, [dimension]) else None
        operands = _operands(trail.given)
        states = [value for _, value in operands if isinstance(value, State)]
        computed = [place for place, value in operands if isinstance(value, Tensor)]
        if operator.removesuffix("_cell") in ("aten::lstm", "aten::gru", "aten::rnn_tanh", "aten::rnn_relu"):
            first = next((state for state in states if len(state.shape) == 2), None)
            return ("input", None) if self._cover(first, [1]) else None
        if operator in _PRODUCTS and len(computed) == 1 and trail.tied:
            covered = [self._cover(state, range(len(state.shape))) for state in states]
            return computed[0] if any(covered) else None
        return None

    def _is_depthwise(self, trail: Trail) -> bool:
        weight = trail.given.get("weight")
        return isinstance(weight, State) and weight.name in self._depthwise

    def _cover(self, weight: object, dimensions: Sequence[int]) -> bool:
        """Note that a weight's columns are gated; say whether it has any."""
        if not isinstance(weight, State):
            return False
        keys = {(slot.state, slot.dimension) for slot in self._graph.slots if _is_column(slot)}
        found = {(weight.name, dimension) for dimension in dimensions} & keys
        self._covered |= found
        return bool(found)

    def _cover_computed(self, weight: ComputedWeight) -> None:
        """Note that the columns of every parameter a weight is computed from are gated."""
        components = self._graph.coupling.components
        seen = {int(c) for layer in weight.layers for c in np.unique(components[core(layer.labels).numpy()])}
        states = self._graph.coupling.states
        for slot in self._graph.slots:
            vector = states.vectors.get((slot.state, slot.dimension))
            if _is_column(slot) and vector is not None and seen.issuperset(components[vector.numpy()].tolist()):
                self._covered.add((slot.state, slot.dimension))

    # ---------------------------------------------------------------------------------------------------- producers

    def _after_producers(self, after: Callable[[fx.Node], fx.Node]) -> Iterator[Place]:
        seen: set[fx.Node] = set()
        for node, trail in zip(self._calls, self._trails, strict=True):
            if self._produces(trail) and not computes_weight(node):
                last = after(node)
                if last not in seen:
                    seen.add(last)
                    yield from self._result(last)

    def _feature(self, node: fx.Node) -> fx.Node:
        last = normalised(node, self._outputs) or node
        return activation_after(last, self._outputs) or last

    def _produces(self, trail: Trail) -> bool:
        """Say whether a call makes channels of some group, from a weight or by selecting them."""
        for _, value in _operands(trail.given):
            if isinstance(value, ComputedWeight):
                labels = [core(layer.labels).numpy() for layer in value.layers]
                components = self._graph.coupling.components
                if any((self._graph.coupling.owners.group[components[each]] >= 0).any() for each in labels):
                    return True
            if isinstance(value, State) and value.name in self._producing:
                return True
        return False

    def _stream(self, otherwise: Iterator[Place]) -> Iterator[Place]:
        """Yield the ends of blocks, and other places for groups that no block joins."""
        found = self.ends_of_blocks()
        yield from found
        streams = {n for place in found for n in place.groups}
        rest = [n for n in range(len(self._graph.groups)) if n not in streams]
        for place in otherwise:
            part = place.only(rest)
            if part is not None:
                yield part

    def ends_of_blocks(self) -> list[Place]:
        """Return the ends of blocks: of sums of branches, after the activation."""
        joined = {
            node
            for node, trail in zip(self._calls, self._trails, strict=True)
            if operator_of(node) in _SUMS and self._joins(trail) and not computes_weight(node)
        }
        found: list[Place] = []
        for node in self._calls:
            if node in joined:
                last = last_of_block(node, joined, self._outputs)
                if last is not None:
                    found += self._result(last)
        return found

    def _joins(self, trail: Trail) -> bool:
        """Say whether a call adds two computed tensors that both carry channels of groups."""
        carrying = [
            value
            for _, value in _operands(trail.given)
            if isinstance(value, Tensor) and (self._owners(value)[0] >= 0).any()
        ]
        return len(carrying) > 1

    # --------------------------------------------------------------------------------------------------------- both

    def _result(self, node: fx.Node) -> list[Place]:
        n = self._number[node]
        labels = self._trails[n].results
        several = len(labels) > 1
        return [place for i, each in enumerate(labels) for place in self._place(n, None, i if several else None, each)]

    def _place(self, call: int, argument: str | None, item: int | None, labels: Tensor) -> list[Place]:
        group, unit = self._owners(labels)
        node = self._calls[call]
        where = f"{module_path(node) or '(model)'} ({operator_of(node)})"
        return [Place(call, argument, item, group, unit, where)] if (group >= 0).any() else []

    def _owners(self, labels: Tensor) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        narrow = core(compact(labels)).numpy()
        components, owners = self._graph.coupling.components[narrow], self._graph.coupling.owners
        return np.asarray(owners.group[components]), np.asarray(owners.unit[components])


_PRODUCTS = {f"aten::{name}" for name in ("matmul", "mm", "addmm", "bmm", "baddbmm", "einsum", "mv")}


def _operands(given: Mapping[str, object]) -> list[tuple[tuple[str, int | None], object]]:
    """Return what stands for tensors among a call's arguments, lists flattened, each with its place."""
    found: list[tuple[tuple[str, int | None], object]] = []
    for name, value in given.items():
        if isinstance(value, list | tuple):
            found += [((name, n), item) for n, item in enumerate(value)]
        else:
            found.append(((name, None), value))
    return [(place, value) for place, value in found if isinstance(value, Tensor | State | ComputedWeight)]


def _is_column(slot: Slot) -> bool:
    return slot.consumes or slot.role == "column"
