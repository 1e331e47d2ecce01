"""Couplings through computed weights, in-place operators and parts that are run again."""

import torch
from torch import nn
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
