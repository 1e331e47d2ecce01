"""From a graph, a score and budgets to a plan."""

import fnmatch
import math
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from cutback.errors import IllegalCut, InvalidBudget, UnknownName
from cutback.graph.architecture import architecture_hash, structure_hash
from cutback.graph.capture import module_path
from cutback.graph.clone import state_tensors
from cutback.graph.graph import Graph, Group, layer_of
from cutback.graph.interpret import operator_of
from cutback.graph.replay import Illegal
from cutback.graph.second_pass import natural_orders, second_pass
from cutback.planning.budget import Budget, parse_budgets
from cutback.planning.cost import CostModel
from cutback.planning.plan import Cost, Kept, Plan, PlannedGroup
from cutback.planning.select import Choice, best_units, choose_widths, permitted_widths, require_groups
from cutback.registry import near_misses
from cutback.scores.catalogue import Score, score_groups

Share = str | float | int
"""What stays of a layer: a share (``"90%"`` or ``0.9``) or a number of channels (``57``)."""


def make_plan(
    graph: Graph,
    *,
    score: str | Score = "l1",
    budget: str | Sequence[str] | None = None,
    keep: Mapping[str, Share] | None = None,
    ignore: Sequence[str] = (),
    round_to: int = 1,
    min_channels: int = 1,
    allocate: str = "uniform",
) -> Plan:
    """Choose what stays. See ``cutback.plan`` for the arguments and the errors."""
    budgets = parse_budgets(budget)
    if not budgets and not keep:
        raise InvalidBudget("nothing says how much to remove; give a budget, for example budget='macs=50%'")
    if round_to < 1 or min_channels < 1:
        raise InvalidBudget(f"round_to and min_channels must be at least 1, not {round_to} and {min_channels}")
    paths = [path for path, _ in graph.model.named_modules() if path]
    ignored = {path for pattern in ignore for path in _matching(pattern, paths, "ignore")}
    layers = [layer for group in graph.groups for layer in group.layers]
    by_hand = {path: share for pattern, share in (keep or {}).items() for path in _matching(pattern, layers, "keep")}
    share = next((b.amount for b in budgets if b.quantity == "channels"), None)
    rated = score_groups(graph, score)
    choices: list[Choice] = []
    notes: list[str] = []
    for group, scores in zip(graph.groups, rated, strict=True):
        width = _channels_a_unit(group)
        permitted = {"step": round_to // math.gcd(round_to, width), "lowest": -(-min_channels // width)}
        wanted = next((by_hand[layer] for layer in group.layers if layer in by_hand), None)
        if ignored.intersection(_with_parents(_layers_with_its_outputs(group))):
            widths: tuple[int, ...] = (group.units,)
        elif wanted is not None:
            widths = (_share_of(group.units, width, wanted),)
        elif not budgets:
            widths = (group.units,)
        else:
            most = None if share is None else max(int(share * group.units), 1)
            widths = permitted_widths(group.units, most=most, **permitted)
            if most is not None and widths[0] > most:
                notes.append(f"{group.name} keeps {widths[0]} of {group.units}, the lowest permitted width")
        choices.append(Choice(scores, widths))
    require_groups(choices, _why_nothing(graph, ignored))
    cost = CostModel(graph)
    bounded = [b for b in budgets if b.quantity != "channels"]
    kept = choose_widths(choices, cost, bounded, allocate)
    units = {
        group.name: best_units(choice.scores, int(count))
        for group, choice, count in zip(graph.groups, choices, kept, strict=True)
    }
    return plan_for(graph, units, budgets=budgets, cost=cost, notes=notes)


def plan_for(
    graph: Graph,
    units: Mapping[str, Sequence[int]],
    *,
    budgets: Sequence[Budget] = (),
    cost: CostModel | None = None,
    notes: Sequence[str] = (),
) -> Plan:
    """Return the plan that keeps the given units of each named group and all of every other.

    Raises:
        UnknownName: a group of that name does not exist; the message lists near misses.
        InvalidBudget: a group would lose all units, or a unit does not exist.
        IllegalCut: these units cannot go together.
    """
    cost = cost or CostModel(graph)
    names = [group.name for group in graph.groups]
    for name, numbers in units.items():
        if name not in names:
            raise UnknownName(f"no group is called {name!r}; {near_misses(name, names)}")
        total = graph.groups[names.index(name)].units
        if not numbers or len(set(numbers)) < len(numbers) or not 0 <= min(numbers) <= max(numbers) < total:
            raise InvalidBudget(f"group {name} must keep distinct units between 0 and {total - 1}, at least one")
    kept = [tuple(units.get(group.name, range(group.units))) for group in graph.groups]
    counts = np.array([len(numbers) for numbers in kept], dtype=np.int64)
    whole = np.array([group.units for group in graph.groups], dtype=np.int64)
    planned = tuple(
        PlannedGroup(group.name, group.layers, group.units, numbers, _macs_of(group, cost, whole, counts))
        for group, numbers in zip(graph.groups, kept, strict=True)
    )
    slices = _slices(graph, kept)
    shapes = {name: tuple(tensor.shape) for name, tensor in state_tensors(graph.model).items()}
    structure = structure_hash(graph.model)
    after = {
        name: tuple(len(slices[name][d].indices) if d in slices.get(name, {}) else size for d, size in enumerate(shape))
        for name, shape in shapes.items()
    }
    costs = {quantity: Cost(cost.dense(quantity), cost.of(quantity, counts)) for quantity in ("macs", "params")}
    return Plan(
        architecture=architecture_hash(structure, shapes),
        result=architecture_hash(structure, after),
        groups=planned,
        slices=slices,
        costs=costs,
        budgets=tuple(map(str, budgets)),
        notes=(*notes, *_notes(budgets, costs)),
    )


def _slices(graph: Graph, kept: Sequence[Sequence[int]]) -> dict[str, dict[int, Kept]]:
    """Return what stays along each dimension that loses something."""
    stays = kept_masks(graph, kept)
    try:
        orders = second_pass(graph, stays)[0] if graph.coupling.assumes else natural_orders(graph, stays)
    except Illegal as reason:
        where = f"{module_path(reason.node) or '(model)'} : {operator_of(reason.node)}"
        raise IllegalCut(
            f"{where}: {reason}; this choice of units would send channels where they do not belong; ignore the layers "
            "concerned or choose others"
        ) from reason
    slices: dict[str, dict[int, Kept]] = {}
    for slot, owners in graph.slots.items():
        indices, total = orders[slot.state, slot.dimension], len(owners.group)
        if len(indices) < total:
            slices.setdefault(slot.state, {})[slot.dimension] = Kept(total, tuple(indices.tolist()))
    return slices


def kept_masks(graph: Graph, kept: Sequence[Sequence[int]]) -> list[NDArray[np.bool_]]:
    """Return for each group which of its units stay, shape ``(units,)``."""
    masks = [np.zeros(group.units, dtype=bool) for group in graph.groups]
    for mask, numbers in zip(masks, kept, strict=True):
        mask[list(numbers)] = True
    return masks


def planned_masks(graph: Graph, plan: Plan) -> list[NDArray[np.bool_]]:
    """Return for each group of a graph which of its units a plan keeps, shape ``(units,)``, as most slices have it."""
    masks: list[NDArray[np.bool_]] = []
    for group in graph.groups:
        votes = np.zeros(group.units)
        for slot, indices in group.slices.items():
            kept = plan.slices.get(slot.state, {}).get(slot.dimension)
            votes += 1 if kept is None else np.isin(indices, kept.indices).all(axis=1)
        masks.append(2 * votes >= len(group.slices))
    return masks


def _macs_of(group: Group, cost: CostModel, whole: NDArray[np.int64], counts: NDArray[np.int64]) -> Cost:
    """Return the MACs of the layers that produce a group's channels."""
    states = {slot.state for slot in group.slices if slot.role in ("filter", "depthwise")}
    return Cost(cost.macs_of(states, whole), cost.macs_of(states, counts))


def _notes(budgets: Iterable[Budget], costs: Mapping[str, Cost]) -> list[str]:
    """Say which budgets were met by more than 1 % of the dense cost because no finer step exists."""
    bounded = [budget for budget in budgets if budget.quantity in costs]
    gaps = {b: b.limit(costs[b.quantity].before) - costs[b.quantity].after for b in bounded}
    if not bounded or any(gap * 100 <= costs[b.quantity].before for b, gap in gaps.items()):
        return []
    return [
        f"{budget}: {gap:,} below the budget, because the next permitted step would be over it"
        for budget, gap in gaps.items()
    ]


def _matching(pattern: str, paths: list[str], argument: str) -> list[str]:
    """Return the paths a glob matches, among all modules (``ignore``) or the layers that can be cut (``keep``).

    Raises:
        UnknownName: none does; the message lists near misses.
    """
    found = [path for path in paths if fnmatch.fnmatchcase(path, pattern)]
    if not found:
        what = "module" if argument == "ignore" else "layer that can be cut"
        raise UnknownName(f"{argument} pattern {pattern!r} matches no {what}; {near_misses(pattern, paths)}")
    return found


def _layers_with_its_outputs(group: Group) -> list[str]:
    """Return the layers whose outputs are a group's channels: those that make them and those that normalise them."""
    return [layer_of(slot.state) for slot in group.slices if slot.role != "column"]


def _with_parents(layers: Iterable[str]) -> set[str]:
    """Return module paths together with those of all modules that contain them."""
    return {".".join(parts[: n + 1]) for layer in layers for parts in [layer.split(".")] for n in range(len(parts))}


def _share_of(units: int, width: int, wanted: Share) -> int:
    """Return how many units stay for a share (rounded down) or a number of channels; at least one."""
    try:
        if isinstance(wanted, str) and wanted.strip().endswith("%"):
            share = Fraction(wanted.strip()[:-1]) / 100
        elif isinstance(wanted, int) and not isinstance(wanted, bool):
            share = Fraction(wanted, units * width)
        else:
            share = Fraction(str(wanted)).limit_denominator(
                10**9
            )  # so that 1 - 0.9 is a tenth, not 0.09999999999999998
    except ValueError as error:
        raise InvalidBudget(
            f"cannot read keep={wanted!r}; write a share ('90%' or 0.9) or a number of channels"
        ) from error
    if not 0 < share <= 1:
        raise InvalidBudget(f"keep={wanted!r} must lie above 0 and at most at the {units * width} channels there are")
    return max(int(share * units), 1)


def _channels_a_unit(group: Group) -> int:
    """Return how many channels of its first layer a unit stands for."""
    return next((indices.shape[1] for slot, indices in group.slices.items() if slot.role in ("filter", "depthwise")), 1)


def _why_nothing(graph: Graph, ignored: set[str]) -> str:
    """Say what keeps each layer, shortened."""
    reasons = [f"{layer.layer} ({layer.reasons[0]})" for layer in graph.kept[:4]]
    reasons += [f"{len(ignored)} ignored modules"] if ignored else []
    return "; ".join(reasons) or "it has no layer with channels"
