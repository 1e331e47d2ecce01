"""``torchvision:NAME@DIR``: labelled pictures of ``torchvision.datasets`` that lie in a folder already."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cutback.errors import DataError, UnknownName
from cutback.registry import near_misses
from cutback.train.assembly import Name, data_from_pictures
from cutback.train.augmentation import Augmentation
from cutback.train.data import Data, Options, data_sources
from cutback.train.libraries import imported
from cutback.train.pictures import COLOURS, Pictures, natural_shape

if TYPE_CHECKING:
    from PIL.Image import Image

SPLITS: dict[Name, tuple[str, ...]] = {
    "train": ("train", "trainval"),
    "validation": ("val", "valid"),
    "test": ("test",),
}
WRITING = ("MNIST", "KMNIST", "QMNIST", "USPS", "SEMEION", "SVHN", "GTSRB", "RenderedSST2", "Omniglot")
"""Pictures of signs, which mirrored are others."""
TARGETS = ("targets", "labels", "_labels")


@data_sources.register("torchvision")
def load_torchvision(argument: str, options: Options) -> Data:
    """Load the training, validation and test pictures of a dataset of torchvision; nothing is downloaded.

    Raises:
        UserMistake: torchvision is missing or does not load.
        UnknownName: it has no such dataset.
        DataError: the dataset is not in the folder, or is not one of pictures and classes.
    """
    name, at, folder = argument.partition("@")
    if not at or not folder:
        raise DataError(f"cannot read data 'torchvision:{argument}'; write torchvision:NAME@DIR")
    library = imported("torchvision.datasets", install="torchvision")
    kind = getattr(library, name, None)
    if name.startswith("_") or not isinstance(kind, type) or not issubclass(kind, library.VisionDataset):
        known = [each for each in library.__all__ if each != "VisionDataset"]
        raise UnknownName(f"torchvision has no dataset {name!r}; {near_misses(name, known)}")
    datasets = _splits(kind, name, folder)
    pictures: dict[Name, tuple[Pictures, Tensor]] = {
        split: (_Items(dataset, f"torchvision:{argument}"), _labels(dataset, argument))
        for split, dataset in datasets.items()
    }
    shape = options.input_shape or natural_shape(pictures["train"][0], grey=True)
    augmentation = None
    if name in WRITING or shape[0] != COLOURS:
        augmentation = Augmentation(shift=min(shape[1:]) // (8 if shape[0] == COLOURS else 14))
    count = 1 + max(int(labels.max()) for _, labels in pictures.values())
    named = getattr(datasets["train"], "classes", ())
    class_names = [str(one) for one in named] if len(named) >= count else [str(number) for number in range(count)]
    return data_from_pictures(
        f"torchvision:{argument}", pictures, options, shape=shape, class_names=class_names, augmentation=augmentation
    )


def _splits(kind: type[Any], name: str, folder: str) -> dict[Name, Any]:
    """Return the datasets of the splits that there are."""
    accepted = inspect.signature(kind).parameters
    fixed = {"download": False} if "download" in accepted else {}

    def made(**chosen: object) -> Any:  # noqa: ANN401 (a dataset)
        try:
            return kind(folder, **fixed, **chosen)
        except Exception as error:
            reason = " ".join(str(error).split())
            raise DataError(
                f"torchvision's {name} cannot be read from {folder} ({type(error).__name__}: {reason}); get it first, "
                f"for example with torchvision.datasets.{name}({folder!r}, download=True), or write a file.py:function"
            ) from error

    if "train" in accepted:
        return {"train": made(train=True), "test": made(train=False)}
    if "split" not in accepted:
        return {"train": made()}
    found: dict[Name, Any] = {}
    for split, names in SPLITS.items():
        dataset = _first(made, names)
        if dataset is not None:
            found[split] = dataset
    if "train" not in found:
        raise DataError(f"torchvision's {name} has no split 'train'; write a file.py:function that returns datasets")
    return found


def _first(made: Callable[..., Any], names: tuple[str, ...]) -> Any | None:  # noqa: ANN401 (a dataset)
    """Return the dataset of the first split that exists."""
    for name in names:
        try:
            return made(split=name)
        except DataError as error:
            if not isinstance(error.__cause__, ValueError):  # which torchvision raises for splits that do not exist
                raise
    return None


def _labels(dataset: Any, spec: str) -> Tensor:  # noqa: ANN401
    """Return the classes (N,) of a dataset: those it keeps, where they are those of its items."""
    try:
        first = int(dataset[0][1])
        for name in TARGETS:
            kept = getattr(dataset, name, None)
            if kept is not None and len(kept) == len(dataset) and int(kept[0]) == first:
                return torch.as_tensor([int(label) for label in kept])
        return torch.as_tensor([int(dataset[index][1]) for index in range(len(dataset))])
    except Exception as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"torchvision:{spec} has no items (picture, class) ({type(error).__name__}: {reason}); write a "
            "file.py:function for other tasks"
        ) from error


@dataclass(frozen=True, eq=False)
class _Items:
    """The pictures of a dataset of torchvision."""

    dataset: Any
    name: str

    def __len__(self) -> int:
        return len(self.dataset)

    def decoded(self, index: int) -> "Image":
        """Return a picture in any mode."""
        return self.dataset[index][0]

    def called(self, index: int) -> str:
        """Return the number of a picture."""
        return f"picture {index} of {self.name}"
