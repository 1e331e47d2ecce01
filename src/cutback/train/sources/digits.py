"""``digits``: the 1,797 handwritten digits of 8x8 pixels that come with scikit-learn."""

from typing import Any

import torch

from cutback.errors import DataError
from cutback.train.assembly import data_from_tensors
from cutback.train.augmentation import Augmentation
from cutback.train.data import Data, Options, data_sources

BRIGHTEST = 16


@data_sources.register("digits")
def load_digits(argument: str, options: Options) -> Data:
    """Load the digits, pictures (1, 8, 8), cut 60 : 20 : 20; training moves them by up to one pixel.

    Raises:
        DataError: scikit-learn is not installed, or ``argument`` is not empty.
    """
    if argument:
        raise DataError(f"data 'digits' takes no argument, but {argument!r} was given; write just: digits")
    try:
        from sklearn import datasets  # noqa: PLC0415 (optional, and slow to import)
    except ImportError as error:
        raise DataError("data 'digits' needs scikit-learn; install it with: pip install scikit-learn") from error
    digits: Any = datasets.load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / BRIGHTEST
    names = [str(name) for name in digits.target_names]
    pictures = images, torch.tensor(digits.target)
    return data_from_tensors(
        "digits", {"train": pictures}, options, class_names=names, augmentation=Augmentation(shift=1)
    )
