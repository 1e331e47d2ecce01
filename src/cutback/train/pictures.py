"""Decoding pictures into tensors, and collections of pictures that are decoded one at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from cutback.errors import DataError, UserMistake
from cutback.train.libraries import imported
from cutback.train.progress import Progress

if TYPE_CHECKING:
    from PIL.Image import Image

Shape = tuple[int, int, int]
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
MODES = {1: "L", 3: "RGB"}
COLOURS = 3
GREY = ("1", "L")
SAMPLED = 32


class Pictures(Protocol):
    """A collection of pictures that Pillow decodes."""

    def __len__(self) -> int:
        """Return how many there are."""
        ...

    def decoded(self, index: int) -> "Image":
        """Return a picture in any mode."""
        ...

    def called(self, index: int) -> str:
        """Return what messages call a picture."""
        ...


@dataclass(frozen=True)
class PictureFiles:
    """Picture files.

    Attributes:
        paths: the files.
    """

    paths: Sequence[Path]

    def __len__(self) -> int:
        return len(self.paths)

    def decoded(self, index: int) -> "Image":
        """Return a picture in any mode."""
        image = imported("PIL.Image", install="pillow")
        with image.open(self.paths[index]) as picture:
            picture.load()
            return picture

    def called(self, index: int) -> str:
        """Return the path of a file."""
        return str(self.paths[index])


def decode(pictures: Pictures, index: int, channels: int) -> "Image":
    """Return a picture with 1 (grey) or 3 (RGB) channels.

    Raises:
        DataError: it cannot be decoded; the message names it.
        UserMistake: Pillow is not installed.
    """
    return _decoded(pictures, index, MODES[channels])


def _decoded(pictures: Pictures, index: int, mode: str | None = None) -> "Image":
    """Return a picture, in a mode of Pillow's or its own."""
    try:
        picture = pictures.decoded(index)
        return picture if mode is None else picture.convert(mode)
    except UserMistake:
        raise
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged files.
        reason = " ".join(str(error).split()) or type(error).__name__
        message = f"{pictures.called(index)} is not a readable picture ({reason}); replace or remove it"
        raise DataError(message) from error


def natural_shape(pictures: Pictures, *, grey: bool) -> Shape:
    """Return the shape (C, H, W) of the first picture.

    Args:
        pictures: the collection.
        grey: whether pictures may stay grey, where a sample of them, spread over all, is; else they become RGB.
    """
    first = decode(pictures, 0, COLOURS)
    sampled = range(0, len(pictures), max(1, len(pictures) // SAMPLED)) if grey else ()
    alike = bool(sampled) and all(_decoded(pictures, index).mode in GREY for index in sampled)
    return 1 if alike else COLOURS, first.height, first.width


def check_channels(shape: Shape) -> None:
    """Raise ``DataError`` unless pictures are to have 1 (grey) or 3 (RGB) channels."""
    if shape[0] not in MODES:
        raise DataError(f"picture files have 1 or 3 channels, not {shape[0]}; use --input 1xHxW or 3xHxW")


def read_picture(pictures: Pictures, index: int, shape: Shape, *, resize: bool) -> Tensor:
    """Return a picture (C, H, W), uint8 in 0..255.

    Args:
        pictures: the collection.
        index: number of the picture.
        shape: its shape (C, H, W).
        resize: whether one of another size is resized until it covers that size and cut around its centre.

    Raises:
        DataError: it cannot be decoded, or has another size and is not to be resized.
    """
    picture, (channels, height, width) = decode(pictures, index, shape[0]), shape
    if picture.size != (width, height):
        if not resize:
            raise DataError(
                f"pictures of mixed sizes: {pictures.called(0)} is {height}x{width} (height x width), "
                f"{pictures.called(index)} is {picture.height}x{picture.width}; state one size to resize to, such as "
                f"--input {channels}x{height}x{width}"
            )
        picture = imported("PIL.ImageOps", install="pillow").fit(picture, (width, height))
    return pixels_of(picture)


def pixels_of(picture: "Image") -> Tensor:
    """Return the pixels (C, H, W) of a picture, uint8 in 0..255."""
    pixels = torch.from_numpy(np.array(picture))
    return pixels.permute(2, 0, 1) if pixels.dim() > 2 else pixels[None]  # grey has no channel dimension


def read_pictures(
    pictures: Pictures, shape: Shape, split: str, *, resize: bool, progress: Progress | None = None
) -> Tensor:
    """Read all pictures of a split; see ``read_picture``.

    Args:
        pictures: the collection.
        shape: shape (C, H, W) of each picture.
        split: what progress calls them.
        resize: whether those of another size are resized.
        progress: told how many have been read.

    Returns:
        Pictures (N, C, H, W), uint8 in 0..255.
    """
    read = torch.empty((len(pictures), *shape), dtype=torch.uint8)
    for index in range(len(pictures)):
        read[index] = read_picture(pictures, index, shape, resize=resize)
        if progress:
            progress(index + 1, len(pictures), f"reading {split} pictures")
    return read
