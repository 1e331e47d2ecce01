"""One row of the scoreboard: an architecture is traced, planned, proven, wrongly cut on purpose, and cut."""

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

import cutback
from benchmarks.zoo.catalogue import Entry
from cutback.errors import BudgetUnreachable, CutbackError, NotEquivalent
from cutback.graph.graph import Graph
from cutback.planning.plan import Kept, Plan
from cutback.surgery.verify import prove

LEAST_REMOVED = 0.4
BUDGET = "channels=50%"
PASSES, REFUSES, SILENT, ERROR = "passes", "refuses", "silent", "error"


@dataclass
class Row:
    """What was found out about one architecture.

    Attributes:
        key: its name as the command writes it.
        suite: the group of rows it counts in.
        family: the Python module that defines it.
        size: height and width of its pictures in pixels.
        outcome: ``passes``, ``refuses``, ``silent`` (a wrong network would have come out) or ``error``.
        reason: why it does not pass.
        params: parameters before the cut.
        groups: groups of coupled channels.
        prunable: share of the parameters that goes when every group shrinks as far as it can.
        removed: share of the parameters that goes at half the channels.
        macs: share of the MACs that is left at half the channels.
        proof_error: the largest relative error the proof accepted.
        in_double: whether some comparison had to be repeated in float64.
        caught: whether the proof refuses a plan with one wrong consumer column.
        seconds: of each stage: trace, plan, proof.
        boundaries: what keeps channels, by operator and reason, the most frequent first.
    """

    key: str
    suite: str
    family: str
    size: int
    outcome: str = ERROR
    reason: str = ""
    params: int = 0
    groups: int = 0
    prunable: float = 0.0
    removed: float = 0.0
    macs: float = 1.0
    proof_error: float | None = None
    in_double: bool = False
    caught: bool | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    boundaries: list[str] = field(default_factory=list)


def row_of(entry: Entry) -> Row:
    """Return the empty row of an architecture."""
    return Row(entry.key, entry.suite, entry.family, entry.size)


def measure(entry: Entry) -> Row:
    """Fill an architecture's row; whatever cutback refuses is part of the result."""
    row = row_of(entry)
    torch.manual_seed(0)
    model, pictures = entry.build(), torch.randn(1, 3, entry.size, entry.size)
    row.params = sum(parameter.numel() for parameter in model.parameters())
    try:
        _fill(row, model, pictures)
    except CutbackError as error:
        row.outcome, row.reason = REFUSES, f"{type(error).__name__}: {error}"
    return row


def _fill(row: Row, model: nn.Module, pictures: torch.Tensor) -> None:
    """Take every step in turn."""
    started = time.perf_counter()
    graph = cutback.trace(model, pictures)
    row.seconds["trace"] = time.perf_counter() - started
    row.groups = len(graph.groups)
    row.boundaries = summary([(b.operator, b.reason, b.path) for b in graph.boundaries])
    row.prunable = prunable(graph)
    started = time.perf_counter()
    plan = cutback.plan(graph, budget=BUDGET)
    row.seconds["plan"] = time.perf_counter() - started
    costs = plan.costs
    row.removed = 1 - costs["params"].after / costs["params"].before
    row.macs = costs["macs"].after / max(costs["macs"].before, 1)
    started = time.perf_counter()
    proof = prove(graph, plan)
    row.seconds["proof"] = time.perf_counter() - started
    row.proof_error, row.in_double = proof.error, proof.double
    wrong = wrong_plan(graph, plan)
    row.caught = caught(graph, wrong) if wrong is not None else None
    row.outcome, row.reason = verdict(row, kept_by(graph))
    surprise = after_cutting(graph, plan, pictures)
    if surprise:
        row.outcome, row.reason = SILENT, surprise


def verdict(row: Row, kept: Sequence[str]) -> tuple[str, str]:
    """Judge a row whose cut was proven: outcome and reason."""
    if row.caught is False:
        return SILENT, "the proof accepted a plan with a wrong consumer column"
    if row.removed >= LEAST_REMOVED and row.caught:
        return PASSES, ""
    why = "; ".join(kept[:3]) or "no reason was given"
    return (REFUSES if kept else ERROR), f"only {row.removed:.0%} of the parameters fall: {why}"


def prunable(graph: Graph) -> float:
    """Return the share of the parameters that goes when every group shrinks as far as it can."""
    dense = sum(parameter.numel() for parameter in graph.model.parameters())
    try:
        plan = cutback.plan(graph, budget="params=1")
    except BudgetUnreachable as unreachable:
        return 1 - unreachable.lowest["params"] / dense
    return 1 - plan.costs["params"].after / dense


def wrong_plan(graph: Graph, plan: Plan) -> Plan | None:
    """Return a plan with one consumer column replaced by a removed one; ``None`` if it cuts no column."""
    columns = [
        slot for slot in graph.slots if slot.role == "column" and slot.dimension in plan.slices.get(slot.state, {})
    ]
    if not columns:
        return None
    for slot in columns[len(columns) * 2 // 3 :] + columns[: len(columns) * 2 // 3]:
        kept = plan.slices[slot.state][slot.dimension]
        replacement = _replacement(kept, graph.slots[slot].group >= 0)
        if replacement is not None:
            slices = {name: dict(dimensions) for name, dimensions in plan.slices.items()}
            slices[slot.state][slot.dimension] = dataclasses.replace(kept, indices=replacement)
            return dataclasses.replace(plan, slices=slices)
    return None


def _replacement(kept: Kept, free: Sequence[bool]) -> tuple[int, ...] | None:
    """Return kept columns with the last that a unit owns replaced by a removed one of its block; ``None`` if none is.

    The column of a constant may be one of zeros, whose weights do not matter; so none of these is replaced.
    """
    size = kept.total // kept.blocks
    removed = [index for index in range(kept.total) if index not in set(kept.indices)]
    for gone in reversed(kept.indices):
        beside = next((index for index in removed if index // size == gone // size), None)
        if free[gone] and beside is not None:
            return tuple(beside if index == gone else index for index in kept.indices)
    return None


def caught(graph: Graph, wrong: Plan) -> bool:
    """Whether the proof refuses a wrong plan."""
    try:
        prove(graph, wrong)
    except NotEquivalent:
        return True
    return False


def after_cutting(graph: Graph, plan: Plan, pictures: torch.Tensor) -> str:
    """Carry a proven plan out and say what is wrong with the result, if anything."""
    model = graph.model.eval()
    before = _output_shapes(model, pictures)
    cutback.apply_(graph, plan, prove=False)
    try:
        after = _output_shapes(model, pictures)
    except Exception as error:  # noqa: BLE001 (whatever the cut model raises is the finding)
        return f"the cut model fails: {type(error).__name__}: {error}"
    if after != before:
        return f"the cut model returns shapes {after} instead of {before}"
    params = sum(parameter.numel() for parameter in model.parameters())
    expected = plan.costs["params"].after
    return "" if params == expected else f"the cut model has {params:,} parameters, the plan says {expected:,}"


def _output_shapes(model: nn.Module, pictures: torch.Tensor) -> list[tuple[int, ...]]:
    """Return the shapes of the tensors a model returns."""
    with torch.no_grad():
        leaves = torch.utils._pytree.tree_leaves(model(pictures))  # noqa: SLF001 (torch offers no public name)
    return [tuple(leaf.shape) for leaf in leaves if isinstance(leaf, torch.Tensor)]


def kept_by(graph: Graph) -> list[str]:
    """Return what keeps channels, by operator and reason, what keeps the most channels first."""
    weights: dict[tuple[str, str], int] = {}
    paths: dict[tuple[str, str], str] = {}
    for layer in graph.kept:
        for boundary in layer.reasons[:1]:
            if boundary.operator not in ("input", "output"):
                key = (boundary.operator, boundary.reason)
                weights[key] = weights.get(key, 0) + layer.channels
                paths.setdefault(key, boundary.path)
    heaviest = sorted(weights, key=lambda key: -weights[key])
    return [f"{key[0]} ({paths[key] or 'model'}): {key[1]} [{weights[key]} channels]" for key in heaviest]


def summary(found: Sequence[tuple[str, str, str]]) -> list[str]:
    """Count boundaries ``(operator, reason, path)`` that differ in their path only; the most frequent first."""
    places: dict[tuple[str, str], list[str]] = {}
    for operator, reason, path in found:
        places.setdefault((operator, reason), []).append(path)
    ordered = sorted(places.items(), key=lambda item: -len(item[1]))
    return [
        f"{operator}: {reason} ({paths[0] or 'model'}{f' and {len(paths) - 1} more' if len(paths) > 1 else ''})"
        for (operator, reason), paths in ordered
    ]
