"""The table of blocks and the operator families they must cover."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

FAMILIES = (
    *("convolution", "branches", "grouped convolution", "channel shuffle", "pixel shuffle", "slices"),
    *("constant indices", "chunk and cat", "cat with constants", "padding", "repeat", "repeat_interleave"),
    *("unflatten", "stack", "unbind", "einsum", "gated units", "softmax over channels", "mean over channels"),
    *("max over channels", "group norm", "layer norm channels-last", "layer norm channels-first", "instance norm"),
    *("rms norm", "prelu", "layer scale", "position embedding", "class token", "squeeze-excite", "cbam"),
    *("split attention", "window partitioning", "attention, fused", "attention, module", "attention, functional"),
    *("rnn", "lstm", "gru", "embedding table", "tied weights", "repeated modules", "parametrization", "weight norm"),
    *("frozen batch norm", "in-place nests", "checkpoint", "computed weight", "channel selection"),
)
"""What cutback promises to follow. A family without a block or a planted coupling fails a test."""


class Block(nn.Module):
    """A block that turns ``channels`` into ``out`` channels.

    Attributes:
        out: how many channels leave.
        shrinks: layers of its own whose output channels must fall with every cut, wherever the block stands.
        leaves: layers of its own whose outputs leave the block: they must fall too, unless a later block keeps them.
        keeps: whether its code fixes the number of channels that enter, by a literal or an outer shape.
    """

    shrinks: tuple[str, ...] = ()
    leaves: tuple[str, ...] = ()
    keeps = False

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.out = channels


@dataclass(frozen=True)
class Entry:
    """A block and the operator family it stands for."""

    family: str
    build: Callable[[int], Block]


BLOCKS: dict[str, Entry] = {}


def block(name: str, family: str, **options) -> Callable[[type[Block]], type[Block]]:
    """Register a class of blocks; several names give several variants."""
    if family not in FAMILIES:
        raise ValueError(f"{family!r} is no family")

    def file(kind: type[Block]) -> type[Block]:
        if name in BLOCKS:
            raise ValueError(f"the block {name!r} is registered twice")
        BLOCKS[name] = Entry(family, lambda channels: kind(channels, **options))
        return kind

    return file


def conv_norm(channels: int, out: int, kernel: int = 3, **options) -> nn.Sequential:
    """A convolution and a batch norm that keep height and width."""
    padding = options.pop("padding", kernel // 2)
    convolution = nn.Conv2d(channels, out, kernel, padding=padding, bias=options.pop("bias", False), **options)
    return nn.Sequential(convolution, nn.BatchNorm2d(out))
