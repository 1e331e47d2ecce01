"""Labelled pictures by name: ``load_data("digits", seed=0)`` returns training, validation and test splits."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from cutback.errors import DataError
from cutback.registry import Registry
from cutback.train.progress import Progress
from cutback.train.splits import Split, cut

Shape = tuple[int, int, int]
USER_FILE = "file.py"


@dataclass(frozen=True, eq=False)
class Data:
    """Three disjoint splits of labelled pictures, ready for training.

    Every split is a map-style dataset of ``(image, label)``: a float32 tensor (C, H, W) and an integer class in
    ``0 .. num_classes - 1``. Choose on ``validation``; read ``test`` once.

    Attributes:
        name: the data specification this came from.
        train: pictures to train on.
        validation: pictures to choose the best epoch on.
        test: held-out pictures.
        num_classes: number of classes.
        input_shape: shape (C, H, W) of one picture.
        class_names: names of the classes, by label; empty where unknown.
        mean: per channel, what was subtracted from pixels in 0..1; empty where the pictures are used as they came.
        std: per channel, what they were then divided by; empty likewise.
        shift: training pictures are moved at random by up to this many pixels in each direction.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    num_classes: int
    input_shape: Shape
    class_names: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    shift: int = 0


class Source(Protocol):
    """What a data source registers: a function from the part of the specification behind the colon to data."""

    def __call__(self, argument: str, *, seed: int, input_shape: Shape | None, progress: Progress | None) -> Data:
        """Load the data; see ``load_data`` for the arguments."""
        ...


data_sources: Registry[Source] = Registry("data source", "cutback.train.sources")


def load_data(spec: str, *, seed: int, input_shape: Shape | None = None, progress: Progress | None = None) -> Data:
    """Load labelled pictures into memory.

    Where a source has no validation or test split, each missing one is cut from the training pictures: a fifth of
    them, at most 5,000, with every class in proportion. Pixels are normalised by the mean and the standard deviation
    of each channel over the training split; what a user's own function returns is used as it is.

    Args:
        spec: ``"digits"``, ``"mnist:DIR"``, ``"imagefolder:DIR"`` or ``"FILE.py:FUNCTION"``.
        seed: seed of the splits; the same seed gives the same splits.
        input_shape: shape (C, H, W) the pictures must have; a folder of pictures is converted and resized to it.
        progress: told how many files have been read, where that takes long.

    Returns:
        The splits.

    Raises:
        UnknownName: there is no such data source.
        DataError: the data is missing, empty, damaged, or has another shape.
        UserMistake: the user's function cannot be loaded, or raised an error.
    """
    scheme, _, argument = spec.partition(":")
    if spec.endswith(".py") or ".py:" in spec:
        scheme, argument = USER_FILE, spec
    data = data_sources.get(scheme)(argument, seed=seed, input_shape=input_shape, progress=progress)
    if input_shape is not None and data.input_shape != input_shape:
        actual, wanted = ("x".join(map(str, shape)) for shape in (data.input_shape, input_shape))
        raise DataError(f"the pictures of {spec!r} are {actual}, not {wanted}; use --input {actual} or leave it out")
    return data


def data_from_pictures(
    name: str,
    train: tuple[Tensor, Tensor],
    validation: tuple[Tensor, Tensor] | None,
    test: tuple[Tensor, Tensor] | None,
    *,
    class_names: Sequence[str],
    seed: int,
    shift: int = 0,
) -> Data:
    """Make splits of pictures in memory: cut the missing ones from ``train``, then normalise all.

    Args:
        name: the data specification.
        train: pictures (N, C, H, W), uint8 in 0..255 or float in 0..1, and labels (N,).
        validation: likewise, or ``None`` to cut them from ``train``.
        test: likewise.
        class_names: names of the classes, by label.
        seed: seed of the cut.
        shift: see ``Data``.

    Raises:
        DataError: there are too few pictures for three splits.
    """
    parts = cut(train[1], pieces=1 + (validation is None) + (test is None), seed=seed, name=name)
    own, *held_out = ((train[0][indices], train[1][indices]) for indices in parts)
    pictures = (own, validation or held_out.pop(0), test or held_out.pop(0))
    splits = [(_unit_range(images), labels.long()) for images, labels in pictures]
    images = splits[0][0]
    mean, std = images.mean((0, 2, 3)), images.std((0, 2, 3), correction=0)
    std = torch.where(std > 0, std, 1.0)
    for images, _ in splits:
        images.sub_(mean[:, None, None]).div_(std[:, None, None])
    channels, height, width = splits[0][0].shape[1:]
    return Data(
        name,
        *(TensorDataset(images, labels) for images, labels in splits),
        num_classes=len(class_names),
        input_shape=(channels, height, width),
        class_names=tuple(class_names),
        mean=tuple(mean.tolist()),
        std=tuple(std.tolist()),
        shift=shift,
    )


def _unit_range(images: Tensor) -> Tensor:
    """Return a float32 copy of pictures, in 0..1."""
    return images.float().div_(255) if images.dtype == torch.uint8 else images.float().clone()
