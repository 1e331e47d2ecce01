"""Mean average precision as COCO defines it, in plain torch: for classes, over ten thresholds of overlap.

It equals ``torchmetrics.detection.MeanAveragePrecision``, which needs pycocotools.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from cutback.models.boxes import overlaps

THRESHOLDS = tuple(0.5 + 0.05 * step for step in range(10))
RECALLS = torch.linspace(0, 1, 101, dtype=torch.float64)
Found = Sequence[tuple[Tensor, Tensor, Tensor]]
"""For each image boxes (found, 4), scores (found,) and classes (found,)."""
True_ = Sequence[tuple[Tensor, Tensor]]
"""For each image boxes (things, 4) and classes (things,)."""


def mean_average_precision(found: Found, true: True_, thresholds: Sequence[float] = THRESHOLDS) -> float:
    """Return the mean over classes that are there, and over thresholds, of average precision.

    Args:
        found: what a detector has found, for each image.
        true: what there is.
        thresholds: from which intersection over union on a box is found.
    """
    classes = torch.cat([labels for _, labels in true]).unique().tolist()
    values = [_average_precision(*_of_class(found, true, label), each) for label in classes for each in thresholds]
    return sum(values) / max(len(values), 1)


def _of_class(found: Found, true: True_, label: int) -> tuple[list[Tensor], list[Tensor], int]:
    """Return for each image scores and overlaps (found, things) of one class, best first; and how many things."""
    scores, shared, things = [], [], 0
    for (boxes, rated, classes), (own, labels) in zip(found, true, strict=True):
        order = rated[classes == label].argsort(descending=True, stable=True)
        scores.append(rated[classes == label][order])
        shared.append(overlaps(boxes[classes == label][order], own[labels == label]))
        things += shared[-1].shape[1]
    return scores, shared, things


def _average_precision(scores: list[Tensor], shared: list[Tensor], things: int, threshold: float) -> float:
    """Return the area below precision over recall, from 101 points."""
    hits = torch.cat([_hits(each, threshold) for each in shared])
    order = torch.cat(scores).argsort(descending=True, stable=True)
    right = hits[order].double().cumsum(0)
    precision = right / torch.arange(1, len(right) + 1)
    precision = precision.flip(0).cummax(0).values.flip(0) if len(right) else precision
    place = torch.searchsorted(right / things, RECALLS)
    return float(torch.cat([precision, precision.new_zeros(1)])[place].mean())


def _hits(shared: Tensor, threshold: float) -> Tensor:
    """Return which boxes of an image find a thing that no better box has found, (found,)."""
    free = torch.ones(shared.shape[1], dtype=torch.bool)
    hits = torch.zeros(shared.shape[0], dtype=torch.bool)
    for number, row in enumerate(shared.cpu()):
        best, thing = row.masked_fill(~free, -1).max(0) if len(row) else (torch.tensor(-1.0), torch.tensor(0))
        if best >= threshold:
            hits[number], free[thing] = True, False
    return hits
