r"""A task that is no classification: a small RetinaNet finds handwritten digits on canvases.

    cutback prune cutback:retinanet --data examples/detection.py:data --task examples/detection.py --train 8 \
        --method group-fisher --set interval=10 --set removed=3 --budget macs=50% --method-epochs 8 --finetune 4 \
        --optimizer adamw --lr 0.003 --method-lr 0.0003 --finetune-lr 0.0015 --clip 10 --out runs/detector

``loss``, ``metric`` and ``higher_is_better`` make up the task, ``data`` the data.
"""

from collections.abc import Iterable

import torch
from average_precision import mean_average_precision
from digit_canvases import SIZE, canvases, digits
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from cutback.models.boxes import encoded, overlaps
from cutback.models.retinanet import anchors, detections

FOUND, MISSED = 0.5, 0.4
"""An anchor that overlaps a digit by so much is to find it; one that overlaps none by so much is background."""
ALPHA, GAMMA, BETA = 0.25, 2.0, 0.11
COUNTS = {"train": 1600, "validation": 100, "test": 300}

higher_is_better = True


def loss(outputs: tuple[Tensor, Tensor], targets: Tensor) -> Tensor:
    """Return focal loss and smooth L1 loss over the number of anchors that are to find something (Lin 2017).

    Args:
        outputs: logits (N, anchors, classes) and deltas (N, anchors, 4).
        targets: (N, digits, 5), rows of -1 at the end, see ``digit_canvases.canvases``.
    """
    logits, deltas = outputs
    boxes = anchors(SIZE, SIZE).to(logits.device)
    things = [target[target[:, 4] >= 0] for target in targets]
    thing = torch.stack([assigned(boxes, own) for own in things])
    image, anchor = (thing >= 0).nonzero(as_tuple=True)
    aim = targets[image, thing[image, anchor]]
    wanted = torch.zeros_like(logits)
    wanted[image, anchor, aim[:, 4].long()] = 1
    located = functional.smooth_l1_loss(
        deltas[image, anchor], encoded(aim[:, :4], boxes[anchor]), beta=BETA, reduction="sum"
    )
    return (focal(logits[thing > -2], wanted[thing > -2]) + located) / max(len(image), 1)


def assigned(boxes: Tensor, things: Tensor) -> Tensor:
    """Return for each anchor the number of the thing it is to find; -1 for background, -2 where neither is asked.

    Each thing's best anchor is to find it, however little they overlap.
    """
    if not len(things):
        return boxes.new_full((len(boxes),), -1, dtype=torch.long)
    shared = overlaps(boxes, things[:, :4])
    best, thing = shared.max(1)
    thing = thing.masked_fill(best < FOUND, -2).masked_fill(best < MISSED, -1)
    thing[shared.argmax(0)] = torch.arange(len(things), device=boxes.device)
    return thing


def focal(logits: Tensor, wanted: Tensor) -> Tensor:
    """Return the sum of the focal losses (Lin 2017, equation 5)."""
    plain = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    wrong = torch.where(wanted > 0, 1 - logits.sigmoid(), logits.sigmoid())
    return (torch.where(wanted > 0, ALPHA, 1 - ALPHA) * wrong**GAMMA * plain).sum()


@torch.no_grad()
def metric(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Return the mean average precision over overlaps of 0.5 to 0.95."""
    found, true = [], []
    for images, targets in batches:
        logits, deltas = model(images)
        found += detections(logits, deltas, anchors(*images.shape[-2:]).to(images.device))
        things = [target[target[:, 4] >= 0] for target in targets]
        true += [(each[:, :4], each[:, 4].long()) for each in things]
    return mean_average_precision(found, true)


def data() -> tuple[TensorDataset, TensorDataset, TensorDataset]:
    """Return canvases for training, validation and test; no digit is in two of them."""
    train, validation, test = (
        canvases(COUNTS[name], *pictures, seed=number) for number, (name, pictures) in enumerate(digits().items())
    )
    return train, validation, test
