"""Couplings through gates, statistics over channels, norms, and parameters used as they are."""

import torch
from torch import nn
from torch.nn import functional as F

from tests.graph.blocks.norms import ChannelsFirst
from tests.graph.blocks.sharing import FrozenBatchNorm
from tests.graph.couplings.base import planted

SIX = range(6)
HALVES = [{"a": {j, j + 3}, "head": {j}} for j in range(3)]


def halves(a):
    """Two halves of the channels, in a dimension of their own: ``(N, 2, C / 2, H, W)``."""
    return a.unflatten(1, (2, -1))


planted("glu", "gated units", lambda _, a, b: F.glu(a, 1), (6, 6, 3), units=HALVES)
planted(
    "softmax",
    "softmax over channels",
    lambda _, a, b: halves(a).softmax(1).flatten(1, 2),
    (6, 6, 6),
    units=[{"a": {j, j + 3}, "head": {j, j + 3}} for j in range(3)],
)
planted(
    "softmax over all",
    "softmax over channels",
    lambda _, a, b: a.softmax(1),
    (6, 6, 6),
    units=[{"a": {j}, "head": {j}} for j in SIX],
)
planted("mean", "mean over channels", lambda _, a, b: halves(a).mean(1), (6, 6, 3), units=HALVES)
planted(
    "mean over all",
    "mean over channels",
    lambda _, a, b: a - a.mean(1, keepdim=True),
    (6, 6, 6),
    units=[{"a": {j}, "head": {j}} for j in SIX],
)
planted("max", "max over channels", lambda _, a, b: halves(a).amax(1), (6, 6, 3), units=HALVES)
planted(
    "group norm",
    "group norm",
    lambda net, a, b: net.norm(a),
    (6, 6, 6),
    norm=lambda: nn.GroupNorm(2, 6),
    units=[{"a": {j}, "norm.weight:0": {j}, "norm.bias:0": {j}, "head": {j}} for j in SIX],
    exact=False,
    balanced=[("a", 2)],
)
planted(
    "layer norm",
    "layer norm channels-last",
    lambda net, a, b: net.norm(a.movedim(1, -1)),
    (6, 6, 6),
    tokens=True,
    norm=lambda: nn.LayerNorm(6),
    units=[{"a": {j}, "norm.weight:0": {j}, "norm.bias:0": {j}, "head": {j}} for j in SIX],
)
planted(
    "layer norm, channels first",
    "layer norm channels-first",
    lambda net, a, b: net.norm(a),
    (6, 6, 6),
    norm=lambda: ChannelsFirst(6),
    units=[{"a": {j}, "norm.weight:0": {j}, "norm.bias:0": {j}, "head": {j}} for j in SIX],
)
planted(
    "instance norm",
    "instance norm",
    lambda net, a, b: net.norm(a),
    (6, 6, 6),
    norm=lambda: nn.InstanceNorm2d(6, affine=True, track_running_stats=True),
    units=[{"a": {j}, "norm.weight:0": {j}, "norm.running_var:0": {j}, "head": {j}} for j in SIX],
)
planted(
    "rms norm",
    "rms norm",
    lambda net, a, b: net.norm(a.movedim(1, -1)),
    (6, 6, 6),
    tokens=True,
    norm=lambda: nn.RMSNorm(6),
    units=[{"a": {j}, "norm.weight:0": {j}, "head": {j}} for j in SIX],
)
planted(
    "prelu",
    "prelu",
    lambda net, a, b: net.act(a),
    (6, 6, 6),
    act=lambda: nn.PReLU(6),
    units=[{"a": {j}, "act.weight:0": {j}, "head": {j}} for j in SIX],
)
planted(
    "layer scale",
    "layer scale",
    lambda net, a, b: a * net.gamma,
    (6, 6, 6),
    gamma=lambda: nn.Parameter(torch.rand(6, 1, 1)),
    units=[{"a": {j}, "gamma:0": {j}, "head": {j}} for j in SIX],
)
planted(
    "position embedding",
    "position embedding",
    lambda net, a, b: a.flatten(2).transpose(1, 2) + net.positions,
    (6, 6, 6),
    tokens=True,
    positions=lambda: nn.Parameter(torch.randn(1, 16, 6)),
    units=[{"a": {j}, "positions:2": {j}, "head": {j}} for j in SIX],
)
planted(
    "class token",
    "class token",
    lambda net, a, b: torch.cat([net.token.expand(2, -1, -1), a.flatten(2).transpose(1, 2)], 1),
    (6, 6, 6),
    tokens=True,
    token=lambda: nn.Parameter(torch.randn(1, 1, 6)),
    units=[{"a": {j}, "token:2": {j}, "head": {j}} for j in SIX],
)
planted(
    "squeeze-excite",
    "squeeze-excite",
    lambda net, a, b: a * net.up(net.down(a.mean((2, 3), keepdim=True)).relu()).sigmoid(),
    (6, 6, 6),
    down=lambda: nn.Conv2d(6, 2, 1),
    up=lambda: nn.Conv2d(2, 6, 1),
    units=[{"a": {j}, "down.weight:1": {j}, "up.weight:0": {j}, "head": {j}} for j in SIX],
)
planted(
    "cbam",
    "cbam",
    lambda net, a, b: a * net.spatial(torch.cat([a.max(1, keepdim=True)[0], a.mean(1, keepdim=True)], 1)).sigmoid(),
    (6, 6, 6),
    spatial=lambda: nn.Conv2d(2, 1, 3, padding=1),
    units=[{"a": {j}, "head": {j}} for j in SIX],
    stays={"spatial.weight:1": {0, 1}, "spatial.weight:0": {0}},
)
planted(
    "split attention",
    "split attention",
    lambda net, a, b: (halves(a) * net.up(b.mean((2, 3))).view(2, 2, -1).softmax(1)[..., None, None]).sum(1),
    (6, 6, 3),
    up=lambda: nn.Linear(6, 6),
    units=[{"a": {j, j + 3}, "up.weight:0": {j, j + 3}, "head": {j}} for j in range(3)],
)
planted(
    "frozen batch norm",
    "frozen batch norm",
    lambda net, a, b: net.norm(a),
    (6, 6, 6),
    norm=lambda: FrozenBatchNorm(6),
    units=[{"a": {j}, "norm.weight:0": {j}, "norm.running_mean:0": {j}, "head": {j}} for j in SIX],
)
