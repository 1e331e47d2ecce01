"""``hf:NAME`` and ``hf:parquet@FILES``: pictures of Hugging Face datasets, from the Hub, a folder or parquet files."""

import glob
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cutback.errors import DataError
from cutback.train.assembly import Name, data_from_pictures
from cutback.train.data import Data, Options, data_sources
from cutback.train.libraries import imported
from cutback.train.pictures import Pictures, natural_shape

if TYPE_CHECKING:
    from PIL.Image import Image

PARQUET = "parquet"
SPLITS: dict[Name, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "eval"),
}
LABELS = ("label", "labels", "target", "class")


@data_sources.register("hf")
def load_hugging_face(argument: str, options: Options) -> Data:
    """Load pictures and classes of a Hugging Face dataset.

    ``NAME`` is a dataset of the Hub, with its configuration behind an ``@`` where it has several, or a folder. FILES
    are parquet files, with commas between them or with wildcards; the split of each is in its name
    (``test-00000-of-00001.parquet``), else it is of the training split. A split without labels is left out.

    Raises:
        UserMistake: the library ``datasets`` is not installed.
        DataError: the dataset cannot be loaded, or has no column of pictures or of classes.
    """
    name = f"hf:{argument}"
    library = imported("datasets", install="datasets")
    source, _, rest = argument.partition("@")
    if not source or (source == PARQUET and not rest):
        raise DataError(f"cannot read data {name!r}; write hf:NAME, hf:NAME@CONFIGURATION or hf:parquet@FILES")
    with _quiet(library):
        try:
            if source == PARQUET:
                found = library.load_dataset(PARQUET, data_files=_files_by_split(rest))
            else:
                found = library.load_dataset(source, rest or None)
        except DataError:
            raise
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            raise DataError(
                f"Hugging Face datasets cannot load {name!r} ({type(error).__name__}: {reason}); check the name, and "
                "the connection if it is on the Hub"
            ) from error
    splits = _splits(found, name)
    image, label = _columns(library, splits["train"], name)
    pictures: dict[Name, tuple[Pictures, Tensor]] = {}
    unlabelled: list[str] = []
    for split, dataset in splits.items():
        labels = _labels(dataset, label, name)
        if bool((labels < 0).all()):
            unlabelled.append(split)
        else:
            pictures[split] = (
                _Column(dataset.cast_column(image, library.Image()).select_columns([image]), image, split),
                labels,
            )
    if "train" not in pictures:
        raise DataError(f"the training split of {name!r} has no labels; use another dataset")
    shape = options.input_shape or natural_shape(pictures["train"][0], grey=True)
    class_names = _class_names(splits["train"].features[label], pictures)
    data = data_from_pictures(name, pictures, options, shape=shape, class_names=class_names)
    notes = tuple(f"the {split} split of {name} has no labels and is left out" for split in unlabelled)
    return replace(data, notes=(*notes, *data.notes))


def _files_by_split(text: str) -> dict[str, list[str]]:
    """Find parquet files, by split."""
    files: dict[str, list[str]] = {}
    for pattern in (part.strip() for part in text.split(",")):
        matches = sorted(glob.glob(str(Path(pattern).expanduser()), recursive=True))  # noqa: PTH207 (absolute ones too)
        if not matches:
            raise DataError(f"there is no file {pattern}; write hf:parquet@FILES, with commas or wildcards")
        for file in matches:
            files.setdefault(_split_of(Path(file).stem) or "train", []).append(file)
    return files


def _split_of(text: str) -> Name | None:
    """Return the split whose name is a word of a text."""
    words = re.split(r"[^a-z]+", text.lower())
    return next((split for split, names in SPLITS.items() if any(word in names for word in words)), None)


def _splits(found: object, name: str) -> dict[Name, Any]:
    """Return the datasets of the splits; a single one, whatever its name, is the training split."""
    if not isinstance(found, Mapping) or not found:
        raise DataError(f"{name!r} is no set of splits but a {type(found).__name__}; use another dataset")
    named = {_split_of(str(split)): dataset for split, dataset in found.items()}
    splits: dict[Name, Any] = {split: named[split] for split in SPLITS if split in named}
    if len(found) == 1:
        return {"train": next(iter(found.values()))}
    if "train" not in splits:
        raise DataError(f"{name!r} has the splits {', '.join(map(str, found))}, none of which is for training")
    return splits


def _columns(library: Any, dataset: Any, name: str) -> tuple[str, str]:  # noqa: ANN401
    """Return the columns of the pictures and of the classes."""
    features = dataset.features
    images = [key for key, feature in features.items() if _holds_pictures(library, feature)]
    labels = [key for key, feature in features.items() if isinstance(feature, library.ClassLabel)]
    labels += [key for key in LABELS if str(getattr(features.get(key), "dtype", "")).startswith(("int", "uint"))]
    if not images or not labels:
        what = "pictures" if not images else "integer classes"
        raise DataError(f"{name!r} has no column of {what} among {', '.join(features)}; write a file.py:function")
    return images[0], labels[0]


def _holds_pictures(library: Any, feature: Any) -> bool:  # noqa: ANN401
    """Say whether a column holds pictures, or their files' bytes as parquet files written elsewhere do."""
    if isinstance(feature, library.Image):
        return True
    held = feature.get("bytes") if isinstance(feature, Mapping) else feature
    return getattr(held, "dtype", None) in {"binary", "large_binary"}


def _labels(dataset: Any, column: str, name: str) -> Tensor:  # noqa: ANN401
    found = list(dataset[column])
    if not found or any(label is None for label in found):
        raise DataError(f"a split of {name!r} is empty or lacks some labels in column {column}; use another dataset")
    return torch.tensor(found)


def _class_names(feature: Any, pictures: Mapping[Name, tuple[Pictures, Tensor]]) -> list[str]:  # noqa: ANN401
    names = getattr(feature, "names", None)
    if names:
        return list(names)
    return [str(number) for number in range(1 + max(int(labels.max()) for _, labels in pictures.values()))]


@contextmanager
def _quiet(library: Any) -> Iterator[None]:  # noqa: ANN401
    """Keep the library from drawing progress bars of its own."""
    shown = library.are_progress_bars_disabled() is False
    library.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            library.enable_progress_bars()


@dataclass(frozen=True, eq=False)
class _Column:
    """The pictures of one split."""

    dataset: Any
    column: str
    split: str

    def __len__(self) -> int:
        return len(self.dataset)

    def decoded(self, index: int) -> "Image":
        """Return a picture in any mode."""
        return self.dataset[index][self.column]

    def called(self, index: int) -> str:
        """Return the number of a picture."""
        return f"picture {index} of the {self.split} split"
