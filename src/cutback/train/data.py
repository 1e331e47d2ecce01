"""Labelled pictures by name: ``load_data("digits", seed=0)`` returns training, validation and test splits."""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from cutback.errors import DataError
from cutback.registry import Registry
from cutback.train.augmentation import NOTHING, Augmentation, parse_augmentation
from cutback.train.normalisation import check_normalisation
from cutback.train.pictures import Shape
from cutback.train.progress import Progress
from cutback.train.splits import Split

USER_FILE = "file.py"
IMAGE_DIMENSIONS = 4


@dataclass(frozen=True, eq=False)
class Data:
    """Three disjoint splits, ready for training.

    Every split is a map-style dataset of ``(image, label)``: a float32 tensor (C, H, W) and an integer class in
    ``0 .. num_classes - 1``. A user's own data may hold any targets where ``num_classes`` is 0. Choose on
    ``validation``; read ``test`` once.

    Attributes:
        name: the data specification this came from.
        train: items to train on.
        validation: items to choose the best epoch on.
        test: held-out items.
        num_classes: number of classes; 0 where the targets are no classes.
        input_shape: shape (C, H, W) of one picture.
        class_names: names of the classes, by label; empty where unknown.
        mean: per channel, what was subtracted from pixels in 0..1; empty where the pictures are used as they came.
        std: per channel, what they were then divided by; empty likewise.
        augmentation: what is done at random to training pictures.
        notes: what a user should know about the splits.
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
    augmentation: Augmentation = NOTHING
    notes: tuple[str, ...] = ()

    def augmented(self, inputs: Any, generator: torch.Generator) -> Any:  # noqa: ANN401 (a user's own data)
        """Return a training batch with what is done at random to it; nothing is done to what is no (N, C, H, W)."""
        if not isinstance(inputs, Tensor) or inputs.dim() != IMAGE_DIMENSIONS:
            return inputs
        black = [-mean / std for mean, std in zip(self.mean, self.std, strict=True)]
        return self.augmentation(inputs, generator, border=black or 0.0)


@dataclass(frozen=True)
class Options:
    """How data is to be read; see ``load_data``."""

    seed: int
    input_shape: Shape | None = None
    progress: Progress | None = None
    seen: bool = False
    classes: bool = True
    normalise: str | None = None
    augment: Augmentation | None = None
    workers: int = 0


class Source(Protocol):
    """What a data source registers: a function from the part of the specification behind the colon to data."""

    def __call__(self, argument: str, options: Options) -> Data:
        """Load the data; see ``load_data`` for the options."""
        ...


data_sources: Registry[Source] = Registry("data source", "cutback.train.sources")


def load_data(
    spec: str,
    *,
    seed: int,
    input_shape: Shape | None = None,
    progress: Progress | None = None,
    seen: bool = False,
    classes: bool = True,
    normalise: str | None = None,
    augment: str | None = None,
    workers: int = 0,
) -> Data:
    """Load labelled pictures.

    Where a source has no validation or test split, each missing one is cut from the training pictures: a fifth of
    them, at most 5,000, with every class in proportion. Starting weights that have seen the training pictures cannot be
    judged on any of them; with ``seen`` a missing validation split is therefore the first half of each class of the
    test split, in the order of the files, and test is the rest.

    Args:
        spec: ``"digits"``, ``"mnist:DIR"``, ``"imagefolder:DIR"``, ``"hf:NAME"``, ``"hf:parquet@FILES"``,
            ``"torchvision:NAME@DIR"`` or ``"FILE.py:FUNCTION"``.
        seed: seed of the splits; the same seed gives the same splits.
        input_shape: shape (C, H, W) the pictures must have; those of files are converted and resized to it.
        progress: told how many pictures have been read, where that takes long.
        seen: the starting weights have seen the training pictures.
        classes: the targets must be integer classes; false lets a user's function return any.
        normalise: ``None`` or ``"data"`` for mean and standard deviation of each channel over the training split, or a
            preset: ``"imagenet"``, ``"cifar10"``, ``"cifar100"``, ``"mnist"``, ``"half"``, ``"none"``, or the numbers.
        augment: what is done at random to training pictures: ``None`` for what is usual for the source, else
            ``"none"``, ``"shift:4,flip"`` or ``"resized-crop,flip"``.
        workers: processes that decode pictures which do not fit into memory, and items of a user's datasets.

    Returns:
        The splits.

    Raises:
        UnknownName: there is no such data source.
        DataError: the data is missing, empty, damaged, has another shape, or an option does not fit it.
        UserMistake: the user's function cannot be loaded, or raised an error; an option is misspelt.
    """
    check_normalisation(normalise)
    wanted = None if augment is None else parse_augmentation(augment)
    scheme, _, argument = spec.partition(":")
    if spec.endswith(".py") or ".py:" in spec:
        scheme, argument = USER_FILE, spec
    options = Options(seed, input_shape, progress, seen, classes, normalise, wanted, workers)
    data = data_sources.get(scheme)(argument, options)
    if input_shape is not None and data.input_shape != input_shape:
        actual, wanted_shape = ("x".join(map(str, shape)) for shape in (data.input_shape, input_shape))
        raise DataError(
            f"the pictures of {spec!r} are {actual}, not {wanted_shape}; use --input {actual} or leave it out"
        )
    return data
