"""Couplings through convolutions, linear layers and products with parameters."""

import torch
from torch import nn

from tests.graph.couplings.base import planted, register

SIX = range(6)

planted(
    "convolution",
    "convolution",
    lambda net, a, b: net.inner(a),
    (6, 6, 5),
    inner=lambda: nn.Conv2d(6, 5, 3, padding=1),
    units=[{"a": {j}, "a.bias:0": {j}, "inner.weight:1": {j}} for j in SIX]
    + [{"inner.weight:0": {j}, "inner.bias:0": {j}, "head": {j}} for j in range(5)],
)
planted(
    "transposed convolution",
    "convolution",
    lambda net, a, b: net.inner(a),
    (6, 6, 5),
    inner=lambda: nn.ConvTranspose2d(6, 5, 2, stride=2),
    units=[{"a": {j}, "inner.weight:0": {j}} for j in SIX] + [{"inner.weight:1": {j}, "head": {j}} for j in range(5)],
)
planted(
    "depthwise",
    "convolution",
    lambda net, a, b: net.inner(a),
    (6, 6, 6),
    inner=lambda: nn.Conv2d(6, 6, 3, padding=1, groups=6),
    units=[{"a": {j}, "inner.weight:0": {j}, "inner.bias:0": {j}, "head": {j}} for j in SIX],
)
planted(
    "depthwise, multiplied",
    "grouped convolution",
    lambda net, a, b: net.inner(a),
    (6, 6, 12),
    inner=lambda: nn.Conv2d(6, 12, 3, padding=1, groups=6),
    units=[{"a": {j}, "inner.weight:0": {2 * j, 2 * j + 1}, "head": {2 * j, 2 * j + 1}} for j in SIX],
)
planted(
    "grouped",
    "grouped convolution",
    lambda net, a, b: net.inner(a),
    (12, 6, 8),
    inner=lambda: nn.Conv2d(12, 8, 3, padding=1, groups=2),
    units=[{"inner.weight:0": {j}, "inner.bias:0": {j}, "head": {j}} for j in range(8)],
    exact=False,
    balanced=[("a", 2), ("inner.weight:0", 2)],
)
planted(
    "batch norm",
    "convolution",
    lambda net, a, b: net.norm(a),
    (6, 6, 6),
    norm=lambda: nn.BatchNorm2d(6),
    units=[
        {"a": {j}, "norm.weight:0": {j}, "norm.bias:0": {j}, "norm.running_mean:0": {j}, "norm.running_var:0": {j}}
        for j in SIX
    ],
)
planted(
    "linear after flatten",
    "convolution",
    lambda net, a, b: net.inner(a.flatten(1)),
    (6, 6, 5),
    tokens=True,
    inner=lambda: nn.Linear(96, 5),
    units=[{"a": {j}, "inner.weight:1": range(16 * j, 16 * j + 16)} for j in SIX],
)
planted(
    "matmul with a parameter",
    "",
    lambda net, a, b: a.movedim(1, -1) @ net.matrix,
    (6, 6, 5),
    tokens=True,
    matrix=lambda: nn.Parameter(torch.randn(6, 5)),
    units=[{"a": {j}, "matrix:0": {j}} for j in SIX] + [{"matrix:1": {j}, "head": {j}} for j in range(5)],
)
planted(
    "addmm with parameters",
    "",
    lambda net, a, b: torch.addmm(net.shift, a.mean((2, 3)), net.matrix),
    (6, 6, 5),
    tokens=True,
    matrix=lambda: nn.Parameter(torch.randn(6, 5)),
    shift=lambda: nn.Parameter(torch.randn(5)),
    units=[{"a": {j}, "matrix:0": {j}} for j in SIX]
    + [{"matrix:1": {j}, "shift:0": {j}, "head": {j}} for j in range(5)],
)
planted(
    "einsum",
    "einsum",
    lambda net, a, b: torch.einsum("nchw,oc->nohw", a, net.matrix),
    (6, 6, 5),
    matrix=lambda: nn.Parameter(torch.randn(5, 6)),
    units=[{"a": {j}, "matrix:1": {j}} for j in SIX] + [{"matrix:0": {j}, "head": {j}} for j in range(5)],
)
planted(
    "weighted sum",
    "einsum",
    lambda net, a, b: a * torch.einsum("nchw,c->nhw", a, net.vector)[:, None].tanh(),
    (6, 6, 6),
    vector=lambda: nn.Parameter(torch.randn(6)),
    units=[{"a": {j}, "vector:0": {j}, "head": {j}} for j in SIX],
)
planted(
    "table",
    "embedding table",
    lambda net, a, b, places: a + net.table(places)[:, :, None, None],
    (6, 6, 6),
    table=lambda: nn.Embedding(9, 6),
    others=(torch.tensor([3, 8]),),
    units=[{"a": {j}, "table.weight:1": {j}, "head": {j}} for j in SIX],
)
planted(
    "repeated module",
    "repeated modules",
    lambda net, a, b: net.inner(a) - net.inner(b),
    (6, 6, 5),
    inner=lambda: nn.Conv2d(6, 5, 1),
    units=[{"a": {j}, "b": {j}, "inner.weight:1": {j}} for j in SIX],
)


class Tied(nn.Module):
    """Two layers with one weight, one behind the other."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.first, self.second = (nn.Conv2d(n, 6, 1, bias=False) for n in (3, 6, 6))
        self.second.weight = self.first.weight
        self.head = nn.Conv2d(6, 4, 1)

    def forward(self, x):
        return self.head(self.second(self.first(self.a(x)).relu()).relu())


register(
    "tied weights",
    "tied weights",
    Tied,
    units=[{"a": {j}, "first.weight:0": {j}, "first.weight:1": {j}, "head": {j}} for j in SIX],
)
