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


def _about_centres(net, a, b):
    """Differences to centres, weighted by soft assignment and normalised, as NetVLAD's."""
    far = a.flatten(2)[:, None] - net.centres[None, :, :, None]
    return F.normalize((far * b.flatten(2).softmax(1)[:, :, None]).sum(-1), dim=2).flatten(1)


planted(
    "weighted differences to centres",
    "",
    _about_centres,
    (6, 4, 24),
    tokens=True,
    centres=lambda: nn.Parameter(torch.rand(4, 6)),
    stays={"a": SIX, "b": range(4), "centres:0": range(4), "head": range(24)},
)
planted(
    "a weight for each block",
    "",
    lambda _, a, b: (a.unflatten(1, (4, -1)) * b[:, :, None]).flatten(1, 2),
    (8, 4, 8),
    units=[{"a": {j}, "head": {j}} for j in range(8)],
    exact=False,
    balanced=[("a", 4)],
    stays={"b": range(4)},
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


def _warped(_, a, b):
    """What lies where the first two channels of the other point to, besides a turn by a transformation."""
    turned = F.affine_grid(b.flatten(1)[:, :6].reshape(-1, 2, 3), a.shape, align_corners=False)
    return F.grid_sample(a, turned + b[:, 6:8].movedim(1, 3), align_corners=False)


planted("warped", "", _warped, (6, 9, 6), units=SAME, stays={"b": [0, 6, 7]})
planted(
    "warped along",
    "",
    lambda _, a, b: F.grid_sample(a, b.movedim(1, 3), align_corners=False),
    (6, 2, 6),
    units=SAME,
    stays={"b": [0, 1]},
)


def _unpooled(_, a, b):
    values, places = F.max_pool2d(a, 2, return_indices=True)
    return F.max_unpool2d(values * F.max_pool2d(b, 2), places, 2)


def _unpooled_in_time(_, a, b):
    _values, places = F.max_pool3d(a[:, :, None], (1, 2, 2), return_indices=True)
    return F.max_unpool3d(F.max_pool3d(b[:, :, None], (1, 2, 2)), places, (1, 2, 2)).squeeze(2)


planted("unpooled", "", _unpooled, (6, 6, 6), units=[{"a": {j}, "b": {j}, "head": {j}} for j in SIX])
planted("unpooled in time", "", _unpooled_in_time, (6, 6, 6), units=[{"a": {j}, "b": {j}, "head": {j}} for j in SIX])
planted(
    "fake quantisation",
    "",
    lambda _, a, b: torch.fake_quantize_per_tensor_affine(a, 0.05, 0, 0, 255),
    (6, 6, 6),
    units=SAME,
)
