"""What is done at random to training pictures: shifts, flips, resized crops."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cutback.errors import UserMistake
from cutback.train.pictures import COLOURS, Shape

WRITTEN = "none, or some of shift:PIXELS, flip and resized-crop, such as shift:4,flip"


@dataclass(frozen=True)
class Augmentation:
    """What is done at random to training pictures.

    Attributes:
        shift: each picture moves by up to this many pixels in each direction (a random crop of the padded picture).
        flip: half of the pictures are mirrored, left to right.
        resized_crop: pictures are cut out of their files at random, 8 % to all of the area and 3:4 to 4:3 in shape,
            and resized (Szegedy 2015, section 6); done as they are read.
    """

    shift: int = 0
    flip: bool = False
    resized_crop: bool = False

    def __str__(self) -> str:
        parts = [f"shift:{self.shift}"] if self.shift else []
        parts += ["flip"] if self.flip else []
        parts += ["resized-crop"] if self.resized_crop else []
        return ",".join(parts) or "none"

    def __call__(self, images: Tensor, generator: torch.Generator, *, border: float | Sequence[float] = 0.0) -> Tensor:
        """Return pictures (N, C, H, W), moved and mirrored.

        Args:
            images: pictures (N, C, H, W) on any device.
            generator: source of the random numbers, on the CPU.
            border: what comes in at the border of a picture that moves, one value or one a channel.
        """
        if self.shift:
            images = random_shift(images, self.shift, generator, border=border)
        if self.flip:
            mirrored = torch.rand(len(images), generator=generator).to(images.device) < 0.5
            images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
        return images


NOTHING = Augmentation()


def standard(shape: Shape) -> Augmentation:
    """Return the usual augmentation of colour pictures (C, H, W): shifts by an eighth of their side, and flips.

    For CIFAR's 32x32 pixels that is a shift by 4 (He 2016, section 4.2). Grey pictures are left as they are: they may
    be writing, which mirrored is no writing.
    """
    channels, height, width = shape
    return Augmentation(shift=min(height, width) // 8, flip=True) if channels == COLOURS else NOTHING


def parse_augmentation(text: str) -> Augmentation:
    """Read what ``str`` of an augmentation writes.

    Raises:
        UserMistake: it is written in another way.

    Example:
        >>> from cutback.train.augmentation import parse_augmentation
        >>> parse_augmentation("shift:4,flip")
        Augmentation(shift=4, flip=True, resized_crop=False)
    """
    shift, flip, resized_crop = 0, False, False
    for part in (part.strip() for part in text.split(",")):
        name, _, pixels = part.partition(":")
        if name == "shift" and pixels.isdecimal():
            shift = int(pixels)
        elif part == "flip":
            flip = True
        elif part == "resized-crop":
            resized_crop = True
        elif part != "none" or text.strip() != "none":
            raise UserMistake(f"cannot read the augmentation {text!r}; write {WRITTEN}")
    return Augmentation(shift, flip, resized_crop)


def random_shift(
    images: Tensor, pixels: int, generator: torch.Generator, *, border: float | Sequence[float] = 0.0
) -> Tensor:
    """Move every picture (N, C, H, W) by up to ``pixels`` in each direction.

    Args:
        images: the pictures.
        pixels: how far at most.
        generator: source of the random numbers, on the CPU.
        border: what comes in at the border, one value or one a channel.
    """
    count, channels, height, width = images.shape
    values = torch.as_tensor(border, dtype=images.dtype, device=images.device).reshape(-1, 1, 1)
    padded = values.expand(channels, height + 2 * pixels, width + 2 * pixels).repeat(count, 1, 1, 1)
    padded[:, :, pixels : pixels + height, pixels : pixels + width] = images
    rows, columns = torch.randint(2 * pixels + 1, (2, count, 1), generator=generator).to(images.device)
    rows = rows + torch.arange(height, device=images.device)
    columns = columns + torch.arange(width, device=images.device)
    which = torch.arange(count, device=images.device)
    # Three index tensors around a slice put the channels last.
    return padded[which[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
