"""What becomes of one random network: proven, kept, refused, or silently wrong."""

import re
from dataclasses import dataclass

import torch
from torch import nn

import cutback
from benchmarks.zoo.measure import caught, wrong_plan
from cutback.errors import CutbackError
from cutback.graph.graph import Graph
from cutback.planning.plan import Plan
from cutback.surgery.verify import prove
from tests.graph.random_networks import RandomNetwork, Spec

PROVEN, KEPT, REFUSED, SILENT = "proven", "kept", "refused", "silent"
WIDTHS = ("out_channels", "out_features", "embedding_dim", "hidden_size", "embed_dim")


@dataclass(frozen=True)
class Verdict:
    """What became of a network.

    Attributes:
        outcome: ``proven``; ``kept``, where a block's own layer did not shrink; ``refused``, where nothing was cut; or
            ``silent``, where a wrong network would have come out.
        reason: why it is not ``proven``.
        operators: the operators behind it, where known.
    """

    outcome: str
    reason: str = ""
    operators: tuple[str, ...] = ()


def judge(spec: Spec, *, plant: bool = False) -> Verdict:
    """Trace, plan, prove and cut a network.

    Args:
        spec: which network and which cut.
        plant: whether a wrong cut is planted too, which the proof must catch.
    """
    network, images = spec.build(), spec.images()
    try:
        graph = cutback.trace(network, images)
    except CutbackError as error:
        return Verdict(REFUSED, f"trace: {type(error).__name__}: {error}", operators_in(str(error)))
    try:
        plan = cutback.plan(graph, budget=f"channels={spec.share}%", score=cutback.scores.Random(seed=spec.seed))
        prove(graph, plan)
    except CutbackError as error:
        found = operators_in(str(error)) or _operators(graph)
        return Verdict(REFUSED, f"{type(error).__name__}: {error}", found)
    if plant:
        wrong = wrong_plan(graph, plan)
        if wrong is not None and not caught(graph, wrong):
            return Verdict(SILENT, "the proof accepted a plan with a wrong consumer column")
    widths = own_widths(network)
    surprise = after_cutting(graph, plan, images)
    if surprise:
        return Verdict(SILENT, surprise)
    stayed = sorted(path for path, width in own_widths(network).items() if width >= widths[path])
    if stayed:
        reasons = [reason for layer in graph.kept if layer.layer in stayed for reason in layer.reasons]
        found = tuple(dict.fromkeys(reason.operator for reason in reasons))
        return Verdict(KEPT, f"{', '.join(stayed)} stayed: {'; '.join(map(str, reasons)) or 'no reason'}", found)
    return Verdict(PROVEN)


def own_widths(network: RandomNetwork) -> dict[str, int]:
    """Return the widths of the layers that must shrink: the blocks' own, and those that nothing behind them keeps."""
    names: list[str] = []
    free = True
    for number, block in reversed(list(enumerate(network.blocks))):
        names += [f"blocks.{number}.{path}" for path in (*block.shrinks, *(block.leaves if free else ()))]
        free = free and not block.keeps
    if free:
        names.append("stem.0")
    return {name: width_of(network.get_submodule(name)) for name in names}


def width_of(layer: nn.Module) -> int:
    """Return the number of a layer's output channels, as its attribute says."""
    return next(getattr(layer, name) for name in WIDTHS if hasattr(layer, name))


def after_cutting(graph: Graph, plan: Plan, images: torch.Tensor) -> str:
    """Carry a proven plan out; say what is wrong with the result, if anything."""
    network = graph.model
    cutback.apply_(graph, plan, prove=False)
    for training in (False, True):
        try:
            shape = tuple(network.train(training)(images).shape)
        except Exception as error:  # noqa: BLE001 (whatever the cut model raises is the finding)
            return f"the cut network fails: {type(error).__name__}: {error}"
        if shape != (2, 4):
            return f"the cut network returns the shape {shape}"
    params, planned = cutback.measure.params(network), plan.costs["params"].after
    return "" if params == planned else f"the cut network has {params} parameters, the plan says {planned}"


def operators_in(message: str) -> tuple[str, ...]:
    """Return the operators a message names."""
    return tuple(dict.fromkeys(re.findall(r"aten::\w+(?:\.\w+)?", message)))


def _operators(graph: Graph) -> tuple[str, ...]:
    return tuple(dict.fromkeys(boundary.operator for boundary in graph.boundaries))
