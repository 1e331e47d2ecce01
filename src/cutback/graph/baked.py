"""Sizes written into a model's code: found by capturing the model again with fewer channels."""

from collections.abc import Sequence

import numpy as np
from torch import fx

from cutback.errors import CaptureError
from cutback.graph.call import Assumption
from cutback.graph.capture import module_path
from cutback.graph.graph import Graph
from cutback.graph.groups import couple
from cutback.graph.matching import legal_cut
from cutback.graph.replay import Illegal


def resolved(graph: Graph, assumptions: Sequence[Assumption]) -> Graph:
    """Check every size that was taken to follow a cut, and return the graph with the fixed ones made boundaries.

    The model is captured again with a part of every group gone, and its graph run on the labels that stay. Where that
    fails the assumptions behind the failing call were wrong: their channels stay, with the reason, and the rest is
    tried again.

    Args:
        graph: the traced model.
        assumptions: what was assumed while labelling it.

    Raises:
        CaptureError: the narrower model fails whatever stays.
    """
    refused: dict[fx.Node, str] = {}
    while graph.coupling.assumes and graph.groups:
        try:
            for probe in _probes(graph):
                legal_cut(graph, probe, [np.zeros(group.units) for group in graph.groups])
        except Illegal as failure:
            open_questions = [a for a in assumptions if a.node not in refused]
            blamed = _blamed(failure.node, open_questions)
            if not blamed and failure.node in refused:  # what fails depends on more than its inputs: fail closed
                blamed = open_questions
                if not blamed:
                    where = module_path(failure.node) or "(model)"
                    raise CaptureError(f"{where}: {failure}; no size explains it, so nothing may be cut") from failure
            blamed += _twins(blamed, open_questions)
            refused |= {assumption.node: assumption.boundary.reason for assumption in blamed}
            if not blamed:
                refused[failure.node] = "the model's code fixes a size that meets these channels here"
            graph, assumptions = couple(
                graph.model, graph.inputs, graph.captures, refused, train_failure=graph.train_failure
            )
        else:
            break
    return graph


def _probes(graph: Graph) -> list[list[np.ndarray]]:
    """Return two cuts: the last unit of every group gone, and every other one; balanced where they must be."""
    last = [np.arange(group.units) < group.units - 1 for group in graph.groups]
    other = [np.arange(group.units) % 2 == 1 for group in graph.groups]
    for system in graph.systems:
        for probe, share in ((last, 0.9), (other, 0.5)):
            counts = system.nearest(system.sizes * share)
            for cell, count in zip(system.cells, system.sizes if counts is None else counts, strict=True):
                probe[cell.group][list(cell.units)] = np.arange(len(cell.units)) < count
    return [last, other]


def _blamed(failing: fx.Node, assumptions: Sequence[Assumption]) -> list[Assumption]:
    """Return the assumptions made at or before a failing call, nearest first: its own, else those of its ancestors."""
    by_node = {assumption.node: assumption for assumption in assumptions}
    waiting, seen = [failing], {failing}
    found: list[Assumption] = []
    while waiting and not found:
        found = [by_node[node] for node in waiting if node in by_node]
        waiting = [source for node in waiting for source in node.all_input_nodes if source not in seen]
        seen.update(waiting)
    return found


def _twins(blamed: Sequence[Assumption], others: Sequence[Assumption]) -> list[Assumption]:
    """Return the same assumptions made in captures of other modes."""
    made = [(assumption.boundary, assumption.node.graph) for assumption in blamed]
    return [a for a in others if any(a.boundary == boundary and a.node.graph is not graph for boundary, graph in made)]
