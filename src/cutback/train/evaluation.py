"""Accuracy of a model on a split, and whether model and data fit each other at all."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from cutback.errors import CutbackError, DataError
from cutback.graph.clone import set_training
from cutback.train.batches import batches
from cutback.train.data import Data
from cutback.train.splits import Split

LOGIT_DIMENSIONS = 2


@dataclass(frozen=True)
class Accuracy:
    """How well a model does on a split.

    Attributes:
        top1: fraction of the pictures whose class got the highest output, in 0..1.
        loss: mean cross entropy, in nats.
    """

    top1: float
    loss: float


def evaluate(
    model: nn.Module,
    split: Split,
    *,
    device: torch.device | str = "cpu",
    batch_size: int = 256,
) -> Accuracy:
    """Measure a model in eval mode; its modules' modes are left as found.

    Args:
        model: maps pictures (N, C, H, W) to outputs (N, num_classes); it is moved to ``device``.
        split: a map-style dataset of (image, label).
        device: where to compute.
        batch_size: pictures in a batch.

    Returns:
        Accuracy and loss over the whole split.

    Raises:
        DataError: the split is empty, or its labels or the model's outputs do not fit.
    """
    count = len(split)
    if not count:
        raise DataError("there are no pictures to evaluate on; give the split at least one")
    place = torch.device(device)
    correct = torch.zeros((), dtype=torch.int64, device=place)
    loss = torch.zeros((), dtype=torch.float64, device=place)
    modes = set_training(model.to(place), False)
    try:
        with torch.no_grad():
            for images, labels in batches(split, batch_size, place):
                outputs = logits(model(images))
                check_labels(outputs, labels)
                correct += (outputs.argmax(1) == labels).sum()
                loss += functional.cross_entropy(outputs, labels, reduction="sum")
    finally:
        set_training(model, modes)
    return Accuracy(correct.item() / count, loss.item() / count)


def check_model(model: nn.Module, data: Data, *, device: torch.device | str = "cpu") -> None:
    """Run two training pictures through a model in eval mode, to see whether it fits the data.

    Raises:
        DataError: the model does not accept the pictures, or has fewer outputs than the data has classes.
    """
    place = torch.device(device)
    shape = "x".join(map(str, data.input_shape))
    images, _ = next(batches(data.train, 2, place))
    modes = set_training(model.to(place), False)
    try:
        with torch.no_grad():
            outputs = logits(model(images))
    except CutbackError:
        raise
    except Exception as error:  # The user's own code raises anything.
        reason = " ".join(str(error).split())
        raise DataError(
            f"the model does not accept the {shape} pictures of {data.name!r} ({type(error).__name__}: {reason}); "
            "use data or a model of another shape"
        ) from error
    finally:
        set_training(model, modes)
    if outputs.shape[1] < data.num_classes:
        raise DataError(
            f"{data.name!r} has {data.num_classes} classes but the model only {outputs.shape[1]} outputs; "
            f"replace its head with --num-classes {data.num_classes}"
        )


def logits(outputs: object) -> Tensor:
    """Return the class scores (N, num_classes) among what a model returned: ``.logits``, the first item, or itself.

    Raises:
        DataError: there is no such tensor.
    """
    scores = getattr(outputs, "logits", outputs)
    if isinstance(scores, tuple | list) and scores:
        scores = scores[0]
    if not isinstance(scores, Tensor) or scores.dim() != LOGIT_DIMENSIONS:
        what = f"shape {tuple(scores.shape)}" if isinstance(scores, Tensor) else f"type {type(scores).__name__}"
        raise DataError(f"the model's output has {what}; classification needs a tensor (N, num_classes)")
    return scores


def cross_entropy(outputs: object, labels: Tensor) -> Tensor:
    """Return the mean cross entropy of what a model returned, in nats, for labels (N,).

    Raises:
        DataError: the outputs are no class scores, or a label is none of theirs.
    """
    found = logits(outputs)
    check_labels(found, labels)
    return functional.cross_entropy(found, labels)


def check_labels(outputs: Tensor, labels: Tensor) -> None:
    """Raise ``DataError`` unless every label (N,) is one of the outputs (N, num_classes)."""
    low, high = (int(bound) for bound in labels.aminmax())
    if low < 0:
        raise DataError(f"the data has the label {low}; count classes from 0")
    if high >= outputs.shape[1]:
        raise DataError(
            f"the data has the label {high} but the model only {outputs.shape[1]} outputs; "
            f"replace its head with --num-classes {high + 1} or more"
        )
