"""``imagefolder:DIR``: picture files in one folder a class, with or without folders for the splits above them."""

from pathlib import Path

import torch
from torch import Tensor

from cutback.errors import DataError
from cutback.registry import near_misses
from cutback.train.assembly import Name, data_from_pictures
from cutback.train.data import Data, Options, data_sources
from cutback.train.pictures import COLOURS, SUFFIXES, PictureFiles, natural_shape

SPLIT_FOLDERS: dict[Name, tuple[str, ...]] = {
    "train": ("train",),
    "validation": ("val", "valid", "validation"),
    "test": ("test",),
}
LAYOUT = "expected DIR/<class>/*.png or DIR/train/<class>/*.png (also .jpg and others)"


@data_sources.register("imagefolder")
def load_image_folder(argument: str, options: Options) -> Data:
    """Load ``DIR/<class>/*.png`` or ``DIR/train|val|test/<class>/*.png`` as RGB, or as ``input_shape`` says.

    Splits that have a folder are used, the others are cut from the training pictures.

    Raises:
        DataError: the folder is missing, empty, without classes, or holds damaged pictures or ones of mixed sizes.
    """
    name = f"imagefolder:{argument}"
    root = Path(argument).expanduser()
    if not argument or not root.is_dir():
        raise DataError(f"there is no folder {argument!r} for data {name!r}; write imagefolder:DIR")
    folders = _split_folders(root)
    class_names = [folder.name for folder in _subfolders(folders["train"])]
    if not class_names:
        raise DataError(f"{folders['train']} has no folder for any class; {LAYOUT}")
    pictures = {split: _labelled_files(folder, class_names) for split, folder in folders.items()}
    shape = options.input_shape or (COLOURS, *natural_shape(pictures["train"][0], grey=False)[1:])
    return data_from_pictures(name, pictures, options, shape=shape, class_names=class_names)


def _split_folders(root: Path) -> dict[Name, Path]:
    """Return the folder of each split that exists; the root itself where the classes lie directly in it."""
    present = {folder.name: folder for folder in _subfolders(root)}
    known = {name for names in SPLIT_FOLDERS.values() for name in names}
    # A class may be called "train" too: then there are other classes beside it, and no classes in it.
    if "train" not in present or not (present.keys() <= known or _subfolders(present["train"])):
        return {"train": root}
    found = {split: [present[n] for n in names if n in present] for split, names in SPLIT_FOLDERS.items()}
    return {split: candidates[0] for split, candidates in found.items() if candidates}


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _labelled_files(folder: Path, class_names: list[str]) -> tuple[PictureFiles, Tensor]:
    """Return the picture files of one split, class by class and sorted by name, with their labels (N,)."""
    paths: list[Path] = []
    labels: list[int] = []
    for class_folder in _subfolders(folder):
        if class_folder.name not in class_names:
            hint = near_misses(class_folder.name, class_names)
            raise DataError(f"{class_folder} is not a class of the training pictures; {hint}")
        label = class_names.index(class_folder.name)
        files = sorted(p for p in class_folder.iterdir() if p.suffix.lower() in SUFFIXES and p.name[0] != ".")
        if not files:
            raise DataError(f"{class_folder} holds no pictures ({', '.join(SUFFIXES)}); add some or remove the folder")
        paths += files
        labels += [label] * len(files)
    if not paths:
        raise DataError(f"{folder} holds no pictures; {LAYOUT}")
    return PictureFiles(paths), torch.tensor(labels)
