"""The second pass: the graph of a narrowed model run on the labels that stay.

A cut is legal only if every pointwise operator still pairs equal labels and every operator receives exactly its own
kept labels. The order in which they arrive at a state is the order its slices must have.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import UnionType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Size, Tensor, fx, nn

from cutback.errors import CaptureError
from cutback.graph.attributes import Changes, set_attributes
from cutback.graph.call import CONSTANT, Call, Decision, Labels, Refused, Trail, literal_rules
from cutback.graph.capture import Capture, capture, operator_of
from cutback.graph.clone import own_tensors, state_tensors, structural_clone
from cutback.graph.interpret import Labelling, labels_in, rule_for, run_on_labels
from cutback.graph.labels import NONE, Boundary, core
from cutback.graph.numbers import changed_number
from cutback.graph.states import State, StateLabels
from cutback.graph.weights import ComputedWeight

Orders = dict[tuple[str, int], NDArray[np.int64]]
"""For a state and a dimension, the indices that stay, in the order they must have."""


class Illegal(Exception):
    """A cut sends labels where they do not belong.

    Attributes:
        node: the call of the whole model's graph at which it shows.
    """

    def __init__(self, node: fx.Node, reason: str) -> None:
        super().__init__(reason)
        self.node = node


@dataclass(frozen=True, eq=False)
class KeptLabels:
    """Which labels stay.

    Attributes:
        component: the component of each label.
        stays: whether each component stays.
    """

    component: NDArray[np.int64]
    stays: NDArray[np.bool_]

    def mask(self, labels: Tensor) -> Tensor:
        """Return which elements of a label tensor stay."""
        return torch.from_numpy(np.atleast_1d(self.stays[self.component[labels.numpy()]]).reshape(labels.shape))

    def count(self, labels: Tensor) -> int:
        """Return how many elements of a label tensor stay."""
        return int(self.stays[self.component[labels.numpy()]].sum())


class _KeptStates(StateLabels):
    """State labels of the narrowed model: those of the whole model that stay, in the order they are to have."""

    def __init__(self, whole: StateLabels, kept: KeptLabels, wanted: Orders) -> None:
        self._whole, self._kept, self._wanted = whole, kept, wanted

    def vector(self, state: State, dimension: int, role: str, blocks: int = 1) -> Tensor:  # noqa: ARG002 (the first pass needs them)
        return self._whole.vectors[state.name, dimension][self.staying(state, dimension)]

    def staying(self, state: State, dimension: int) -> Tensor:
        """Return the indices that stay along a dimension, in the order they are to have."""
        wanted = self._wanted.get((state.name, dimension))
        if wanted is not None:
            return torch.from_numpy(wanted)
        return self._kept.mask(self._whole.vectors[state.name, dimension]).nonzero().flatten()

    def each(self, state: State) -> Tensor | None:
        if not state.shape:
            return torch.tensor(NONE)
        if len(state.shape) == 1:
            return self.vector(state, 0, "element")
        labels = self._whole.elements.get(state.name)
        if labels is None:
            return None
        mask = self._kept.mask(labels)
        for dimension in range(labels.dim()):
            others = [d for d in range(labels.dim()) if d != dimension]
            labels = labels.index_select(dimension, mask.any(others).nonzero().flatten())
            mask = self._kept.mask(labels)
        return labels


class _ReplayedCall(Call):
    """A call in the narrowed model: checks what the first pass united, and finds the order of what it tied."""

    def __init__(
        self,
        node: fx.Node,
        arguments: dict[str, object],
        values: object,
        states: _KeptStates,
        kept: KeptLabels,
        trail: Trail,
        orders: Orders,
    ) -> None:
        self.trail = trail
        self.node, self.operator, self.arguments, self.values = node, operator_of(node), arguments, values
        self.states, self._states, self._kept, self._orders = states, states, kept, orders
        self._issued, self._decided, self._tied = iter(trail.issued), iter(trail.decided), iter(trail.tied)
        self._balanced = iter(trail.balanced)

    def unite(self, first: Tensor, second: Tensor) -> None:
        a, b = first.reshape(-1).numpy(), second.reshape(-1).numpy()
        component = self._kept.component
        if ((component[a] != component[b]) & (a != NONE) & (b != NONE)).any():
            raise Refused("would pair different channels")

    def balance(self, parts: Sequence[Tensor], *, moves: bool = True) -> None:  # noqa: ARG002 (as above)
        for before, now in zip(next(self._balanced).parts, parts, strict=True):
            if not torch.equal(before[self._kept.mask(before)].sort().values, now.sort().values):
                raise Refused("would receive other channels in its blocks than its own")

    def made(self, state: State, dimension: int, role: str, blocks: int = 1) -> Tensor:
        self._order(state, dimension, self._states.staying(state, dimension).numpy(), blocks)
        return self._states.vector(state, dimension, role)

    def tie(self, labels: Tensor, state: State, dimension: int, role: str, blocks: int = 1) -> None:  # noqa: ARG002 (as above)
        before = next(self._tied)
        order = positions(before.reshape(-1).numpy(), labels.reshape(-1).numpy())
        if order is None or len(order) != int(self._kept.mask(before).sum()):
            raise Refused("would receive other channels than its own")
        self._order(state, dimension, order, blocks)

    def tie_elements(self, labels: Tensor, state: State) -> None:
        self.unite(labels, self.as_labels(state))

    def mix(self, argument: str, labels: Tensor, dimensions: Sequence[int], *, restored: bool) -> None:
        pass

    def silence(self, argument: str, labels: Tensor, position: int | None = None) -> None:
        pass

    def rescale(self, arguments: Sequence[str], labels: Tensor) -> None:
        pass

    def width(self, kinds: type[nn.Module] | UnionType, attribute: str, *along: Tensor) -> None:
        pass

    def fresh(self) -> Tensor:
        return next(self._issued)

    def decide(self, found: Decision) -> Decision:
        return next(self._decided, found)  # type: ignore[return-value]

    def keep(self, labels: Tensor, reason: str) -> None:
        pass

    def keep_state(self, state: State, reason: str) -> None:
        pass

    def assume(self, labels: Tensor, reason: str) -> None:
        pass

    def _order(self, state: State, dimension: int, order: NDArray[np.int64], blocks: int) -> None:
        known = self._orders.setdefault((state.name, dimension), order)
        if len(known) != state.shape[dimension] * blocks or not np.array_equal(known, order):
            raise Refused("would receive its channels in another order than elsewhere")


def positions(before: NDArray[np.int64], after: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """Return where each label of ``after`` stood in ``before``, repeated labels in turn; ``None`` if one did not."""
    order, wanted = np.argsort(before, kind="stable"), np.argsort(after, kind="stable")
    have, want = before[order], after[wanted]
    turn = np.arange(len(want)) - np.searchsorted(want, want)
    place = np.searchsorted(have, want) + turn
    if len(want) and (place.max() >= len(have) or not np.array_equal(have[place], want)):
        return None
    result = np.empty(len(after), dtype=np.int64)
    result[wanted] = order[place]
    return result


def narrowed_capture(model: nn.Module, whole: Capture, shapes: Mapping[str, Size], changes: Changes) -> Capture:
    """Capture a model with narrower states, whose values do not matter.

    Args:
        model: the whole model.
        whole: its capture, for the mode and the inputs.
        shapes: the shapes of all states, by qualified name.
        changes: the width attributes that change.

    Raises:
        Illegal: the forward pass fails; carries the whole model's call at which it does.
    """
    clone = structural_clone(model)
    states = state_tensors(clone)
    set_attributes(clone, changes)
    values = {name: t if shapes[name] == t.shape else t.new_empty(shapes[name]) for name, t in states.items()}
    own_tensors(clone, values)
    reached: list[str] = []
    try:
        return capture(clone, whole.inputs, training=whole.training, reached=reached, origins=False)
    except CaptureError as error:
        raise Illegal(_call_after(whole, reached), str(error)) from error


def _call_after(whole: Capture, reached: Sequence[str]) -> fx.Node:
    """Return the call of the whole model's graph that follows those recorded before a failure."""
    calls = [node for node in whole.nodes if node.op == "call_function"]
    names = set(reached)
    last = max((number for number, node in enumerate(calls) if node.name in names), default=-1)
    return calls[min(last + 1, len(calls) - 1)]


def replay(
    whole: Capture,
    narrow: Capture,
    labelling: Labelling,
    states: StateLabels,
    kept: KeptLabels,
    orders: Orders,
    wanted: Orders,
    numbers: dict[fx.Node, float],
) -> list[Tensor | ComputedWeight]:
    """Run a narrowed model's graph on the labels that stay.

    Args:
        whole: the whole model's capture.
        narrow: the narrowed model's, in the same mode.
        labelling: what the first pass did.
        states: the whole model's state labels.
        kept: which labels stay.
        orders: receives the order of the slices of each state.
        wanted: the order each state's slices are to have, where not ascending.
        numbers: receives by how much products with a number have changed that can be made up for.

    Returns:
        The labels of the results.

    Raises:
        Illegal: labels arrive where they do not belong.
    """
    calls, trails = effective_calls(whole, labelling.trails)
    ours = [node for node in narrow.nodes if has_effect(node)]
    if [node.target for node in calls] != [node.target for node in ours]:
        raise Illegal(calls[-1], "the narrower model runs other operators")
    waiting = iter(zip(calls, trails, strict=True))
    fixed = iter(labelling.fixed)
    kept_states = _KeptStates(states, kept, wanted)

    def apply(node: fx.Node, arguments: dict[str, object], value: object) -> Labels:
        if not has_effect(node):
            return arguments["self"]  # type: ignore[return-value]
        original, trail = next(waiting)
        call = _ReplayedCall(node, arguments, value, kept_states, kept, trail, orders)
        try:
            _check_numbers(original, node, labelling, numbers, trail)
            result = _labelled(call, trail)
            _check_own(trail.results, labels_in(result), kept)
        except (Refused, RuntimeError, IndexError, ValueError, StopIteration) as reason:
            raise Illegal(original, str(reason)) from reason
        return result

    def one(_: Boundary) -> Tensor:
        return next(fixed)

    return run_on_labels(narrow, kept_states, apply, one)


def has_effect(node: fx.Node) -> bool:
    """Whether a node is a call that does anything to labels; ``contiguous`` runs or not as strides ask for it."""
    return node.op == "call_function" and operator_of(node) not in ("getitem", "aten::contiguous")


def effective_calls(capture: Capture, trails: Sequence[Trail]) -> tuple[list[fx.Node], list[Trail]]:
    """Return the calls of a capture that do anything to labels, and what the rules did at each."""
    calls = [node for node in capture.nodes if node.op == "call_function" and operator_of(node) != "getitem"]
    pairs = [(node, trail) for node, trail in zip(calls, trails, strict=True) if has_effect(node)]
    return [node for node, _ in pairs], [trail for _, trail in pairs]


def _labelled(call: Call, trail: Trail) -> Labels:
    """Do at a call of the narrowed model what was done in the first pass."""
    if trail.refused:
        return call.kept_result("")
    partly = literal_rules.find(call.operator) if trail.literal else None
    if partly is None:
        return rule_for(call.node)(call)
    call.literal = trail.literal
    return partly(call)


def _check_numbers(
    original: fx.Node, node: fx.Node, labelling: Labelling, numbers: dict[fx.Node, float], trail: Trail
) -> None:
    """Check that every number but a size is still the same: a width in it would change what is computed.

    So is every constant tensor: a number may hide in one.
    """
    for was, now in zip(original.all_input_nodes, node.all_input_nodes, strict=False):
        before, after = was.meta.get(CONSTANT), now.meta.get(CONSTANT)
        if before is not None and after is not None and not _alike(before, after):
            raise Refused("computes with a constant tensor that changes with the width")
    difference = changed_number(original, node, but=("groups",) if trail.whole_blocks else ())
    if not difference:
        return
    was, now = ([arg for arg in call.args if isinstance(arg, int | float)] for call in (original, node))
    if original not in labelling.by_number or len(was) != 1 or len(now) != 1 or 0 in (*was, *now):
        raise Refused(f"computes with a number that changes with the width: {difference}")
    numbers[original] = was[0] / now[0] if operator_of(node) == "aten::mul" else now[0] / was[0]


def _alike(before: Tensor, after: Tensor) -> bool:
    """Whether two constants hold the same; of tensors of different shapes their labels tell."""
    if before is after or before.shape != after.shape:
        return True
    return torch.equal(before, after) or bool((before.isnan() & after.isnan() | (before == after)).all())


def _check_own(before: Sequence[Tensor], after: Sequence[Tensor], kept: KeptLabels) -> None:
    """Check that results hold exactly the kept ones of the labels they held."""
    if len(before) != len(after):
        raise Refused("would return another number of tensors")
    for was, now in zip(before, after, strict=True):
        expected = core(was)
        if not torch.equal(expected[kept.mask(expected)].unique(), core(now).unique()):
            raise Refused("would return other channels than its own")
