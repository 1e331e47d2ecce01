"""Putting channel selections into a network that was written without them."""

from collections import OrderedDict
from typing import TypeVar

from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from cutback.errors import UserMistake
from cutback.graph.capture import Capture, capture, module_kind, module_path, operator_of
from cutback.graph.clone import independent_copy
from cutback.graph.inputs import Inputs
from cutback.graph.unwrap import unwrapped
from cutback.methods.slimming.channel_selection import ChannelSelection

Model = TypeVar("Model", bound=nn.Module)

_CONTRACTIONS = {"aten::linear", *(f"aten::conv{kind}{n}d" for kind in ("", "_transpose") for n in (1, 2, 3))}


def with_channel_selection(model: Model, example_inputs: object) -> Model:
    """Return a copy of a network in which a channel selection follows each batch norm that reads a shared stream.

    That is each batch norm whose input is not made for it alone by one convolution or linear layer: in pre-activation
    residual networks and DenseNets those in front of the layers that read the stream. The copy computes the same. A
    norm at ``path`` becomes ``path.norm``, and the selection is ``path.select``; to load a cut network later, build it
    with this function again.

    Args:
        model: the network.
        example_inputs: as for ``cutback.trace``.

    Raises:
        UserMistake: no batch norm reads a shared stream.
        CaptureError: the model fails on the inputs.

    Example:
        >>> import torch
        >>> class Block(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.stem, self.bn, self.conv = nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 1)
        ...
        ...     def forward(self, images):
        ...         stream = self.stem(images)
        ...         return stream + self.conv(self.bn(stream).relu())
        >>> block = with_channel_selection(Block(), torch.zeros(2, 3, 4, 4))
        >>> [name for name, _ in block.bn.named_children()]
        ['norm', 'select']
    """
    model = unwrapped(model)
    recorded = capture(model, Inputs.of(example_inputs), training=False)
    found = [module_path(node) for node in recorded.nodes if _reads_a_stream(node, recorded)]
    paths = [path for path in dict.fromkeys(found) if path and model.get_submodule(path).weight is not None]
    if not paths:
        raise UserMistake(
            f"no batch norm of {type(model).__name__} reads a shared stream: each has its own layer before it, so that "
            "slimming can cut the network as it is"
        )
    copied = independent_copy(model)
    for path in paths:
        holder, _, name = path.rpartition(".")
        norm = copied.get_submodule(path)
        parts = OrderedDict(norm=norm, select=ChannelSelection(norm.num_features).to(norm.weight.device))
        setattr(copied.get_submodule(holder), name, nn.Sequential(parts).train(norm.training))
    return copied


def _reads_a_stream(node: fx.Node, recorded: Capture) -> bool:
    """Say whether a node is the call of a batch norm's module whose input is not made for it alone."""
    if operator_of(node) != "aten::batch_norm" or not issubclass(module_kind(node), _BatchNorm):
        return False
    states = set(recorded.nodes[: len(recorded.states)])
    while True:
        sources = [source for source in node.all_input_nodes if source not in states]
        node = sources[0]
        if len(sources) > 1 or len([user for user in node.users if user.op != "output"]) > 1:
            return node.op == "call_function"
        if node.op != "call_function" or operator_of(node) in _CONTRACTIONS:
            return False
