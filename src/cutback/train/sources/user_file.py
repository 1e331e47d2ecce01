"""``FILE.py:FUNCTION``: datasets that a function in the user's own file returns."""

from numbers import Integral
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset, TensorDataset

from cutback.errors import DataError
from cutback.train.data import USER_FILE, Data, Shape, data_sources
from cutback.train.progress import Progress
from cutback.train.splits import Split, cut
from cutback.train.user_code import run_function

EXPECTED = "return (train, validation, test), (train, test) or one dataset, each map-style of (image, label)"
ALL_SPLITS = 3
IMAGE_DIMENSIONS = 3


@data_sources.register(USER_FILE)
def load_user_data(argument: str, *, seed: int, input_shape: Shape | None, progress: Progress | None) -> Data:
    """Call the user's function and use its datasets as they are, without normalising; cut missing splits by seed.

    Raises:
        DataError: the function returned something else than datasets of (image, label).
        UserMistake: the function cannot be loaded, or raised an error.
    """
    returned = run_function(argument)
    values = returned if isinstance(returned, tuple) else (returned,)
    if not 1 <= len(values) <= ALL_SPLITS:
        raise DataError(f"{argument} returned {len(values)} values; {EXPECTED}")
    checked = [_check(split, argument) for split in values]
    splits, shapes = [split for split, _ in checked], [shape for _, shape in checked]
    if len(set(shapes)) > 1:
        raise DataError(f"{argument} returned splits of different picture shapes: {', '.join(map(str, shapes))}")
    labels = _labels(splits[0], argument)
    parts = cut(labels, pieces=ALL_SPLITS + 1 - len(splits), seed=seed, name=argument)
    held_out = [_take(splits[0], part) for part in parts[1:]]
    train = _take(splits[0], parts[0]) if held_out else splits[0]
    validation, test = (*held_out, *splits[1:])
    class_names = tuple(str(name) for name in getattr(splits[0], "classes", ()))
    known = [labels, *(split.tensors[1] for split in splits[1:] if type(split) is TensorDataset)]
    return Data(
        argument,
        train,
        validation,
        test,
        num_classes=max(len(class_names), *(int(some.max()) + 1 for some in known)),
        input_shape=shapes[0],
        class_names=class_names,
    )


def _check(split: object, spec: str) -> tuple[Split, Shape]:
    """Return a dataset, known to be one, and the shape (C, H, W) of its first picture."""
    if isinstance(split, Tensor | dict) or not isinstance(split, Split):
        raise DataError(f"{spec} returned a {type(split).__name__}; {EXPECTED} (see torch.utils.data.TensorDataset)")
    if not len(split):
        raise DataError(f"{spec} returned an empty dataset; give every split at least one picture")
    item = _item(split, 0, spec)
    try:
        image, label = item
    except (TypeError, ValueError):
        raise DataError(f"the first item of a dataset of {spec} is not a pair (image, label); {EXPECTED}") from None
    if not isinstance(image, Tensor) or image.dim() != IMAGE_DIMENSIONS or not image.is_floating_point():
        what = f"{image.dtype} {tuple(image.shape)}" if isinstance(image, Tensor) else type(image).__name__
        raise DataError(f"the first picture of {spec} is {what}; make it a float tensor of shape (C, H, W)")
    if not _is_class(label):
        raise DataError(f"the first label of {spec} is {label!r}; make it an integer class, counted from 0")
    channels, height, width = image.shape
    return split, (channels, height, width)


def _is_class(label: object) -> bool:
    if isinstance(label, Tensor):
        return not label.dim() and not label.is_floating_point()
    return isinstance(label, Integral)


def _labels(dataset: Split, spec: str) -> Tensor:
    """Return the labels (N,) of a dataset, without reading its pictures where torchvision's ``targets`` hold them."""
    if type(dataset) is TensorDataset:
        labels = dataset.tensors[1]
    else:
        targets = getattr(dataset, "targets", None)
        if isinstance(targets, list | Tensor) and getattr(dataset, "target_transform", None) is None:
            found = list(targets)
        else:
            found = [_item(dataset, index, spec)[1] for index in range(len(dataset))]
        if wrong := [label for label in found if not _is_class(label)]:
            raise DataError(f"{spec} has the label {wrong[0]!r}; make it an integer class, counted from 0")
        labels = torch.tensor([int(label) for label in found])
    if labels.min() < 0:
        raise DataError(f"{spec} has the label {int(labels.min())}; count classes from 0")
    return labels.long()


def _item(dataset: Split, index: int, spec: str) -> tuple[Any, ...]:
    try:
        return dataset[index]
    except Exception as error:
        reason = " ".join(str(error).split())
        raise DataError(f"item {index} of a dataset of {spec} failed: {type(error).__name__}: {reason}") from error


def _take(dataset: Split, indices: Tensor) -> Split:
    """Return the items at ``indices`` as a dataset, in memory where the whole one is."""
    if type(dataset) is TensorDataset:
        return TensorDataset(*(tensor[indices] for tensor in dataset.tensors))
    return Subset[tuple[Any, ...]](cast("Dataset[tuple[Any, ...]]", dataset), indices.tolist())
