"""Putting data together: which picture is in which split, in memory or decoded one at a time, normalised alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from cutback.errors import DataError
from cutback.train.augmentation import Augmentation, standard
from cutback.train.data import Data, Options
from cutback.train.lazy import LazyPictures
from cutback.train.normalisation import Normalisation, normalisation
from cutback.train.pictures import Pictures, Shape, check_channels, read_picture, read_pictures
from cutback.train.splits import Loaded, Split, cut, first_halves

Name = Literal["train", "validation", "test"]
NAMES: tuple[Name, ...] = ("train", "validation", "test")
IN_MEMORY = 2 * 2**30
"""Pictures are kept in memory, float32, up to so many bytes."""
LOOKED_AT = 2048
"""Statistics of pictures that are not kept in memory are those of so many."""
HALVED = (
    "validation is the first half of each class of the {split} split and test the rest, because the starting weights "
    "have seen the training pictures"
)
CUT_OFF = (
    "{what} cut from the training pictures by seed {seed}: starting weights that were trained elsewhere, or with "
    "another seed, have seen them"
)


@dataclass(frozen=True, eq=False)
class Part:
    """Where the pictures of a split are.

    Attributes:
        source: the split of the source they come from.
        indices: which of its pictures; ``None`` for all.
    """

    source: Name
    indices: Tensor | None = None


def parts_of(labels: Mapping[Name, Tensor], options: Options, name: str) -> tuple[dict[Name, Part], tuple[str, ...]]:
    """Decide which pictures are in which split.

    Args:
        labels: classes (N,) of the pictures of each split that the source has, ``train`` at least.
        options: seed, and whether the starting weights have seen the training split.
        name: what the data is called in messages.

    Returns:
        The part for each of the three splits, and what a user should know about them.

    Raises:
        DataError: there are too few pictures.
    """
    parts = {split: Part(split) for split in labels}
    notes: tuple[str, ...] = ()
    held_out: list[Name] = [split for split in labels if split != "train"]
    if options.seen and len(held_out) == 1:
        only = held_out[0]
        validation, test = first_halves(labels[only])
        if not len(validation):
            raise DataError(f"the {only} split of {name!r} is too small to be halved; add pictures")
        parts |= {"validation": Part(only, validation), "test": Part(only, test)}
        notes = (HALVED.format(split=only),)
    missing: list[Name] = [split for split in NAMES if split not in parts]
    own, *others = cut(labels["train"], pieces=1 + len(missing), seed=options.seed, name=name)
    if missing:
        parts["train"] = Part("train", own)
        parts |= {split: Part("train", indices) for split, indices in zip(missing, others, strict=True)}
        if options.seen:
            what = f"{' and '.join(missing)} {'were' if len(missing) > 1 else 'was'}"
            notes = (*notes, CUT_OFF.format(what=what, seed=options.seed))
    return parts, notes


def data_from_tensors(
    name: str,
    pictures: Mapping[Name, tuple[Tensor, Tensor]],
    options: Options,
    *,
    class_names: Sequence[str],
    augmentation: Augmentation | None = None,
) -> Data:
    """Make data of pictures in memory: cut the splits that are missing, then normalise all.

    Args:
        name: the data specification.
        pictures: for each split that the source has, ``train`` at least, pictures (N, C, H, W), uint8 in 0..255 or
            float in 0..1, and labels (N,).
        options: how the data is to be read.
        class_names: names of the classes, by label.
        augmentation: what is usual for the source; ``None`` for what is for pictures of this shape.

    Raises:
        DataError: there are too few pictures for three splits, or an option does not fit them.
    """
    if options.augment is not None and options.augment.resized_crop:
        raise DataError(
            f"resized-crop works on picture files, and {name!r} has none; use for example --augment shift:2"
        )
    parts, notes = parts_of({split: labels for split, (_, labels) in pictures.items()}, options, name)
    chosen = {split: _chosen(pictures[part.source], part.indices) for split, part in parts.items()}
    normalise = normalisation(options.normalise, chosen["train"][0])
    splits: dict[Name, Split] = {
        split: TensorDataset(normalise(images), labels.long()) for split, (images, labels) in chosen.items()
    }
    channels, height, width = chosen["train"][0].shape[1:]
    shape = channels, height, width
    return _data(name, splits, options, shape, class_names, augmentation, notes, normalise)


def data_from_pictures(
    name: str,
    pictures: Mapping[Name, tuple[Pictures, Tensor]],
    options: Options,
    *,
    shape: Shape,
    class_names: Sequence[str],
    augmentation: Augmentation | None = None,
) -> Data:
    """Make data of pictures that Pillow decodes: in memory where they fit in, else decoded when they are asked for.

    Args:
        name: the data specification.
        pictures: for each split that the source has, ``train`` at least, pictures and their labels (N,).
        options: how the data is to be read.
        shape: shape (C, H, W) that they are to have.
        class_names: names of the classes, by label.
        augmentation: what is usual for the source; ``None`` for what is for pictures of this shape.

    Raises:
        UserMistake: Pillow is not installed.
        DataError: a picture cannot be decoded, two differ in size and no size was asked for,
            or there are too few.
    """
    check_channels(shape)
    count = sum(len(labels) for _, labels in pictures.values())
    wanted = options.augment
    if (wanted is None or not wanted.resized_crop) and 4 * count * shape[0] * shape[1] * shape[2] <= IN_MEMORY:
        resize = options.input_shape is not None
        read = {
            split: (read_pictures(found, shape, split, resize=resize, progress=options.progress), labels)
            for split, (found, labels) in pictures.items()
        }
        return data_from_tensors(name, read, options, class_names=class_names, augmentation=augmentation)
    return _lazy_data(name, pictures, options, shape, class_names, augmentation)


def _lazy_data(
    name: str,
    pictures: Mapping[Name, tuple[Pictures, Tensor]],
    options: Options,
    shape: Shape,
    class_names: Sequence[str],
    augmentation: Augmentation | None,
) -> Data:
    parts, notes = parts_of({split: labels for split, (_, labels) in pictures.items()}, options, name)
    resize = options.input_shape is not None
    own, train = pictures["train"][0], parts["train"].indices
    every = range(len(own)) if train is None else train.tolist()
    looked_at = every[:: -(-len(every) // LOOKED_AT)]
    normalise = normalisation(
        options.normalise, torch.stack([read_picture(own, index, shape, resize=resize) for index in looked_at])
    )
    resized_crop = options.augment is not None and options.augment.resized_crop
    splits: dict[Name, Split] = {}
    for split, part in parts.items():
        found, labels = pictures[part.source]
        read = LazyPictures(found, labels, shape, normalise, resize, resized_crop and split == "train")
        indices = None if part.indices is None else part.indices.tolist()
        splits[split] = Loaded(read, indices, workers=options.workers)
    return _data(name, splits, options, shape, class_names, augmentation, notes, normalise)


def _data(
    name: str,
    splits: Mapping[Name, Split],
    options: Options,
    shape: Shape,
    class_names: Sequence[str],
    augmentation: Augmentation | None,
    notes: tuple[str, ...],
    normalise: Normalisation,
) -> Data:
    usual = standard(shape) if augmentation is None else augmentation
    return Data(
        name,
        *(splits[split] for split in NAMES),
        num_classes=len(class_names),
        input_shape=shape,
        class_names=tuple(class_names),
        mean=normalise.mean,
        std=normalise.std,
        augmentation=usual if options.augment is None else options.augment,
        notes=notes,
    )


def _chosen(labelled: tuple[Tensor, Tensor], indices: Tensor | None) -> tuple[Tensor, Tensor]:
    images, labels = labelled
    return (images, labels) if indices is None else (images[indices], labels[indices])
