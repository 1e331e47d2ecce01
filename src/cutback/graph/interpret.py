"""Running a captured graph on labels instead of values."""

import operator
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor, fx
from torch._ops import OpOverload
from torch.fx.node import map_arg

from cutback.graph.aliasing import Memory
from cutback.graph.call import (
    CONSTANT,
    Assumption,
    Call,
    Labels,
    Refused,
    Rule,
    Trail,
    literal_rules,
    rules,
    weight_rules,
)
from cutback.graph.capture import Capture, operator_of
from cutback.graph.labels import Boundary, LabelStore, spread
from cutback.graph.scales import Compensation
from cutback.graph.states import State, StateLabels
from cutback.graph.weights import ComputedWeight, computes_weight, mark_weights

_NESTS = (list, tuple, dict, slice)


@dataclass(frozen=True, eq=False)
class Labelling:
    """A captured graph run on labels.

    Attributes:
        results: labels of the graph's results: the model's outputs, then every module's.
        trails: what the rules did, call by call.
        assumptions: sizes taken to follow a cut.
        fixed: the labels of inputs and constants, in order.
        compensations: what makes up for calls that divide by the square root of a width.
        by_number: what could make up for a product with a number, should that turn out to change with a width.
    """

    results: list[Tensor | ComputedWeight]
    trails: list[Trail]
    assumptions: list[Assumption]
    fixed: list[Tensor]
    compensations: list[Compensation] = field(default_factory=list)
    by_number: dict[fx.Node, Compensation] = field(default_factory=dict)


def label(
    capture: Capture,
    store: LabelStore,
    states: StateLabels,
    refused: Mapping[fx.Node, str],
    whole: Collection[fx.Node] = (),
    held: Mapping[fx.Node, Boundary] | None = None,
    decided: Mapping[fx.Node, Sequence[object]] | None = None,
) -> Labelling:
    """Run a captured graph on labels.

    Args:
        capture: the recorded forward pass.
        store: receives what is united and what is kept.
        states: labels of parameters and buffers, shared between captures.
        refused: calls to be made boundaries, with the reason of each.
        whole: calls whose blocks (groups of a convolution, heads) are to stay or go whole.
        held: calls, or placeholders of states, whose channels stay, with what keeps them.
        decided: what was found out about the sizes of calls in a wider network, to be taken for found again.
    """
    held = held or {}
    decided = decided or {}
    found = Labelling([], [], [], [])

    def apply(node: fx.Node, arguments: dict[str, object], value: object) -> Labels:
        trail = Trail(node in whole, given=arguments)
        call = Call(node, operator_of(node), arguments, value, store, states, trail, found.assumptions)
        call.decided, call.earlier = iter(decided.get(node, ())), found.trails
        found.trails.append(call.trail)
        result = _label_call(call, refused.get(node))
        call.trail.results = labels_in(result)
        for labels in call.trail.results if node in held else ():
            store.keep(labels, held[node])
        return result

    def fixed(boundary: Boundary) -> Tensor:
        found.fixed.append(store.fresh(1))
        store.keep(found.fixed[-1], boundary)
        return found.fixed[-1]

    found.results.extend(run_on_labels(capture, states, apply, fixed))
    for node, name in zip(capture.nodes, capture.states, strict=False):
        for labels in states.all_of(State(name, node.meta["val"].shape)) if node in held else ():
            store.keep(labels, held[node])
    for result in found.results[: capture.outputs]:
        for labels in labels_in(result):
            store.keep(labels, Boundary("output", "", "the network's output"))
    return found


def run_on_labels(
    capture: Capture,
    states: StateLabels,
    apply: Callable[[fx.Node, dict[str, object], object], Labels],
    fixed: Callable[[Boundary], Tensor],
) -> list[Tensor | ComputedWeight]:
    """Walk a captured graph with labels for values; return the labels of its results.

    Args:
        capture: the recorded forward pass.
        states: labels of parameters and buffers.
        apply: labels a call, given its arguments by schema name.
        fixed: gives one label, shape ``(1,)``, for a whole input or constant.
    """
    known = dict(zip(capture.nodes, capture.states, strict=False))
    environment: dict[fx.Node, Labels] = {}
    memory = Memory()
    mark_weights(capture.nodes, set(known))
    for node in capture.nodes:
        value = node.meta.get("val")
        if node in known:
            environment[node] = State(known[node], node.meta["val"].shape)
        elif node.op == "placeholder":
            environment[node] = _whole(value, fixed, Boundary("input", "", "the network's input"))
        elif node.op == "get_attr":
            constant = capture.constants[str(node.target)]
            node.meta[CONSTANT] = constant
            environment[node] = _whole(constant, fixed, Boundary("constant", "", "a constant tensor"))
        elif node.op == "call_function" and node.target is operator.getitem:
            source = environment[node.args[0]]  # type: ignore[index]
            environment[node] = source[node.args[1]] if isinstance(source, list | tuple) else None  # type: ignore[index]
        elif node.op == "call_function":
            environment[node] = apply(node, _bind(node, environment), value)
            memory.written(node, environment[node], environment)
        memory.note(node)
    return [_result(environment[node], states) for node in capture.results]


def _label_call(call: Call, refusal: str | None) -> Labels:
    """Apply the rule for one call, or make it a boundary."""
    try:
        if refusal is not None:
            partly = literal_rules.find(call.operator)
            if partly is None:
                raise Refused(refusal)
            call.literal = call.trail.literal = refusal
            return partly(call)
        return rule_for(call.node)(call)
    except Refused as reason:
        call.trail.restart()
        return stop(call, str(reason))
    except (RuntimeError, IndexError, TypeError, ValueError, KeyError) as error:  # fail closed: a case no rule foresaw
        call.trail.restart()
        return stop(call, f"its rule cannot follow this call ({type(error).__name__}: {error})".partition("\n")[0])


def rule_for(node: fx.Node) -> Rule:
    """Return the rule for a call.

    Raises:
        Refused: there is none.
    """
    table = weight_rules if computes_weight(node) else rules
    rule = table.find(operator_of(node)) if isinstance(node.target, OpOverload) else None
    if rule is None and table is weight_rules:
        raise Refused("is not known to keep the rows and columns of a computed weight apart")
    if rule is None:
        raise Refused("no rule says what this operator does to channels")
    return rule


def stop(call: Call, reason: str) -> Labels:
    """Make a call a boundary: every channel that reaches it stays, and its result is unknown."""
    for value in call.arguments.values():
        for item in value if isinstance(value, list | tuple) else [value]:
            if isinstance(item, State):
                call.keep_state(item, reason)
                continue
            for labels in labels_in(item):  # type: ignore[arg-type]
                call.keep(labels, reason)
    return call.kept_result(reason)


def _bind(node: fx.Node, environment: dict[fx.Node, Labels]) -> dict[str, object]:
    """Return a call's arguments by schema name, defaults filled in, with labels for tensors."""

    def labelled(value: object) -> object:
        if isinstance(value, fx.Node):
            return environment[value]
        return map_arg(value, environment.__getitem__) if isinstance(value, _NESTS) else value  # type: ignore[arg-type]

    if not isinstance(node.target, OpOverload):
        return {str(position): labelled(value) for position, value in enumerate(node.args)}
    arguments: dict[str, object] = {}
    for position, (name, default) in enumerate(_arguments_of(node.target)):
        if position < len(node.args):
            arguments[name] = labelled(node.args[position])
        else:
            arguments[name] = labelled(node.kwargs[name]) if name in node.kwargs else default
    return arguments


@cache
def _arguments_of(target: OpOverload) -> tuple[tuple[str, object], ...]:
    """Return name and default of each argument of an operator."""
    return tuple((argument.name, argument.default_value) for argument in target._schema.arguments)


def labels_in(value: Labels) -> list[Tensor]:
    """Return the label tensors among what stands for a node's value."""
    if isinstance(value, list | tuple):
        return [labels for item in value for labels in labels_in(item)]
    if isinstance(value, ComputedWeight):
        return [layer.labels for layer in value.layers]
    return [value] if isinstance(value, Tensor) else []


def _whole(value: object, fixed: Callable[[Boundary], Tensor], boundary: Boundary) -> Labels:
    """Return one kept label for a whole tensor, or ``NONE`` for a single number."""
    if not isinstance(value, Tensor):
        return None
    if value.numel() == 1:
        return torch.zeros(value.shape, dtype=torch.int64)
    return fixed(boundary).expand(value.shape)


def _result(value: Labels, states: StateLabels) -> Tensor | ComputedWeight:
    """Return the labels of a result; a parameter returned as it is keeps all its elements."""
    if isinstance(value, Tensor | ComputedWeight):
        return value
    if isinstance(value, State):
        labels = states.each(value)
        return labels if labels is not None else spread(states.vector(value, 0, "element"), 0, value.shape)
    return torch.zeros((), dtype=torch.int64)
