"""Activation memory: the sum over all convolutions, and the most that is live at once; for a batch of one.

The sum is the quantity by which L. Liu et al., "Group Fisher Pruning for Practical Network Compression", ICML 2021,
normalise: elements of the outputs of convolutions, of nothing else. ResNet-50 at 224 has 11,113,984.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor, fx, nn
from torch.multiprocessing.reductions import StorageWeakRef

from cutback.graph.capture import Capture, capture, operator_of
from cutback.graph.inputs import Inputs, tensors_in
from cutback.graph.unwrap import unwrapped
from cutback.measure.batch import samples

ELEMENT_BYTES = 4
"""What the sum counts an element as, whatever its type: a quarter of the bytes is the published number of elements."""

_CONVOLUTIONS = {f"aten::conv{kind}{n}d" for kind in ("", "_transpose") for n in (1, 2, 3)}


@dataclass(frozen=True, eq=False)
class Buffer:
    """Memory that one call of a captured forward pass allocates for a result.

    Attributes:
        node: the call.
        number: which of the call's results it is.
        value: the result, for its shape and type.
    """

    node: fx.Node
    number: int
    value: Tensor


def convolution_outputs(recorded: Capture) -> list[Buffer]:
    """Return the outputs of all convolutions of a captured forward pass that a convolved input reaches."""
    inside = _computed(recorded)
    return [
        Buffer(node, 0, node.meta["val"])
        for node in recorded.nodes
        if node in inside and operator_of(node) in _CONVOLUTIONS
    ]


def live_buffers(recorded: Capture) -> list[list[Buffer]]:
    """Return what is live at each call of a captured forward pass, in execution order.

    A result lives from the call that computes it to the last one that uses it or a view of it; the network's outputs
    live to the end. What is written in place, and views, share the memory they were made of. Inputs, parameters and
    what is computed from parameters alone are no activations; nor is what an operator needs while it runs.
    """
    inside = _computed(recorded)
    last: dict[StorageWeakRef, int] = {}
    calls = [node for node in recorded.nodes if node.op == "call_function"]
    for number, node in enumerate(calls):
        for used in (node, *node.all_input_nodes):
            last.update((storage, number) for storage, _ in _storages(used))
    for result in recorded.results[: recorded.outputs]:
        last.update((storage, len(calls)) for storage, _ in _storages(result))
    given = {storage for node in recorded.nodes if node not in inside for storage, _ in _storages(node)}
    live: list[tuple[StorageWeakRef, Buffer]] = []
    steps: list[list[Buffer]] = []
    for step, node in enumerate(calls):
        known = given | {storage for storage, _ in live}
        for number, (storage, value) in enumerate(_storages(node)):
            if storage not in known:
                known.add(storage)
                live.append((storage, Buffer(node, number, value)))
        steps.append([buffer for _, buffer in live])
        live = [(storage, buffer) for storage, buffer in live if last[storage] > step]
    return steps


def memory(model: nn.Module, example_inputs: object) -> int:
    """Return the activation memory of a model in eval mode: the outputs of its convolutions, in bytes, batch 1.

    Args:
        model: any module; wrappers (DDP, ``torch.compile``) are looked through.
        example_inputs: a tensor, a tuple of positional or a dict of keyword arguments.

    Returns:
        Four bytes an element; a quarter of it is what Liu 2021 prints.

    Raises:
        CaptureError: the model could not be run on the inputs.

    Example:
        >>> from torch import nn, zeros
        >>> memory(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU()), zeros(2, 3, 10, 10)) // 4
        800
    """
    recorded = _recorded(model, example_inputs)
    elements = sum(Fraction(buffer.value.numel(), samples(recorded)) for buffer in convolution_outputs(recorded))
    return math.ceil(elements * ELEMENT_BYTES)


def peak_memory(model: nn.Module, example_inputs: object) -> int:
    """Return the most bytes of activations that are live at once in eval mode, batch 1; see ``live_buffers``.

    Args:
        model: any module; wrappers (DDP, ``torch.compile``) are looked through.
        example_inputs: a tensor, a tuple of positional or a dict of keyword arguments.

    Raises:
        CaptureError: the model could not be run on the inputs.

    Example:
        >>> from torch import nn, zeros
        >>> peak_memory(nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 2, 1)), zeros(1, 3, 10, 10))
        6400
    """
    recorded = _recorded(model, example_inputs)
    steps = [sum(b.value.numel() * b.value.element_size() for b in live) for live in live_buffers(recorded)]
    return math.ceil(Fraction(max(steps, default=0), samples(recorded)))


def _recorded(model: nn.Module, example_inputs: object) -> Capture:
    return capture(unwrapped(model), Inputs.of(example_inputs), training=False)


def _computed(recorded: Capture) -> set[fx.Node]:
    """Return the calls that an input reaches."""
    found: set[fx.Node] = set()
    inputs = {node for node in recorded.nodes if node.op == "placeholder"} - set(recorded.nodes[: len(recorded.states)])
    for node in recorded.nodes:
        if node.op == "call_function" and any(source in found or source in inputs for source in node.all_input_nodes):
            found.add(node)
    return found


def _storages(node: fx.Node) -> Iterator[tuple[StorageWeakRef, Tensor]]:
    """Yield the memory of each tensor among a node's values, and the tensor."""
    for value in tensors_in(node.meta.get("val")):
        if value.layout == torch.strided:
            yield StorageWeakRef(value.untyped_storage()), value
