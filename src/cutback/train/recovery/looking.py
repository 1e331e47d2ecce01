"""Looking at single layers of a network while it runs: in which order they run, and what goes in and comes out."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from cutback.graph.clone import modules_by_path


@dataclass(frozen=True)
class Called:
    """How a layer is called in one forward pass.

    Attributes:
        path: its path.
        times: how often.
        norm: path of the batch norm that takes its output as it is, where both are called once; else empty.
    """

    path: str
    times: int
    norm: str = ""


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a layer: its input and its output."""

    inputs: Tensor
    outputs: Tensor


class _Enough(BaseException):
    """Ends a forward pass; no ``Exception``, so that the model's own code does not catch it."""


def called_layers(model: nn.Module, inputs: Any, layers: Mapping[str, nn.Module]) -> list[Called]:  # noqa: ANN401
    """Run a network once and return which of the layers it calls, in the order of their last calls.

    Args:
        model: the network, in the mode it is to be looked at.
        inputs: what it is called with.
        layers: the layers, by path.
    """
    outputs: dict[str, list[Tensor]] = {}
    normed: dict[str, list[Tensor]] = {}

    def note_output(path: str, output: Any) -> None:  # noqa: ANN401
        if isinstance(output, Tensor):
            outputs[path] = [*outputs.pop(path, []), output]

    def note_normed(path: str, arguments: tuple[Any, ...]) -> None:
        normed[path] = [*normed.get(path, []), *arguments[:1]]

    handles = [
        layer.register_forward_hook(lambda _module, _arguments, output, path=path: note_output(path, output))
        for path, layer in layers.items()
    ]
    handles += [
        module.register_forward_pre_hook(lambda _module, arguments, path=path: note_normed(path, arguments))
        for path, module in modules_by_path(model).items()
        if isinstance(module, BatchNorm)
    ]
    try:
        model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    found = []
    for path, made in outputs.items():
        norms = [norm for norm, taken in normed.items() if len(made) == len(taken) == 1 and taken[0] is made[0]]
        found.append(Called(path, len(made), norms[0] if len(norms) == 1 else ""))
    return found


def calls_of(model: nn.Module, layer: nn.Module, inputs: Any, times: int) -> list[Call]:  # noqa: ANN401
    """Run a network as far as the last call of a layer, and return what the layer took and gave.

    Args:
        model: the network.
        layer: the layer.
        inputs: what the network is called with.
        times: how often it calls the layer.
    """
    found: list[Call] = []

    def note(_module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any], output: Tensor) -> None:
        taken = (arguments or tuple(named.values()))[0]
        if len(found) + 1 == times:
            found.append(Call(taken, output))
            raise _Enough
        found.append(Call(taken.clone(), output.clone()))  # what follows may work in place on either

    handle = layer.register_forward_hook(note, with_kwargs=True)
    try:
        with suppress(_Enough):
            model(inputs)
    finally:
        handle.remove()
    return found
