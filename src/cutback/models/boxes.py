"""Boxes for dense detectors: anchors, how boxes are told relative to them, overlap, and non-maximum suppression.

Boxes are ``(..., 4)``: left, top, right and bottom edge in pixels.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_LARGEST = math.log(1000 / 16)
"""A box is at most so many times (as a logarithm) as large as its anchor."""


def grid_anchors(
    height: int, width: int, strides: Sequence[int], scales: Sequence[float], ratios: Sequence[float]
) -> Tensor:
    """Return the anchors of all levels of a feature pyramid, level by level, row by row, ``(anchors, 4)``.

    Args:
        height: of the image in pixels.
        width: of the image in pixels.
        strides: pixels from one position of a level to the next, for each level; a level has
            ``ceil(height / stride)`` rows.
        scales: sides of a square anchor, in strides.
        ratios: height over width; the area stays.
    """
    shapes = torch.tensor([(s / math.sqrt(r), s * math.sqrt(r)) for s in scales for r in ratios])
    levels: list[Tensor] = []
    for stride in strides:
        half = stride * torch.cat([-shapes, shapes], 1) / 2
        y, x = (stride * (torch.arange(math.ceil(size / stride)) + 0.5) for size in (height, width))
        centre = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1).repeat(1, 1, 2)
        levels.append((centre[:, :, None] + half).reshape(-1, 4))
    return torch.cat(levels)


def encoded(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Return boxes relative to anchors (Girshick 2014): shifts of the centre in sizes, and logarithms of sizes."""
    centre, size = _centre_and_size(boxes)
    from_centre, from_size = _centre_and_size(anchors)
    return torch.cat([(centre - from_centre) / from_size, (size / from_size).log()], -1)


def decoded(deltas: Tensor, anchors: Tensor) -> Tensor:
    """Return the boxes that ``encoded`` made ``deltas`` of."""
    from_centre, from_size = _centre_and_size(anchors)
    centre = from_centre + deltas[..., :2] * from_size
    half = deltas[..., 2:].clamp(max=_LARGEST).exp() * from_size / 2
    return torch.cat([centre - half, centre + half], -1)


def overlaps(first: Tensor, second: Tensor) -> Tensor:
    """Return the intersection over union of each pair of boxes, ``(first, second)``."""
    low = torch.maximum(first[:, None, :2], second[None, :, :2])
    high = torch.minimum(first[:, None, 2:], second[None, :, 2:])
    inside = (high - low).clamp(min=0).prod(-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(-1) for boxes in (first, second)]
    return inside / (areas[0][:, None] + areas[1][None, :] - inside).clamp(min=1e-9)


def suppressed(boxes: Tensor, scores: Tensor, classes: Tensor, threshold: float) -> Tensor:
    """Return which boxes stay when each takes away those of its class and lower score that overlap it by more.

    Args:
        boxes: ``(boxes, 4)``.
        scores: ``(boxes,)``.
        classes: ``(boxes,)``.
        threshold: intersection over union.

    Returns:
        Their numbers, highest score first.
    """
    order = scores.argsort(descending=True, stable=True)
    own = overlaps(boxes[order], boxes[order])
    covers = (own > threshold) & (classes[order][:, None] == classes[order][None, :])
    alive = torch.ones(len(order), dtype=torch.bool, device=boxes.device)
    for number in range(len(order)):
        if alive[number]:
            alive[number + 1 :] &= ~covers[number, number + 1 :]
    return order[alive]


def _centre_and_size(boxes: Tensor) -> tuple[Tensor, Tensor]:
    return (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]
