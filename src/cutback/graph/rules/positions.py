"""Operators that take elements by position: slices, splits, rolls and look-ups with constant positions.

Bounds that a model computes from its widths follow a cut; bounds written as literals keep the channels they count.
"""

import math

import torch
from torch import Tensor, fx

from cutback.graph.call import CONSTANT, Call, Labels, Refused, literal_rules, rules
from cutback.graph.capture import operator_of
from cutback.graph.labels import NONE, compact, core, spread, varies, varying_dimensions
from cutback.graph.origins import given_numbers
from cutback.graph.rules.movement import run, tie_all_but
from cutback.graph.scales import SPLITS
from cutback.graph.states import State

_END = 2**63 - 1
_COPIES = ("lift_fresh", "lift_fresh_copy", "clone", "detach", "alias", "to", "_to_copy", "contiguous")


@rules.register(*SPLITS)
def split(call: Call) -> Labels:
    """Split along a dimension: equal blocks lose equally many, unequal ones as many as their sizes follow."""
    labels = call.labels("self")
    dimension = int(call.arguments["dim"]) % labels.dim()  # type: ignore[call-overload]
    parts = [value.shape[dimension] for value in call.values]  # type: ignore[union-attr, attr-defined]
    if varies(labels, dimension):
        computed = call.operator in ("aten::chunk", "aten::unsafe_chunk") or call.arguments.get("sections") is not None
        equal = call.decide(len(set(parts)) == 1)
        if equal:
            call.tie_blocks(labels, dimension, len(parts))
        elif computed:
            raise Refused(f"splits channels into blocks of unequal sizes {parts}")
        if not (equal and computed):
            call.assume(labels, f"splits into blocks of the literal sizes {parts}")
    return [compact(part) for part in labels.split(parts, dimension)]


@rules.register("aten::slice", "aten::narrow")
def slice_(call: Call) -> Labels:
    """Slice along a dimension; what is left and right of the bounds loses what the bounds follow."""
    labels, dimension = _sliced(call)
    result = run(call, call.node.target)
    start, end, step = _bounds(call)
    width = labels.size(dimension)
    if not varies(labels, dimension) or (start == 0 and end >= width and step == 1):
        return result
    size = call.shape[dimension]
    first = min(max(start + width if start < 0 else start, 0), width)
    if step > 1:
        if width % step or first >= step or size != width // step:
            raise Refused(f"takes every {step}th of a part of {width} channels")
        tie_all_but(call, labels, dimension, [width // step, step], 0)
        return result
    constant = bool((core(labels) == NONE).any())  # what is still empty is no block that channels could balance
    block = bool(size) and not constant and width % size == first % size == 0
    if call.decide(block and _computed(call.node) and _siblings(call.node, dimension) == {size}):
        call.tie_blocks(labels, dimension, width // size)
    call.assume(labels, f"takes channels {first} to {first + size - 1} of {width} by literal position")
    return result


def _computed(node: fx.Node) -> bool:
    """Whether bounds are computed from sizes or attributes: literal ones count channels and ask for no equal blocks."""
    given = given_numbers(node)
    return given is not None and any(origin is not None for _, origin in given.all)


@literal_rules.register("aten::slice", "aten::narrow")
def literal_slice(call: Call) -> Labels:
    """Keep the channels that literal bounds count, from the end that they count from; the others may go."""
    labels, dimension = _sliced(call)
    start, end, step = _bounds(call)
    width = labels.size(dimension)
    bounds = [bound for bound in (start, end) if -width <= bound < width]
    before = width if step > 1 else max([0, *bounds])
    after = min([0, *bounds])
    call.keep(labels.narrow(dimension, 0, before), call.literal)
    call.keep(labels.narrow(dimension, width + after, -after), call.literal)
    return run(call, call.node.target)


@rules.register("aten::roll")
def roll(call: Call) -> Labels:
    """Turn elements round a dimension; consumers follow the order, what is paired with it must too."""
    labels = call.labels("self")
    listed = call.arguments["dims"] or []
    touched = [int(dimension) for dimension in listed] or range(labels.dim())  # type: ignore[attr-defined]
    if call.decide(not any(varies(labels, dimension) for dimension in touched)):
        return labels
    computed = _computed(call.node) and bool(listed)
    for dimension, shift in zip(touched, call.arguments["shifts"], strict=False):  # type: ignore[arg-type]
        blocks = call.decide(labels.size(dimension) // math.gcd(int(shift), labels.size(dimension)))
        if call.decide(computed and blocks > 1 and varies(labels, dimension)):
            call.tie_blocks(labels, dimension, blocks)
    call.assume(labels, f"rolls channels by the literal amount {call.arguments['shifts']}")
    return run(call, call.node.target)


@rules.register("aten::rot90")
def rotated(call: Call) -> Labels:
    """Rotate two dimensions that carry no channels."""
    labels = call.labels("self")
    if any(varies(labels, int(dimension)) for dimension in call.arguments["dims"]):  # type: ignore[attr-defined]
        raise Refused("rotates channels")
    return core(labels).expand(call.shape)


@rules.register("aten::index_select")
def index_select(call: Call) -> Labels:
    """Take positions along one dimension."""
    dimension = int(call.arguments["dim"]) % len(call.shape)  # type: ignore[call-overload]
    node = call.node.args[2] if len(call.node.args) > 2 else call.node.kwargs["index"]
    return _looked_up(call, dimension, node, call.arguments["index"])


@rules.register("aten::index")
def index(call: Call) -> Labels:
    """Take positions along dimensions; of channels only by a constant list."""
    listed = [(d, given) for d, given in enumerate(call.arguments["indices"]) if given is not None]  # type: ignore[arg-type]
    source = call.arguments["self"]
    if len(listed) == 1:
        dimension = listed[0][0]
        if isinstance(source, State) and len(source.shape) == 2 and dimension == 0:  # a table: its columns are channels
            _keep_positions(call, listed[0][1])
            return spread(call.made(source, 1, "element"), len(call.shape) - 1, call.shape)
        if call.decide(varies(call.labels("self"), dimension)):
            return _looked_up(call, dimension, call.node.args[1][dimension], listed[0][1])  # type: ignore[index]
    labels = call.labels("self")
    if any(varies(labels, dimension) for dimension, _ in listed):
        raise Refused("picks channels by several lists of positions at once")
    for _, given in listed:
        _keep_positions(call, given)
    touched = [dimension for dimension, _ in listed]
    left = core(labels)
    for dimension in reversed(touched):
        left = left.select(dimension, 0)
    adjacent = touched == list(range(touched[0], touched[-1] + 1))
    place = touched[0] if adjacent else 0
    return left[(slice(None),) * place + (None,) * (len(call.shape) - left.dim())].expand(call.shape)


def _looked_up(call: Call, dimension: int, positions: object, given: object) -> Labels:
    """Take positions along a dimension: where it carries channels, those up to the last one taken stay."""
    labels = call.labels("self")
    if not call.decide(varies(labels, dimension)):
        return core(labels).expand(call.shape)
    if isinstance(given, State) and call.decide(_selects(labels, dimension, positions)):
        # Each position is a channel of its own: with it goes the place in the list, whatever stands there.
        call.keep(labels, f"is selected from at the positions that {given.name} holds")
        return spread(call.made(given, 0, "selection"), dimension, call.shape)
    found = _constant(positions)
    if found is None or found.dim() > 1 or found.dtype == torch.bool or not found.numel():
        raise Refused("picks channels by positions that are not a constant list")
    last = labels.size(dimension) if int(found.min()) < 0 else int(found.max()) + 1
    call.keep(labels.narrow(dimension, 0, last), "picks channels by a literal list of positions")
    found = torch.where(found < 0, found + labels.size(dimension), found).flatten()
    return compact(labels.index_select(dimension, found))


def _selects(labels: Tensor, dimension: int, positions: object) -> bool:
    """Whether a state that tells positions is a list of whole numbers, and the channels lie along one dimension."""
    value = positions.meta["val"] if isinstance(positions, fx.Node) else None
    listed = isinstance(value, Tensor) and value.dim() == 1 and value.dtype in (torch.int64, torch.int32)
    return listed and varying_dimensions(labels) == [dimension]


def _keep_positions(call: Call, given: object) -> None:
    """Keep whatever tells positions."""
    if isinstance(given, State):
        call.keep_state(given, "tells positions")
    elif isinstance(given, Tensor):
        call.keep(given, "tells positions")


def _constant(node: object) -> Tensor | None:
    """Return the value of a constant tensor of a graph, seen through copies."""
    while isinstance(node, fx.Node) and node.op == "call_function":
        if operator_of(node).partition("::")[2] not in _COPIES:
            return None
        node = node.args[0]
    value = node.meta.get(CONSTANT) if isinstance(node, fx.Node) else None
    return value.detach().cpu().long() if type(value) is Tensor and not value.is_floating_point() else None


def _sliced(call: Call) -> tuple[Tensor, int]:
    """Return the labels and the dimension of a slice."""
    labels = call.labels("self")
    return labels, int(call.arguments["dim"]) % labels.dim()  # type: ignore[call-overload]


def _siblings(node: fx.Node, dimension: int) -> set[int]:
    """Return how wide the slices of one tensor along a dimension are: of one width only if they are its blocks."""
    users = node.all_input_nodes[0].users
    alike = [user for user in users if user.target is node.target and user.args[1:2] == node.args[1:2]]
    return {user.meta["val"].shape[dimension] for user in alike}


def _bounds(call: Call) -> tuple[int, int, int]:
    """Return start, end and step as written."""
    start = call.arguments.get("start")
    if isinstance(start, Tensor | State):
        raise Refused("takes elements by a computed position")
    first = int(start or 0)  # type: ignore[call-overload]
    if call.operator == "aten::narrow":
        end = first + int(call.arguments["length"])  # type: ignore[call-overload]
        return first, _END if first < 0 <= end else end, 1
    end = call.arguments.get("end")
    return first, _END if end is None else int(end), int(call.arguments.get("step", 1))  # type: ignore[call-overload]
