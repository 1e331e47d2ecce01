"""Couplings through computed weights, in-place operators and parts that are run again."""

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize
from torch.utils.checkpoint import checkpoint

from tests.graph.blocks.sharing import Half, Summed
from tests.graph.couplings.base import planted

SIX = range(6)


def _half() -> nn.Module:
    return parametrize.register_parametrization(nn.Conv2d(6, 5, 1), "weight", Half())


def _inner(net, a, b):
    return net.inner(a)


planted(
    "parametrization",
    "parametrization",
    _inner,
    (6, 6, 5),
    inner=_half,
    units=[{"a": {j}, "inner.parametrizations.weight.original:1": {j}} for j in SIX]
    + [{"inner.parametrizations.weight.original:0": {j}, "head": {j}} for j in range(5)],
)
planted(
    "weight norm",
    "weight norm",
    _inner,
    (6, 6, 5),
    inner=lambda: parametrizations.weight_norm(nn.Conv2d(6, 5, 1)),
    units=[
        {
            "inner.parametrizations.weight.original0:0": {j},
            "inner.parametrizations.weight.original1:0": {j},
            "head": {j},
        }
        for j in range(5)
    ],
)
planted(
    "sum of kernels",
    "computed weight",
    _inner,
    (6, 6, 5),
    inner=lambda: Summed(6, 5),
    units=[{"a": {j}, "inner.weight:1": {j}, "inner.point:1": {j}} for j in SIX]
    + [{"inner.weight:0": {j}, "inner.point:0": {j}, "head": {j}} for j in range(5)],
)


def _half_rows(_, a, b):
    a = a.clone()
    a[:, :, ::2].add_(b[:, :, ::2])
    return a


planted(
    "in-place rows",
    "in-place nests",
    _half_rows,
    (6, 6, 6),
    units=[{"a": {j}, "b": {j}, "head": {j}} for j in SIX],
)
planted(
    "checkpoint",
    "checkpoint",
    lambda _, a, b: checkpoint(torch.mul, a, b, use_reentrant=False),
    (6, 6, 6),
    units=[{"a": {j}, "b": {j}, "head": {j}} for j in SIX],
)


def _weight(*shape: int):
    return lambda: nn.Parameter(torch.randn(shape))


CROSSED = [{"a": {j}, "w:1": {j}} for j in SIX] + [{"w:0": {j}, "head": {j}} for j in range(5)]

planted(
    "kernel standardised by a batch norm",
    "computed weight",
    lambda net, a, b: F.conv2d(
        a, F.batch_norm(net.w.flatten(1)[None], None, None, training=True).reshape_as(net.w), padding=1
    ),
    (6, 6, 5),
    w=_weight(5, 6, 3, 3),
    units=CROSSED,
)
planted(
    "kernel without its mean",
    "computed weight",
    lambda net, a, b: F.conv2d(a, net.w - net.w.mean((1, 2, 3), keepdim=True)),
    (6, 6, 5),
    w=_weight(5, 6, 1, 1),
    units=CROSSED,
)
planted(
    "kernel over its norm along two vectors",
    "computed weight",
    lambda net, a, b: F.conv2d(a, net.w / torch.dot(net.u, torch.mv(net.w.flatten(1), net.v))),
    (6, 6, 5),
    w=_weight(5, 6, 1, 1),
    u=_weight(5),
    v=_weight(6),
    units=[{"a": {j}, "w:1": {j}, "v:0": {j}} for j in SIX] + [{"w:0": {j}, "u:0": {j}, "head": {j}} for j in range(5)],
)
planted(
    "gain repeated for each input",
    "computed weight",
    lambda net, a, b: F.conv2d(a, net.w * net.g.expand_as(net.w)),
    (6, 6, 5),
    w=_weight(5, 6, 1, 1),
    g=_weight(5, 1, 1, 1),
    units=[*CROSSED, *({"w:0": {j}, "g:0": {j}} for j in range(5))],
)
planted(
    "transposed matrix",
    "computed weight",
    lambda net, a, b: F.linear(a.movedim(1, -1), net.w.H),
    (6, 6, 5),
    tokens=True,
    w=_weight(6, 5),
    units=[{"a": {j}, "w:0": {j}} for j in SIX] + [{"w:1": {j}, "head": {j}} for j in range(5)],
)
planted(
    "gain repeated to literal sizes",
    "computed weight",
    lambda net, a, b: F.conv2d(a, net.w * net.g.expand(5, 6, 1, 1)),
    (6, 6, 5),
    w=_weight(5, 6, 1, 1),
    g=_weight(5, 1, 1, 1),
    stays={"a": SIX, "head": range(5)},
)
planted(
    "weight norm of columns",
    "weight norm",
    _inner,
    (6, 6, 5),
    inner=lambda: parametrizations.weight_norm(nn.Conv2d(6, 5, 1), dim=1),
    units=[
        {
            "a": {j},
            "inner.parametrizations.weight.original0:1": {j},
            "inner.parametrizations.weight.original1:1": {j},
        }
        for j in SIX
    ],
)
