"""Random networks for property tests: a list of drawn blocks, each keeping or changing the number of channels."""

from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from tests.graph.blocks import BLOCKS, Block
from tests.graph.blocks.base import conv_norm

HEADS = ("flatten", "view", "mean")
SHARES = (30, 50, 70)
WIDTH = 8


class RandomNetwork(nn.Module):
    """A stem, the named blocks and a head."""

    def __init__(self, names: tuple[str, ...], head: str) -> None:
        super().__init__()
        self.stem = conv_norm(3, WIDTH)
        blocks: list[Block] = []
        channels = WIDTH
        for name in names:
            blocks.append(BLOCKS[name].build(channels))
            channels = blocks[-1].out
        self.blocks, self.head = nn.ModuleList(blocks), head
        self.classifier = nn.Linear(channels * (16 if head == "flatten" else 1), 4)

    def forward(self, x):
        x = self.stem(x).relu()
        for block in self.blocks:
            x = block(x)
        if self.head == "flatten":
            x = F.adaptive_max_pool2d(x, 4).flatten(1)
        elif self.head == "view":
            x = F.adaptive_avg_pool2d(x, 1).view(x.size(0), -1)
        else:
            x = x.mean([2, 3])
        return self.classifier(F.dropout(x, 0.3, self.training))


@dataclass(frozen=True)
class Spec:
    """All there is to know for building a network and its cut again.

    Attributes:
        names: its blocks.
        head: its head.
        share: percent of the channels that stay.
        seed: of its values, of its input and of the scores.
    """

    names: tuple[str, ...]
    head: str = "mean"
    share: int = 50
    seed: int = 0

    def build(self) -> RandomNetwork:
        """Return the network, the same for the same spec."""
        torch.manual_seed(self.seed)
        return RandomNetwork(self.names, self.head)

    def images(self) -> torch.Tensor:
        """Return the example input, ``(2, 3, 8, 8)``."""
        return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(self.seed))


specs = st.builds(
    Spec,
    st.lists(st.sampled_from(sorted(BLOCKS)), min_size=1, max_size=4).map(tuple),
    st.sampled_from(HEADS),
    st.sampled_from(SHARES),
    st.integers(0, 2**16),
)
