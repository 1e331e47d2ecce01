"""Where the scales of norms lie: which parameters they are, and which slices of them belong to each unit."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import fx

from cutback.graph.call import rules
from cutback.graph.capture import Capture, operator_of
from cutback.graph.clone import state_tensors
from cutback.graph.graph import Graph
from cutback.graph.rules.pointwise import pointwise, same

BATCH_NORM = ("aten::batch_norm",)

_SCALE_AT = {  # the place of the scale among the arguments; the shift stands behind it
    "aten::batch_norm": 1,
    "aten::instance_norm": 1,
    "aten::group_norm": 2,
    "aten::layer_norm": 2,
    "aten::rms_norm": 2,
}
_SELECTIONS = ("aten::index_select", "aten::index")


@dataclass(frozen=True, eq=False)
class ScaleSlices:
    """Where the scales of a group's units lie in one norm.

    Attributes:
        scale: name of the parameter.
        shift: name of what is added after scaling; ``None`` where nothing is.
        indices: those of each unit, ``(units, indices a unit)``.
    """

    scale: str
    shift: str | None
    indices: NDArray[np.int64]


def norm_scales(graph: Graph, norms: Collection[str] = tuple(_SCALE_AT)) -> dict[str, str | None]:
    """Return the parameters that scale what a norm has normalised, each with what is added after it.

    Args:
        graph: the traced model.
        norms: the operators that count.
    """
    found: dict[str, str | None] = {}
    for capture in graph.captures:
        names = _names(capture)
        for node in capture.nodes:
            scale, shift = _affine(node, names, norms)
            if scale is not None:
                found.setdefault(scale, shift)
    return found


def scale_slices(graph: Graph, norms: Collection[str] = tuple(_SCALE_AT)) -> dict[str, list[ScaleSlices]]:
    """Return for each group where the scales of its units lie; an empty list where no norm scales it.

    Channels that are selected by position are scaled by the norm that they are taken from.

    Args:
        graph: the traced model.
        norms: the operators that count.
    """
    states, shifts = state_tensors(graph.model), norm_scales(graph, norms)
    taken = {held: scale for capture in graph.captures for held, scale in _selected(capture, norms)}
    found: dict[str, list[ScaleSlices]] = {}
    for group in graph.groups:
        own = found[group.name] = []
        for slot, indices in group.slices.items():
            if slot.state in shifts:
                own.append(ScaleSlices(slot.state, shifts[slot.state], indices))
            elif slot.role == "selection" and slot.state in taken:
                scale, positions = taken[slot.state], states[slot.state].detach().cpu().long().numpy()
                own.append(ScaleSlices(scale, shifts[scale], positions[indices]))
    return found


def _selected(capture: Capture, norms: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yield the states that hold positions, each with the scale of the norm whose channels stand there."""
    names = _names(capture)
    for node in capture.nodes:
        if operator_of(node) not in _SELECTIONS:
            continue
        held = [names[source] for source in node.all_input_nodes if source in names]
        source = next((source for source in node.all_input_nodes if source not in names), None)
        while source is not None and operator_of(source) not in norms:
            source = _pointwise_source(source)
        scale, _ = (None, None) if source is None else _affine(source, names, norms)
        if scale is not None and len(held) == 1:
            yield held[0], scale


def _pointwise_source(node: fx.Node) -> fx.Node | None:
    """Return the only tensor that a call computes element by element, ``None`` where it does something else."""
    inputs = node.all_input_nodes
    alone = node.op == "call_function" and len(inputs) == 1
    return inputs[0] if alone and rules.find(operator_of(node)) in (pointwise, same) else None


def _affine(node: fx.Node, names: Mapping[fx.Node, str], norms: Collection[str]) -> tuple[str | None, str | None]:
    """Return the states by which a norm scales and shifts; ``None`` for what it has not, or for another call."""
    operator = operator_of(node)
    if node.op != "call_function" or operator not in norms:
        return None, None
    place = _SCALE_AT[operator]
    given = [*node.args, None, None]
    scale = given[place] if len(node.args) > place else node.kwargs.get("weight")
    shift = given[place + 1] if len(node.args) > place + 1 else node.kwargs.get("bias")
    return tuple(names.get(state) if isinstance(state, fx.Node) else None for state in (scale, shift))  # type: ignore[return-value]


def _names(capture: Capture) -> dict[fx.Node, str]:
    """Return the names of a capture's states: the first placeholders, in order."""
    return dict(zip(capture.nodes, capture.states, strict=False))
