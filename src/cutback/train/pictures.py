"""Reading picture files into one tensor."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cutback.errors import DataError
from cutback.train.progress import Progress

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
MODES = {1: "L", 3: "RGB"}


def read_pictures(
    paths: Sequence[Path], *, input_shape: tuple[int, int, int] | None, progress: Progress | None = None
) -> Tensor:
    """Read picture files of one size, or resize them to one.

    Args:
        paths: the files, at least one.
        input_shape: shape (C, H, W) to convert and resize every picture to, C being 1 (grey) or 3 (RGB);
            ``None`` for RGB in the size that all files must share.
        progress: told how many files have been read.

    Returns:
        Pictures (N, C, H, W), uint8 in 0..255.

    Raises:
        DataError: Pillow is not installed, a file cannot be read (it is named), two files differ in size (both are
            named), or ``input_shape`` has neither 1 nor 3 channels.
    """
    channels = 3 if input_shape is None else input_shape[0]
    if channels not in MODES:
        raise DataError(f"picture files have 1 or 3 channels, not {channels}; use --input 1xHxW or 3xHxW")
    first = _read(paths[0], MODES[channels])
    height, width = input_shape[1:] if input_shape else (first.height, first.width)
    pictures = torch.empty((len(paths), channels, height, width), dtype=torch.uint8)
    for index, path in enumerate(paths):
        picture = _read(path, MODES[channels]) if index else first
        if picture.size != (width, height):
            if input_shape is None:
                raise DataError(
                    f"pictures of mixed sizes: {paths[0]} is {height}x{width} (height x width), {path} is "
                    f"{picture.height}x{picture.width}; state one size to resize to, such as --input 3x{height}x{width}"
                )
            picture = picture.resize((width, height))
        pixels = torch.from_numpy(np.array(picture))
        pictures[index] = pixels.permute(2, 0, 1) if pixels.dim() > 2 else pixels  # grey has no channel dimension
        if progress:
            progress(index + 1, len(paths), "reading pictures")
    return pictures


def _read(path: Path, mode: str) -> "Image":
    """Decode one picture file."""
    try:
        from PIL import Image  # noqa: PLC0415 (optional)
    except ImportError as error:
        raise DataError("picture files need Pillow; install it with: pip install pillow") from error
    try:
        with Image.open(path) as picture:
            return picture.convert(mode)
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged files.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path} is not a readable picture ({reason}); replace or remove it") from error
