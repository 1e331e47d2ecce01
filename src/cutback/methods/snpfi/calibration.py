"""The pictures on which coalitions are tried: as many of each class, of the training split."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from cutback.errors import UserMistake
from cutback.graph.clone import structural_clone
from cutback.graph.graph import Graph
from cutback.graph.inputs import Inputs
from cutback.methods.activations import class_logits
from cutback.scores.data import batches_of


@dataclass(frozen=True, eq=False)
class Calibration:
    """Batches of this process.

    Attributes:
        batches: inputs and labels (N,) of each.
        images: how many pictures there are in all.
    """

    batches: tuple[tuple[Inputs, Tensor], ...]
    images: int


def calibration(graph: Graph, loader: Iterable[object], images: int, together: int) -> Calibration:
    """Take pictures from a loader, as evenly over the classes as it allows.

    Of each class the first come, so many that all classes together make up the number; reading stops when that is full.

    Args:
        graph: the traced model, in eval mode; its outputs (N, classes) tell how many classes there are.
        loader: batches ``(inputs, labels)``.
        images: how many pictures at most.
        together: how many go into a batch.

    Raises:
        UserMistake: there are none, or this is no classification.
    """
    quota, counts = 0, Counter[int]()
    kept: list[tuple[list[Tensor], Tensor]] = []
    like: Inputs | None = None
    for inputs, labels in batches_of(graph, loader):
        if not quota:
            quota, like = -(-images // _classes(graph, inputs)), inputs
        chosen = _chosen(labels, len(inputs.tensors()[0]), quota, counts, images)
        index = torch.tensor(chosen, dtype=torch.int64)
        parts = [tensor[index.to(tensor.device)] for tensor in inputs.tensors()]
        kept.append((parts, labels[index.to(labels.device)]))  # type: ignore[index]
        if counts.total() >= images:
            break
    if like is None:
        raise UserMistake(
            "snpfi's loader gave no batch; pass batches (inputs, labels) of the training split, such as a DataLoader"
        )
    whole = [torch.cat(tensors) for tensors in zip(*(parts for parts, _ in kept), strict=True)]
    labels = torch.cat([each for _, each in kept])
    pieces = zip(*(tensor.split(together) for tensor in whole), strict=True)
    batches = [(like.replaced(piece), own) for piece, own in zip(pieces, labels.split(together), strict=True)]
    return Calibration(tuple(batches), len(labels))


def _classes(graph: Graph, inputs: Inputs) -> int:
    with torch.no_grad():
        outputs = structural_clone(graph.model)(*inputs.positional, **inputs.keyword)
    return class_logits(outputs, len(inputs.tensors()[0]), "snpfi").shape[1]


def _chosen(labels: object, samples: int, quota: int, counts: Counter[int], images: int) -> list[int]:
    """Return which pictures of a batch are taken, and count them."""
    if not isinstance(labels, Tensor) or labels.shape != (samples,) or labels.is_floating_point():
        shape = tuple(labels.shape) if isinstance(labels, Tensor) else type(labels).__name__
        raise UserMistake(f"snpfi needs the true class of each picture, a whole number each; the loader gives {shape}")
    chosen: list[int] = []
    for place, label in enumerate(labels.tolist()):
        if counts[label] < quota and counts.total() < images:
            counts[label] += 1
            chosen.append(place)
    return chosen
