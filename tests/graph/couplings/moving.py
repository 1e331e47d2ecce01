"""Couplings through operators that move channels."""

import torch
from torch import nn
from torch.nn import functional as F

from cutback.methods.slimming import ChannelSelection
from tests.graph.couplings.base import planted

SIX = range(6)
HALF = range(3)

planted("sum", "branches", lambda _, a, b: a + b, (6, 6, 6), units=[{"a": {j}, "b": {j}, "head": {j}} for j in SIX])
planted(
    "cat",
    "branches",
    lambda _, a, b: torch.cat([a, b], 1),
    (6, 4, 10),
    units=[{"a": {j}, "head": {j}} for j in SIX] + [{"b": {j}, "head": {6 + j}} for j in range(4)],
)
planted(
    "shuffle",
    "channel shuffle",
    lambda _, a, b: F.channel_shuffle(a, 2) + b,
    (6, 6, 6),
    units=[{"a": {i}, "b": {j}, "head": {j}} for j, i in enumerate((0, 3, 1, 4, 2, 5))],
    exact=False,
    balanced=[("a", 2)],
)
planted(
    "shuffle by view",
    "channel shuffle",
    lambda _, a, b: a.view(a.shape[0], 3, -1, 4, 4).transpose(1, 2).reshape(b.shape) * b,
    (6, 6, 6),
    units=[{"a": {i}, "b": {j}, "head": {j}} for j, i in enumerate((0, 2, 4, 1, 3, 5))],
    exact=False,
)
planted(
    "pixel shuffle",
    "pixel shuffle",
    lambda _, a, b: F.pixel_shuffle(a, 2),
    (12, 3, 3),
    units=[{"a": range(4 * j, 4 * j + 4), "head": {j}} for j in HALF],
)
planted(
    "pixel unshuffle",
    "pixel shuffle",
    lambda _, a, b: F.pixel_unshuffle(a, 2),
    (3, 3, 12),
    units=[{"a": {j}, "head": range(4 * j, 4 * j + 4)} for j in HALF],
)
planted(
    "space to depth",
    "pixel shuffle",
    lambda _, a, b: torch.cat([a[..., ::2, ::2], a[..., 1::2, ::2]], 1),
    (3, 3, 6),
    units=[{"a": {j}, "head": {j, 3 + j}} for j in HALF],
)
planted(
    "flip",
    "slices",
    lambda _, a, b: a.flip(1) + b,
    (6, 6, 6),
    units=[{"a": {5 - j}, "b": {j}, "head": {j}} for j in SIX],
)
planted(
    "roll by half",
    "slices",
    lambda _, a, b: a.roll(a.shape[1] // 2, 1) + b,
    (6, 6, 6),
    units=[{"a": {(j + 3) % 6}, "b": {j}, "head": {j}} for j in SIX],
    exact=False,
)
planted(
    "strided slices",
    "slices",
    lambda _, a, b: a[:, ::2] * a[:, 1::2],
    (6, 3, 3),
    units=[{"a": {2 * j, 2 * j + 1}, "head": {j}} for j in HALF],
)
planted(
    "negative slices",
    "slices",
    lambda _, a, b: a[:, -(a.shape[1] // 2) :] * a[:, : -(a.shape[1] // 2)],
    (6, 3, 3),
    units=[{"a": {j, j + 3}, "head": {j}} for j in HALF],
)
planted(
    "a list of indices",
    "constant indices",
    lambda _, a, b: torch.cat([a[:, [3, 1, 2, 0]], b], 1),
    (6, 6, 10),
    units=[{"b": {j}, "head": {4 + j}} for j in SIX],
    stays={"a": {3, 1, 2, 0}, "head": range(4)},
)
planted(
    "index_select",
    "constant indices",
    lambda _, a, b: torch.index_select(a, 1, torch.tensor([1, 4])) * b.mean(1, keepdim=True),
    (6, 6, 2),
    stays={"a": {1, 4}, "head": range(2)},
)
planted(
    "positions that a buffer holds",
    "channel selection",
    lambda net, a, b: torch.cat([net.select(a).relu(), net.select(a), b], 1),
    (6, 6, 18),
    select=lambda: ChannelSelection(6),
    units=[{"select.positions:0": {j}, "head": {j, 6 + j}} for j in SIX] + [{"b": {j}, "head": {12 + j}} for j in SIX],
    stays={"a": SIX},
)
planted(
    "reordered chunks",
    "chunk and cat",
    lambda _, a, b: torch.cat(a.chunk(2, 1)[::-1], 1) + b,
    (6, 6, 6),
    units=[{"a": {(j + 3) % 6}, "b": {j}, "head": {j}} for j in SIX],
    exact=False,
)
planted(
    "product of chunks",
    "chunk and cat",
    lambda _, a, b: a.chunk(3, 1)[0] * a.chunk(3, 1)[2],
    (6, 3, 2),
    units=[{"a": {j, j + 4}, "head": {j}} for j in range(2)],
    exact=False,
    balanced=[("a", 3)],
)
planted(
    "cat of a constant",
    "cat with constants",
    lambda net, a, b: torch.cat([net.constant.expand(2, -1, 4, 4), a], 1),
    (6, 6, 8),
    constant=torch.ones(1, 2, 1, 1),
    units=[{"a": {j}, "head": {2 + j}} for j in SIX],
    stays={"head": {0, 1}},
)
planted(
    "padding",
    "padding",
    lambda _, a, b: F.pad(a, (0, 0, 0, 0, 1, 3)) + b,
    (6, 10, 10),
    units=[{"a": {j}, "b": {j + 1}, "head": {j + 1}} for j in SIX],
    stays={"b": {0, 7, 8, 9}},
)
planted(
    "repeat",
    "repeat",
    lambda _, a, b: a.repeat(1, 2, 1, 1) + b,
    (6, 12, 12),
    units=[{"a": {j}, "b": {j, j + 6}, "head": {j, j + 6}} for j in SIX],
)
planted(
    "repeat_interleave",
    "repeat_interleave",
    lambda _, a, b: a.repeat_interleave(2, 1) + b,
    (6, 12, 12),
    units=[{"a": {j}, "b": {2 * j, 2 * j + 1}, "head": {2 * j, 2 * j + 1}} for j in SIX],
)
planted(
    "expand",
    "repeat",
    lambda _, a, b: a[:, :, None].expand(-1, -1, 2, -1, -1).flatten(1, 2),
    (6, 12, 12),
    units=[{"a": {j}, "head": {2 * j, 2 * j + 1}} for j in SIX],
)
planted(
    "expand to a literal",
    "repeat",
    lambda _, a, b: a.mean(1, keepdim=True).expand(-1, 6, -1, -1) + b,
    (6, 6, 6),
    stays={"b": SIX, "head": SIX},
)
planted(
    "unflatten",
    "unflatten",
    lambda _, a, b: a.unflatten(1, (-1, 2)).transpose(1, 2).flatten(1, 2) + b,
    (6, 6, 6),
    units=[{"a": {i}, "b": {j}, "head": {j}} for j, i in enumerate((0, 2, 4, 1, 3, 5))],
    exact=False,
)
planted(
    "stack",
    "stack",
    lambda _, a, b: torch.stack([a, b]).flatten(0, 1),
    (6, 6, 6),
    units=[{"a": {j}, "b": {j}, "head": {j}} for j in SIX],
)
planted(
    "stack, interleaved",
    "stack",
    lambda _, a, b: torch.stack([a, b], 2).flatten(1, 2),
    (6, 6, 12),
    units=[{"a": {j}, "head": {2 * j}} for j in SIX],
    exact=False,
)
planted(
    "rows unbound",
    "unbind",
    lambda _, a, b: torch.stack(a.unbind(2)[::-1], 2) + b,
    (6, 6, 6),
    units=[{"a": {j}, "b": {j}, "head": {j}} for j in SIX],
)
planted(
    "unbind",
    "unbind",
    lambda _, a, b: torch.mul(*a.unflatten(1, (2, -1)).unbind(1)),
    (6, 6, 3),
    units=[{"a": {j, j + 3}, "head": {j}} for j in HALF],
)
planted(
    "select",
    "unbind",
    lambda _, a, b: a.unflatten(1, (2, -1))[:, 0] - a.unflatten(1, (2, -1))[:, 1],
    (6, 6, 3),
    units=[{"a": {j, j + 3}, "head": {j}} for j in HALF],
)
planted(
    "max pooling",
    "",
    lambda _, a, b: F.interpolate(F.max_pool2d(a, 2), scale_factor=2.0) + b,
    (6, 6, 6),
    units=[{"a": {j}, "b": {j}, "head": {j}} for j in SIX],
)
planted(
    "pooling of pairs of channels",
    "",
    lambda _, a, b: F.avg_pool2d(a.unflatten(1, (-1, 2)).flatten(3), (2, 1)).reshape(2, -1, 4, 4),
    (6, 6, 3),
    units=[{"a": {2 * j, 2 * j + 1}, "head": {j}} for j in HALF],
)
planted(
    "pooling along channels",
    "",
    lambda _, a, b: torch.cat([F.max_pool1d(a.flatten(2).mT, 2), b.flatten(2).mT], 2),
    (6, 6, 9),
    tokens=True,
    units=[{"b": {j}, "head": {3 + j}} for j in SIX],
    stays={"a": SIX, "head": HALF},
)
planted("cumsum", "", lambda _, a, b: torch.cat([a.cumsum(1), b], 1), (6, 6, 12), stays={"a": SIX, "head": SIX})
planted("noise", "", lambda _, a, b: a + torch.rand_like(a), (6, 6, 6), stays={"a": SIX, "head": SIX})
planted(
    "windows",
    "window partitioning",
    lambda net, a, b: net.mix(
        a.view(2, -1, 2, 2, 2, 2).permute(0, 2, 4, 3, 5, 1).reshape(-1, 4, a.shape[1]).flatten(0, 1)
    ),
    (6, 6, 5),
    tokens=True,
    mix=lambda: nn.Linear(6, 5),
    units=[{"a": {j}, "mix.weight:1": {j}} for j in SIX] + [{"mix.weight:0": {j}, "head": {j}} for j in range(5)],
)
