"""What is subtracted from pixels, and what they are divided by: of the data itself, or of a named preset."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cutback.errors import DataError

PRESETS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "mnist": ((0.1307,), (0.3081,)),
    "half": ((0.5,), (0.5,)),
    "none": ((0.0,), (1.0,)),
}
OF_DATA = "data"
BRIGHTEST = 255
WRITTEN = f"{OF_DATA}, {', '.join(PRESETS)}, or numbers such as 0.5,0.5,0.5/0.25,0.25,0.25 (means / deviations)"


@dataclass(frozen=True)
class Normalisation:
    """What is done to pixels in 0..1, one number a channel.

    Attributes:
        mean: what is subtracted.
        std: what they are then divided by.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return a float32 copy of pictures (..., C, H, W), uint8 in 0..255 or float in 0..1."""
        mean, std = (torch.tensor(values, device=pixels.device)[:, None, None] for values in (self.mean, self.std))
        scaled = pixels.float().div_(BRIGHTEST) if pixels.dtype == torch.uint8 else pixels.float().clone()
        return scaled.sub_(mean).div_(std)


def normalisation(text: str | None, pictures: Tensor) -> Normalisation:
    """Return what is done to the pixels of some data.

    Args:
        text: ``"data"`` or ``None``, a preset, or the numbers.
        pictures: training pictures (N, C, H, W), uint8 in 0..255 or float in 0..1.

    Raises:
        DataError: the text is written in another way, or belongs to pictures with more or fewer channels.
    """
    channels = pictures.shape[1]
    if text is None or text == OF_DATA:
        return _of(pictures)
    mean, std = PRESETS[text] if text in PRESETS else _numbers(text)
    if len(mean) == 1:
        mean, std = mean * channels, std * channels
    if len(mean) != channels:
        raise DataError(
            f"normalisation {text!r} is of {len(mean)} channels, the pictures have {channels}; use {OF_DATA}"
        )
    return Normalisation(tuple(mean), tuple(std))


def check_normalisation(text: str | None) -> None:
    """Refuse a normalisation that cannot be read.

    Raises:
        DataError: says how to write one.
    """
    if text is not None and text != OF_DATA and text not in PRESETS:
        _numbers(text)


def _numbers(text: str) -> tuple[Sequence[float], Sequence[float]]:
    """Read ``MEAN,.../STD,...``."""
    try:
        mean, std = (tuple(float(number) for number in part.split(",")) for part in text.split("/"))
    except ValueError:
        mean, std = (), ()
    if not mean or len(mean) != len(std) or not all(deviation > 0 for deviation in std):
        raise DataError(f"cannot read the normalisation {text!r}; write {WRITTEN}")
    return mean, std


def _of(pictures: Tensor) -> Normalisation:
    """Return mean and standard deviation of each channel; a channel that is constant is not divided."""
    scaled = Normalisation((0.0,), (1.0,))(pictures)
    mean, std = scaled.mean((0, 2, 3)), scaled.std((0, 2, 3), correction=0)
    return Normalisation(tuple(mean.tolist()), tuple(torch.where(std > 0, std, 1.0).tolist()))
