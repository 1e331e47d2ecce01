"""Couplings through windows, batched products and positions; operators that would move channels about keep them."""

import torch
from torch import nn
from torch.nn import functional as F

from tests.graph.couplings.base import planted

SIX = range(6)
SAME = [{"a": {j}, "head": {j}} for j in SIX]
PAIRED = [{"a": {j}, "b": {j}} for j in SIX]

planted("topk over channels", "", lambda _, a, b: a.topk(3, 1)[0], (6, 6, 3), stays={"a": SIX, "head": range(3)})
planted("rotated channels", "", lambda _, a, b: a.rot90(1, (1, 2)), (6, 6, 4), stays={"a": SIX})
planted("strided memory", "", lambda _, a, b: a.as_strided((2, 6, 4, 4), a.stride()), (6, 6, 6), stays={"a": SIX})
planted(
    "im2col",
    "",
    lambda _, a, b: F.unfold(a, 2).mT,
    (6, 6, 24),
    tokens=True,
    units=[{"a": {j}, "head": range(4 * j, 4 * j + 4)} for j in SIX],
)
planted(
    "col2im",
    "",
    lambda _, a, b: F.fold(a.flatten(2), 8, 2, stride=2),
    (8, 6, 2),
    units=[{"a": range(4 * j, 4 * j + 4), "head": {j}} for j in range(2)],
)
planted("windows of a dimension", "", lambda _, a, b: a.unfold(2, 2, 1).mean(-1), (6, 6, 6), units=SAME)
planted(
    "meshgrid",
    "",
    lambda _, a, b: torch.meshgrid(a.mean((0, 2, 3)), b.mean((0, 1, 2)), indexing="ij")[0].t(),
    (6, 6, 6),
    tokens=True,
    units=SAME,
)
planted(
    "batched product",
    "",
    lambda _, a, b: torch.bmm(a.flatten(2).mT, b.flatten(2)),
    (6, 6, 16),
    tokens=True,
    units=PAIRED,
)
planted(
    "batched product and shift",
    "",
    lambda net, a, b: torch.baddbmm(net.shift, a.flatten(2).mT, b.flatten(2)),
    (6, 6, 16),
    tokens=True,
    shift=lambda: nn.Parameter(torch.rand(1, 1, 1)),
    units=PAIRED,
)
planted(
    "literal slice",
    "",
    lambda _, a, b: a[:, 2:5],
    (8, 6, 3),
    units=[{"a": {j}} for j in range(5, 8)],
    stays={"a": range(5), "head": range(3)},
)
