"""``mnist:DIR``: MNIST and its relatives as the four original idx files, gzipped or not."""

from pathlib import Path

from torch import Tensor

from cutback.errors import DataError
from cutback.train.assembly import data_from_tensors
from cutback.train.augmentation import Augmentation
from cutback.train.data import Data, Options, data_sources
from cutback.train.idx import read_idx

SUBFOLDERS = ("", "raw", "MNIST/raw")
PICTURE_DIMENSIONS = 3


@data_sources.register("mnist")
def load_mnist(argument: str, options: Options) -> Data:
    """Load idx files such as ``train-images-idx3-ubyte.gz`` from a folder, its ``raw`` or its ``MNIST/raw``.

    The test split is the official one; validation is cut from the training pictures (5,000 of MNIST's 60,000). Training
    moves pictures by up to a fourteenth of their side: two of MNIST's 28 pixels.

    Raises:
        DataError: a file is missing or damaged, or pictures and labels differ in number.
    """
    name = f"mnist:{argument}"
    if not argument:
        raise DataError("data 'mnist' needs its folder; write mnist:DIR")
    folder = Path(argument).expanduser()
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder} for data {name!r}; give the folder of the idx files")
    train, test = (_pictures(folder, part) for part in ("train", "t10k"))
    if train[0].shape[1:] != test[0].shape[1:]:
        sizes = [tuple(images.shape[2:]) for images, _ in (train, test)]
        raise DataError(f"training and test pictures of {name!r} differ in size: {sizes[0]} and {sizes[1]}")
    num_classes = int(max(train[1].max(), test[1].max())) + 1
    return data_from_tensors(
        name,
        {"train": train, "test": test},
        options,
        class_names=[str(number) for number in range(num_classes)],
        augmentation=Augmentation(shift=min(train[0].shape[2:]) // 14),
    )


def _pictures(folder: Path, part: str) -> tuple[Tensor, Tensor]:
    """Return pictures (N, 1, H, W) and labels (N,), uint8."""
    images = read_idx(_find(folder, f"{part}-images-idx3-ubyte"), dimensions=PICTURE_DIMENSIONS)
    labels_path = _find(folder, f"{part}-labels-idx1-ubyte")
    labels = read_idx(labels_path, dimensions=1)
    if len(images) != len(labels) or not len(labels):
        raise DataError(
            f"{labels_path} holds {len(labels)} labels for {len(images)} pictures; get both files from one place"
        )
    return images.unsqueeze(1), labels


def _find(folder: Path, file_name: str) -> Path:
    for subfolder in SUBFOLDERS:
        for suffix in ("", ".gz"):
            path = folder / subfolder / f"{file_name}{suffix}"
            if path.is_file():
                return path
    raise DataError(
        f"no {file_name} or {file_name}.gz in {folder}, its raw/ or its MNIST/raw/; give the folder of the idx files"
    )
