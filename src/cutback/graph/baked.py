"""Sizes written into a model's code: those that follow a cut, and those found fixed by capturing the model narrower."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import fx

from cutback.errors import CaptureError
from cutback.graph.call import Assumption
from cutback.graph.capture import module_kind, module_path, operator_of
from cutback.graph.equal import EqualWidths
from cutback.graph.followed import Findings, follow, with_followed
from cutback.graph.graph import Graph
from cutback.graph.groups import couple
from cutback.graph.heads import of_fixed_width
from cutback.graph.labels import Boundary, core
from cutback.graph.matching import legal_cut
from cutback.graph.probes import probes
from cutback.graph.replay import Illegal
from cutback.graph.sources import source_line

_MOST_PAIRS = 2000
"""Of widths that must stay equal; far more than any network has calls of that kind."""


@dataclass
class _State:
    """A traced model and what is known so far of the sizes in its code.

    Attributes:
        graph: the model with what is known taken into account.
        assumptions: what was assumed while labelling it.
        findings: what its numbers ask of a cut.
        refused: calls made boundaries, with the reason.
        held: calls whose results stay, with what keeps them.
        equal: widths made to stay equal, with whether that is still wanted.
        doubted: whether a narrower capture ever failed, so that no plan goes without one.
    """

    graph: Graph
    assumptions: Sequence[Assumption]
    findings: Findings = field(default_factory=Findings)
    refused: dict[fx.Node, str] = field(default_factory=dict)
    held: dict[fx.Node, Boundary] = field(default_factory=dict)
    equal: dict[EqualWidths, bool] = field(default_factory=dict)
    doubted: bool = False

    def settle(self) -> None:
        """Let attributes follow, and keep what numbers stand in the way of; nothing is captured for that."""
        while True:
            self.findings = follow(self.graph)
            pairs = [pair for pair in self.findings.equal if pair not in self.equal]
            if pairs and len(self.equal) < _MOST_PAIRS:
                self.equal |= dict.fromkeys(pairs, True)
                self.keep({}, {})
                continue
            new = {node: why for node, why in self.findings.refused.items() if node not in self.refused}
            stays = {node: why for node, why in self.findings.held.items() if node not in self.held}
            if not new and not stays:
                break
            self.keep(new, stays)
        self.graph = with_followed(self.graph, self.findings, doubted=self.doubted)

    def keep(self, refused: Mapping[fx.Node, str], held: Mapping[fx.Node, Boundary]) -> None:
        """Make calls boundaries, and keep the results of others."""
        self.refused |= refused
        self.held |= held
        self.equal = {pair: wanted and pair.written.node not in self.refused for pair, wanted in self.equal.items()}
        graph = self.graph
        self.graph, self.assumptions = couple(
            graph.model,
            graph.inputs,
            graph.captures,
            self.refused,
            graph.coupling.whole,
            held=self.held,
            equal=[pair for pair, wanted in self.equal.items() if wanted],
            train_failure=graph.train_failure,
        )


def resolved(graph: Graph, assumptions: Sequence[Assumption]) -> Graph:
    """Check every size that is to follow a cut, one by one; where heads cannot become narrower, whole ones go.

    Args:
        graph: the traced model.
        assumptions: what was assumed while labelling it.

    Raises:
        CaptureError: the narrower model fails whatever stays.
    """
    found = _checked(graph, assumptions)
    fixed = of_fixed_width(found)
    if not fixed:
        return found
    whole = frozenset(graph.coupling.whole) | fixed
    again = couple(graph.model, graph.inputs, graph.captures, None, whole, train_failure=graph.train_failure)
    try:
        other = _checked(*again)
    except CaptureError:
        return found
    return min((found, other), key=lambda each: sum(layer.channels for layer in each.kept))


def _checked(graph: Graph, assumptions: Sequence[Assumption]) -> Graph:
    """Check every size that is to follow a cut, and return the graph with the fixed ones made boundaries.

    Numbers that come from attributes or from other sizes are settled by reasoning alone. Where any are left to be
    confirmed, the model is captured again with a part of every group gone, and its graph run on the labels that stay.
    Where that fails the sizes behind the failing call do not follow: their channels stay, with the reason, and the rest
    is tried again. What is found at one call holds for the same call of every module of the class.

    Args:
        graph: the traced model.
        assumptions: what was assumed while labelling it.

    Raises:
        CaptureError: the narrower model fails whatever stays.
    """
    state = _State(graph, assumptions)
    state.settle()
    while state.graph.groups and state.graph.coupling.assumes:
        try:
            for probe in probes(state.graph):
                legal_cut(state.graph, probe, [np.zeros(group.units) for group in state.graph.groups])
            break
        except Illegal as failure:
            state.doubted = True
            _blame(state, failure)
            state.settle()
    return state.graph


def _blame(state: _State, failure: Illegal) -> None:
    """Keep the channels behind whatever made a narrower capture fail."""
    open_questions = [a for a in state.assumptions if a.node not in state.refused]
    reasons = {assumption.node: assumption.boundary.reason for assumption in open_questions}
    literal = {node: why for node, why in state.findings.literal.items() if node not in state.refused}
    taken = [pair.written.node for pair, wanted in state.equal.items() if wanted]
    literal |= dict.fromkeys(taken, "has a size that is computed from another width")
    blamed = _nearest(failure.node, {**reasons, **literal})
    if blamed:
        state.keep(_generalised(state.graph, blamed, {**reasons, **literal}), {})
    elif failure.node not in state.refused:
        state.keep({failure.node: "the model's code fixes a size that meets these channels here"}, {})
    else:
        state.keep({}, _responsible(state.graph, failure))


def _nearest(failing: fx.Node, reasons: Mapping[fx.Node, str]) -> list[fx.Node]:
    """Return the calls with a questionable size at or before a failing call: its own, else its nearest ancestors'."""
    waiting, seen = [failing], {failing}
    found: list[fx.Node] = []
    while waiting and not found:
        found = [node for node in waiting if node in reasons]
        waiting = [source for node in waiting for source in node.all_input_nodes if source not in seen]
        seen.update(waiting)
    return found


def _generalised(graph: Graph, blamed: Sequence[fx.Node], reasons: Mapping[fx.Node, str]) -> dict[fx.Node, str]:
    """Return calls and reasons: those blamed, and the same questionable call in every module of the same class."""
    places: dict[fx.Node, object] = {}
    for capture in graph.captures:
        count: dict[object, int] = {}
        for node in capture.nodes:
            if node.op != "call_function":
                continue
            module = (module_path(node), operator_of(node))
            count[module] = count.get(module, 0) + 1
            places[node] = (module_kind(node), operator_of(node), count[module])
    wanted = {places[node] for node in blamed}
    return {node: why for node, why in reasons.items() if places.get(node) in wanted}


def _responsible(graph: Graph, failure: Illegal) -> dict[fx.Node, Boundary]:
    """Find by halving the groups whose cut makes a call fail to which none of their channels leads.

    Returns:
        The calls that make the channels of these groups, with the reason to keep them.

    Raises:
        CaptureError: the narrower model fails whichever group is cut.
    """
    suspects = list(range(len(graph.groups)))
    while len(suspects) > 1:
        half = len(suspects) // 2
        failing = next((part for part in (suspects[:half], suspects[half:]) if _fails(graph, part)), None)
        if failing is None:
            break
        suspects = failing
    where = module_path(failure.node) or "(model)"
    found: dict[fx.Node, Boundary] = {}
    reason = f"depends on this width: {failure}"
    boundary = Boundary(operator_of(failure.node), module_path(failure.node), reason, source_line(failure.node))
    for labelling, capture in zip(graph.coupling.labellings, graph.captures, strict=True):
        calls = [node for node in capture.nodes if node.op == "call_function" and operator_of(node) != "getitem"]
        for node, trail in zip(calls, labelling.trails, strict=True):
            for labels in trail.results:
                groups = graph.coupling.owners.group[graph.coupling.components[np.unique(core(labels).numpy())]]
                if np.isin(groups, suspects).any():
                    found[node] = boundary
    if not found:
        raise CaptureError(f"{where}: {failure}; no size explains it, so nothing may be cut") from failure
    return found


def _fails(graph: Graph, groups: Sequence[int]) -> bool:
    """Whether cutting only some groups fails."""
    for probe in probes(graph):
        chosen: list[NDArray[np.bool_]] = [
            mask if number in groups else np.ones_like(mask) for number, mask in enumerate(probe)
        ]
        try:
            legal_cut(graph, chosen, [np.zeros(group.units) for group in graph.groups])
        except Illegal:
            return True
    return False
