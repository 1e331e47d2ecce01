"""Deciding which calls are made up for when a width they divide by changes; the widths of the others stay."""

import math
import operator
from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor, fx

from cutback.graph.capture import Capture, module_path, operator_of
from cutback.graph.interpret import Labelling
from cutback.graph.labels import Boundary, LabelStore, core, varying_dimensions
from cutback.graph.replay import Illegal, KeptLabels
from cutback.graph.scales import Compensation, Rows, Search, is_movement

_PRODUCTS = frozenset(
    f"aten::{name}" for name in ("matmul", "bmm", "baddbmm", "einsum", "scaled_dot_product_attention")
)

_FACTORS = {"aten::matmul": ("self", "other"), "aten::bmm": ("self", "mat2")}
"""Products whose result a number may scale, and their factors, either of which may be multiplied instead."""


def compensate(captures: Sequence[Capture], labellings: Sequence[Labelling], store: LabelStore) -> None:
    """Find what makes up for every width that is divided by, and keep the widths for which nothing does.

    What is found is noted in ``Labelling.compensations``.

    Args:
        captures: recorded forward passes.
        labellings: their labels.
        store: receives which labels stay.
    """
    searches: list[Search] = []
    required: list[list[Compensation]] = []
    numbers: list[list[Compensation]] = []
    scaled_by: dict[fx.Node, fx.Node] = {}
    for recorded, labelling in zip(captures, labellings, strict=True):
        calls = [node for node in _calls(recorded) if node.target is not operator.getitem]
        trails = dict(zip(calls, labelling.trails, strict=True))
        asked = {node: trail.rescaled[0] for node, trail in trails.items() if trail.rescaled}
        if not asked and not any(map(_scales_by_a_number, calls)):
            continue
        labels = labels_of(recorded, labelling)
        search = Search(recorded, labels, {node: asking.arguments for node, asking in asked.items()})
        searches.append(search)
        required.append(
            [c for node, asking in asked.items() if (c := _first(search, node, asking.arguments)) is not None]
        )
        demands = {node: ("self",) for node in calls if _scales_scores(node, labels)}
        products = {product: node for node in calls if (product := _scaled_product(node)) is not None}
        demands |= {product: _FACTORS[operator_of(product)] for product in products}
        scaled_by.update(products)
        beside = Search(recorded, labels, demands)
        numbers.append([c for node, names in demands.items() if (c := _first(beside, node, names)) is not None])
    chosen = consistent(required, searches)
    optional = consistent(numbers, searches)
    for recorded, labelling in zip(captures, labellings, strict=True):
        nodes = {*_calls(recorded)}
        labelling.compensations.extend(c for group in chosen for c in group if c.node in nodes)
        found = [c for group in optional for c in group if c.node in nodes]
        labelling.by_number.update({scaled_by.get(c.node, c.node): c for c in found})
        made_up = {c.node for c in labelling.compensations}
        calls = [node for node in _calls(recorded) if node.target is not operator.getitem]
        for node, trail in zip(calls, labelling.trails, strict=True):
            if trail.rescaled and node not in made_up:
                store.keep(trail.rescaled[0].labels, _reason(node))


def multiplied_rows(
    labellings: Sequence[Labelling], labels: KeptLabels, numbers: Mapping[fx.Node, float]
) -> dict[Rows, float]:
    """Return by what rows of states are to be multiplied, to make up for widths that operators divide by.

    Args:
        labellings: the labels of each capture.
        labels: which labels stay.
        numbers: by how much products with a number must be made up for, as the second pass found.

    Raises:
        Illegal: two calls that see the same rows ask for different factors.
    """
    found: dict[Rows, float] = {}
    factors: dict[tuple[fx.Node, str], float] = {}
    active: list[Compensation] = []
    for labelling in labellings:
        for compensation in labelling.compensations:
            factors[compensation.node, compensation.argument] = math.sqrt(_share_left(labels, compensation))
            active.append(compensation)
        for node, compensation in labelling.by_number.items():
            if node in numbers:
                factors[compensation.node, compensation.argument] = numbers[node]
                active.append(compensation)
    for compensation in active:
        factor = factors[compensation.node, compensation.argument]
        ends = [factors.get(end, 1.0) for end in compensation.entered]
        ends += [found.setdefault(rows, factor) for rows in compensation.rows]
        if not np.allclose(ends, factor, rtol=1e-12, atol=0):
            raise Illegal(compensation.node, "divides by another width than what else sees the same rows")
    return {rows: factor for rows, factor in found.items() if factor != 1}


def _share_left(labels: KeptLabels, compensation: Compensation) -> float:
    """Return the share of the last dimension of what is multiplied that stays."""
    stays = labels.mask(core(compensation.labels))
    counts = stays.sum(-1).unique().tolist()
    if len(counts) != 1 or stays.shape[-1] == 0:
        raise Illegal(compensation.node, "would leave heads of different widths")
    return counts[0] / stays.shape[-1]


def consistent(found: Sequence[Sequence[Compensation]], searches: Sequence[Search]) -> list[list[Compensation]]:
    """Return, for each capture, the compensations that agree with every other use of the parameters they multiply."""
    chosen = [list(compensations) for compensations in found]
    while True:
        ends = {(c.node, c.argument): c for compensations in chosen for c in compensations}
        after = [[c for c in compensations if _agrees(c, ends, searches)] for compensations in chosen]
        if sum(map(len, after)) == sum(map(len, chosen)):
            return after
        chosen = after


def _agrees(
    compensation: Compensation, ends: Mapping[tuple[fx.Node, str], Compensation], searches: Sequence[Search]
) -> bool:
    """Whether all that sees the multiplied rows is made up for by multiplying the same rows."""
    mine = dict(compensation.rows)
    others = [ends.get(end) for end in compensation.entered]
    if any(other is None or dict(other.rows) != mine for other in others):
        return False
    made = {producer for c in ends.values() if dict(c.rows) == mine for producer in c.producers}
    return all(user in made for rows in compensation.rows for search in searches for user in search.uses(rows))


def _first(search: Search, node: fx.Node, arguments: Sequence[str]) -> Compensation | None:
    """Return how the first argument of a call that can be multiplied is."""
    for name in arguments:
        found = search.find(node, name)
        if found is not None:
            return found
    return None


def _reason(node: fx.Node) -> Boundary:
    """Return why a width stays that nothing can make up for."""
    return Boundary(
        operator_of(node),
        module_path(node),
        "divides by the square root of this width, and no parameter before it can be multiplied to make up for that",
    )


def _calls(recorded: Capture) -> list[fx.Node]:
    return [node for node in recorded.nodes if node.op == "call_function"]


def _scales_scores(node: fx.Node, labels: Mapping[fx.Node, Sequence[Tensor]]) -> bool:
    """Whether a call multiplies by a number what is only moved until it is a factor of a product of two tensors.

    So a query or a key is scaled by its width. Anywhere else a number that depends on a width has another meaning.
    """
    if not _scales_by_a_number(node) or not _carries(labels[node]):
        return False
    waiting = [node]
    while waiting:
        calls = [user for user in waiting.pop().users if user.op != "output"]
        moved = [user for user in calls if is_movement(user)]
        products = [user for user in calls if operator_of(user) in _PRODUCTS and _all_computed(user)]
        if not calls or len(moved) + len(products) < len(calls):
            return False
        waiting += moved
    return True


def _scaled_product(node: fx.Node) -> fx.Node | None:
    """Return the product of two computed tensors that a call multiplies by a number and that nothing else sees."""
    user, source = node, node.args[0] if _scales_by_a_number(node) else None
    while isinstance(source, fx.Node) and list(source.users) == [user]:
        if operator_of(source) in _FACTORS:
            return source if _all_computed(source) else None
        if not is_movement(source):
            return None
        user, source = source, source.args[0]
    return None


def _all_computed(node: fx.Node) -> bool:
    return all(source.op == "call_function" for source in node.all_input_nodes)


def _scales_by_a_number(node: fx.Node) -> bool:
    """Whether a call multiplies or divides a tensor by a number."""
    by_number = len(node.args) > 1 and isinstance(node.args[1], float)
    return by_number and operator_of(node) in ("aten::mul", "aten::div")


def _carries(labels: Sequence[Tensor]) -> bool:
    return any(varying_dimensions(tensor) for tensor in labels)


def labels_of(recorded: Capture, labelling: Labelling) -> dict[fx.Node, Sequence[Tensor]]:
    """Return the labels of the results of every call."""
    waiting = iter(labelling.trails)
    found: dict[fx.Node, Sequence[Tensor]] = {}
    for node in _calls(recorded):
        if node.target is operator.getitem:
            parts = found.get(node.args[0], ())  # type: ignore[arg-type]
            position = node.args[1]
            found[node] = [parts[position]] if isinstance(position, int) and position < len(parts) else []
        else:
            found[node] = next(waiting).results
    return found
