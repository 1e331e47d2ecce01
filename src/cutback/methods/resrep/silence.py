"""Whether channels say anything that depends on the input once their rows of the compactor are zero.

A zero row makes an output of zero. A depthwise layer, an activation or a gate behind it makes a constant of that, which
the layers that read it can absorb; another layer that makes the same channels would go on speaking through them.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, fx

from cutback.graph.capture import operator_of
from cutback.graph.clone import state_tensors
from cutback.graph.graph import Graph, layer_of
from cutback.graph.inputs import Inputs
from cutback.graph.numbers import arguments_of
from cutback.methods.resrep.folding import Pair
from cutback.surgery.running import redrawn

_CONTRACTIONS = {"aten::linear", *(f"aten::conv{n}d" for n in (1, 2, 3))}
_TOLERANCE = 1e-5
"""How far a constant may vary by rounding, as a share of its size or of one."""


def speaks(graph: Graph, number: int, pairs: Sequence[Pair]) -> str:
    """Return what would still come through channels of a group whose rows are zero; empty where they are constant.

    The network is run, in eval mode, on the example inputs and on others, with every other output of the pairs' norms
    zero: were all of them, what the layers behind add would depend on nothing either.

    Args:
        graph: the traced model.
        number: the group's.
        pairs: what makes its channels.
    """
    states = {name: tensor.detach().clone() for name, tensor in state_tensors(graph.model).items()}
    for pair in pairs:
        for name in (f"{pair.norm}.weight", f"{pair.norm}.bias"):
            states[name][::2] = 0
    reading = {
        slot.state: torch.from_numpy((owners.group == number) & (owners.unit % 2 == 0))
        for slot, owners in graph.slots.items()
        if (slot.consumes or slot.role == "column") and number in owners.sizes
    }
    seen: dict[str, list[Tensor]] = {name: [] for name in reading}
    generator = torch.Generator().manual_seed(0)
    for inputs in (graph.inputs, graph.inputs.map(lambda tensor: redrawn(tensor, generator))):
        _note(graph, states, inputs, reading, seen)
    for name, found in seen.items():
        if not found:
            return f"{layer_of(name)} reads them by an operator that cannot absorb a constant"
        constants = torch.cat(found, 1)
        spread = constants.amax(1) - constants.amin(1)
        if bool((spread > _TOLERANCE * constants.abs().amax(1).clamp_min(1)).any()):
            return f"what {layer_of(name)} reads of them depends on layers that no compactor stands behind"
    return ""


def _note(
    graph: Graph,
    states: Mapping[str, Tensor],
    inputs: Inputs,
    reading: Mapping[str, Tensor],
    seen: Mapping[str, list[Tensor]],
) -> None:
    """Run the network, and note what arrives at the columns of the layers that read the group."""
    recorded = graph.captures[0]
    names = dict(zip(recorded.nodes, recorded.states, strict=False))

    def call(node: fx.Node, args: Sequence[object], kwargs: Mapping[str, object]) -> object:
        weight = arguments_of(node).get("weight") if operator_of(node) in _CONTRACTIONS else None
        name = names.get(weight) if isinstance(weight, fx.Node) else None
        features = args[0] if args else None
        if name in reading and isinstance(features, Tensor):
            channel = features.dim() - 1 - (states[name].dim() - 2)
            columns = reading[name].to(features.device)
            if features.shape[channel] == len(columns):
                seen[name].append(features.movedim(channel, 0).flatten(1)[columns])
        return node.target(*args, **kwargs)  # type: ignore[operator]

    with torch.no_grad():
        recorded.execute(states, inputs, call)
