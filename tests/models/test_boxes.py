"""Boxes against plain loops."""

import math

import torch

from cutback.models.boxes import decoded, encoded, grid_anchors, overlaps, suppressed


def some(count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner, size = torch.rand(count, 2, generator=generator) * 40, 4 + torch.rand(count, 2, generator=generator) * 20
    return torch.cat([corner, corner + size], 1)


def overlap(one: list[float], other: list[float]) -> float:
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    inside = max(wide, 0) * max(high, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return inside / (sum(areas) - inside)


def test_overlaps_are_those_of_each_pair() -> None:
    first, second = some(7, 0), some(9, 1)
    expected = torch.tensor([[overlap(one, other) for other in second.tolist()] for one in first.tolist()])
    assert torch.allclose(overlaps(first, second), expected, atol=1e-6)
    assert (expected > 0).any()
    assert torch.allclose(overlaps(first, first).diag(), torch.ones(7))
    assert overlaps(first, second[:0]).shape == (7, 0)


def test_anchors_lie_around_the_middle_of_each_position() -> None:
    found = grid_anchors(10, 16, (4, 8), (2.0, 3.0), (1.0, 4.0))
    expected = []
    for stride, rows, columns in ((4, 3, 4), (8, 2, 2)):
        for row in range(rows):
            for column in range(columns):
                for scale in (2.0, 3.0):
                    for ratio in (1.0, 4.0):
                        x, y = (column + 0.5) * stride, (row + 0.5) * stride
                        width, height = stride * scale / math.sqrt(ratio), stride * scale * math.sqrt(ratio)
                        expected.append([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
    assert torch.allclose(found, torch.tensor(expected), atol=1e-5)


def test_boxes_come_back_from_what_they_were_told_relative_to() -> None:
    boxes, anchors = some(20, 2), some(20, 3)
    assert torch.allclose(decoded(encoded(boxes, anchors), anchors), boxes, atol=1e-4)
    assert torch.equal(encoded(anchors, anchors), torch.zeros(20, 4))
    shifted = encoded(anchors + torch.tensor([1.0, 2.0, 1.0, 2.0]), anchors)
    sizes = anchors[:, 2:] - anchors[:, :2]
    assert torch.allclose(shifted[:, :2], torch.tensor([1.0, 2.0]) / sizes, atol=1e-5)


def test_the_best_box_of_a_class_takes_away_those_that_overlap_it() -> None:
    boxes, generator = some(40, 4), torch.Generator().manual_seed(5)
    scores, classes = torch.rand(40, generator=generator), torch.randint(2, (40,), generator=generator)
    left, expected = sorted(range(40), key=lambda n: -float(scores[n])), []
    while left:
        best = left.pop(0)
        expected.append(best)
        left = [n for n in left if classes[n] != classes[best] or overlap(*boxes[[n, best]].tolist()) <= 0.3]
    assert suppressed(boxes, scores, classes, 0.3).tolist() == expected
    assert 5 < len(expected) < 40
    assert suppressed(boxes[:0], scores[:0], classes[:0], 0.5).tolist() == []
