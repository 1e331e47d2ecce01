"""``FILE.py:FUNCTION``: datasets that a function in the user's own file returns."""

from collections.abc import Callable
from numbers import Integral
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from cutback.errors import DataError
from cutback.train.assembly import NAMES, Name, parts_of
from cutback.train.augmentation import NOTHING
from cutback.train.data import USER_FILE, Data, Options, Shape, data_sources
from cutback.train.splits import Loaded, Split
from cutback.train.user_code import run_function

EXPECTED = "return (train, validation, test), (train, test) or one dataset, each map-style of (image, label)"
IMAGE_DIMENSIONS = 3
RETURNED: dict[int, tuple[Name, ...]] = {1: ("train",), 2: ("train", "test"), 3: NAMES}


@data_sources.register(USER_FILE)
def load_user_data(argument: str, options: Options) -> Data:
    """Call the user's function and use its datasets as they are, without normalising; cut missing splits by seed.

    A dataset's own ``collate``, where it has one, makes batches of lists of its items.

    Raises:
        DataError: the function returned something else than datasets of (image, label), or options are given that are
            for pictures which cutback reads itself.
        UserMistake: the function cannot be loaded, or raised an error.
    """
    if options.normalise is not None:
        raise DataError(f"the pictures of {argument} are used as they come; normalise them there, without --normalise")
    if options.augment is not None and not options.classes:
        raise DataError(f"targets of {argument} would not follow an augmentation; augment there, without --augment")
    returned = run_function(argument)
    values = returned if isinstance(returned, tuple) else (returned,)
    if len(values) not in RETURNED:
        raise DataError(f"{argument} returned {len(values)} values; {EXPECTED}")
    checked = [_check(split, argument, classes=options.classes) for split in values]
    datasets = dict(zip(RETURNED[len(values)], (split for split, _ in checked), strict=True))
    shapes = [shape for _, shape in checked]
    if len(set(shapes)) > 1:
        raise DataError(f"{argument} returned splits of different picture shapes: {', '.join(map(str, shapes))}")
    labels = {split: _labels(dataset, argument, options, split) for split, dataset in datasets.items()}
    parts, notes = parts_of(labels, options, argument)
    splits = [_split(datasets[parts[name].source], parts[name].indices, options, argument) for name in NAMES]
    class_names = tuple(str(name) for name in getattr(datasets["train"], "classes", ()))
    highest = max(int(some.max()) for some in labels.values())
    return Data(
        argument,
        *splits,
        num_classes=max(len(class_names), highest + 1) if options.classes else 0,
        input_shape=shapes[0],
        class_names=class_names if options.classes else (),
        augmentation=options.augment or NOTHING,
        notes=notes,
    )


def _check(split: object, spec: str, *, classes: bool) -> tuple[Split, Shape]:
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
    if classes and not _is_class(label):
        raise DataError(
            f"the first label of {spec} is {label!r}; make it an integer class, counted from 0, or say with "
            "--task file.py what other targets mean"
        )
    channels, height, width = image.shape
    return split, (channels, height, width)


def _is_class(label: object) -> bool:
    if isinstance(label, Tensor):
        return not label.dim() and not label.is_floating_point()
    return isinstance(label, Integral)


def _labels(dataset: Split, spec: str, options: Options, split: Name) -> Tensor:
    """Return the labels (N,) of a dataset, without reading its pictures where torchvision's ``targets`` hold them.

    All are 0 where the targets are no classes, and for splits that need not be cut.
    """
    targets = getattr(dataset, "targets", None)
    if not options.classes:
        return torch.zeros(len(dataset), dtype=torch.int64)
    if type(dataset) is TensorDataset:
        labels = dataset.tensors[1]
    elif isinstance(targets, list | Tensor) and getattr(dataset, "target_transform", None) is None:
        labels = _as_classes(list(targets), spec)
    elif split == "train" or options.seen:
        labels = _as_classes([_item(dataset, index, spec)[1] for index in range(len(dataset))], spec)
    else:
        return torch.zeros(len(dataset), dtype=torch.int64)
    if labels.min() < 0:
        raise DataError(f"{spec} has the label {int(labels.min())}; count classes from 0")
    return labels.long()


def _as_classes(found: list[Any], spec: str) -> Tensor:
    if wrong := [label for label in found if not _is_class(label)]:
        raise DataError(f"{spec} has the label {wrong[0]!r}; make it an integer class, counted from 0")
    return torch.tensor([int(label) for label in found])


def _item(dataset: Split, index: int, spec: str) -> tuple[Any, ...]:
    try:
        return dataset[index]
    except Exception as error:
        reason = " ".join(str(error).split())
        raise DataError(f"item {index} of a dataset of {spec} failed: {type(error).__name__}: {reason}") from error


def _split(dataset: Split, indices: Tensor | None, options: Options, spec: str) -> Split:
    """Return the items at ``indices`` as a dataset, in memory where the whole one is."""
    collate: Callable[[list[Any]], Any] | None = getattr(dataset, "collate", None)
    if collate is not None and not callable(collate):
        raise DataError(f"collate of a dataset of {spec} is a {type(collate).__name__}; make it a function of a list")
    if type(dataset) is TensorDataset:
        return dataset if indices is None else TensorDataset(*(tensor[indices] for tensor in dataset.tensors))
    return Loaded(dataset, None if indices is None else indices.tolist(), collate, options.workers)
