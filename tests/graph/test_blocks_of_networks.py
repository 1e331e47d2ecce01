"""Blocks that public networks are built of: their channels shrink, and what meets only inside them is one unit."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import cutback
from cutback.surgery.verify import prove

IMAGES = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """conv a (8) -> block -> conv b (4) -> conv c."""

    def __init__(self, block: nn.Module, width: int = 8) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 1), nn.Conv2d(width, 4, 1), nn.Conv2d(4, 4, 1)
        self.block = block

    def forward(self, x):
        return self.c(self.b(self.block(self.a(x))))


class Function(nn.Module):
    def __init__(self, function, layer: nn.Module | None = None) -> None:
        super().__init__()
        self.function, self.layer = function, layer

    def forward(self, x):
        return self.function(self, x)


class ChannelAndSpatialGates(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Sequential(nn.Conv2d(8, 3, 1), nn.ReLU(), nn.Conv2d(3, 8, 1))
        self.place = nn.Conv2d(2, 1, 3, padding=1)

    def forward(self, x):
        both = self.gate(x.mean((2, 3), keepdim=True)) + self.gate(x.amax((2, 3), keepdim=True))
        x = x * both.sigmoid()
        seen = torch.cat([x.max(1)[0].unsqueeze(1), x.mean(1, keepdim=True)], 1)
        return x * self.place(seen).sigmoid()


class SplitAttention(nn.Module):
    """Two branches of a grouped convolution, weighed by a softmax over the branches."""

    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.Conv2d(8, 16, 3, padding=1, groups=2)
        self.down, self.up = nn.Conv2d(8, 6, 1), nn.Conv2d(6, 16, 1)

    def forward(self, x):
        x = self.branches(x)
        batch, channels, height, width = x.shape
        x = x.reshape(batch, 2, channels // 2, height, width)
        scores = self.up(self.down(x.sum(1).mean((2, 3), keepdim=True)).relu())
        scores = scores.view(batch, 1, 2, -1).transpose(1, 2).softmax(1).reshape(batch, 2, channels // 2, 1, 1)
        return (x * scores).sum(1)


class Frozen(nn.Module):
    """A batch norm whose scale, shift and statistics are buffers."""

    def __init__(self) -> None:
        super().__init__()
        for name in ("weight", "bias", "mean", "variance"):
            self.register_buffer(name, torch.rand(8) + 0.5)

    def forward(self, x):
        scale = (self.weight * (self.variance + 1e-5).rsqrt()).view(1, -1, 1, 1)
        return x * scale + (self.bias.view(1, -1, 1, 1) - self.mean.view(1, -1, 1, 1) * scale)


def dropped_path(block, x):
    if not block.training:
        return x
    return x * x.new_empty((x.shape[0], 1, 1, 1)).bernoulli_(0.8).div_(0.8)


def gated(block, x):
    value, gate = block.layer(x).chunk(2, 1)
    return value * F.gelu(gate)


def precise(block, x):
    with torch.autocast("cpu", enabled=False):
        return block.layer(x.float())


def windows(_block, x):
    batch, channels = x.shape[:2]
    parts = x.view(batch, channels, 2, 3, 2, 3).permute(0, 2, 4, 3, 5, 1).reshape(-1, 9, channels)
    parts = (parts - parts.mean(1, keepdim=True)).view(batch, 2, 2, 3, 3, -1)
    return parts.permute(0, 5, 1, 3, 2, 4).reshape(batch, -1, 6, 6)


def space_to_depth(block, x):
    return block.layer(torch.cat([x[..., row::2, column::2] for column in (0, 1) for row in (0, 1)], 1))


def constants(_block, x):
    return torch.where(x > 0, x, torch.zeros((), dtype=x.dtype)) + torch.where(x > 0, torch.ones_like(x), 0.5)


def response_normalised(_block, x):
    strength = x.norm(p=2, dim=(2, 3), keepdim=True)
    return x * (strength / (strength.mean(1, keepdim=True) + 1e-6))


BLOCKS = {
    "channel and spatial gates": (ChannelAndSpatialGates, 8),
    "split attention": (SplitAttention, 8),
    "frozen batch norm": (Frozen, 8),
    "dropped path": (lambda: Function(dropped_path), 8),
    "glu": (lambda: Function(lambda block, x: F.glu(block.layer(x), 1), nn.Conv2d(8, 16, 1)), 8),
    "geglu": (lambda: Function(gated, nn.Conv2d(8, 16, 1)), 8),
    "autocast": (lambda: Function(precise, nn.Conv2d(8, 8, 1)), 8),
    "windows": (lambda: Function(windows), 8),
    "space to depth": (lambda: Function(space_to_depth, nn.ConvTranspose2d(32, 8, 2, 2)), 8),
    "constants": (lambda: Function(constants), 8),
    "normalised to length one": (lambda: Function(lambda _, x: F.normalize(x, dim=1)), 8),
    "response normalisation": (lambda: Function(response_normalised), 8),
    "maxout": (lambda: Function(lambda _, x: x.view(x.shape[0], -1, 2, 6, 6).max(2)[0]), 4),
}


@pytest.mark.parametrize("name", sorted(BLOCKS))
def test_a_block_shrinks_and_the_cut_is_proven(name: str) -> None:
    torch.manual_seed(0)
    build, width = BLOCKS[name]
    for share in (70, 50, 30):
        graph = cutback.trace(Net(build(), width), IMAGES)
        assert not graph.train_failure
        plan = cutback.plan(graph, budget=f"channels={share}%", score=cutback.scores.Random(share))
        assert prove(graph, plan).modes == ("eval", "train")
        assert len(plan.slices["a.weight"][0].indices) <= 8 * share // 100 + 1
        assert len(plan.slices["b.weight"][1].indices) < width


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("channel and spatial gates", "a", "block.gate.2"),
        ("split attention", "block.branches", "block.up"),
    ],
)
def test_layers_that_meet_only_in_a_gate_are_one_group(name: str, first: str, second: str) -> None:
    graph = cutback.trace(Net(BLOCKS[name][0]()), IMAGES)
    assert second in next(group for group in graph.groups if first in group.layers).layers


def test_the_pieces_of_a_maxout_are_one_unit() -> None:
    graph = cutback.trace(Net(BLOCKS["maxout"][0](), 4), IMAGES)
    group = next(group for group in graph.groups if "a" in group.layers)
    slot = next(slot for slot in group.slices if slot.state == "a.weight")
    assert group.slices[slot].tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
