"""Pictures that are decoded when they are asked for, where all together would not fit into memory."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cutback.train.normalisation import Normalisation
from cutback.train.pictures import Pictures, Shape, decode, pixels_of, read_picture

AREA = 0.08, 1.0
RATIO = 3 / 4, 4 / 3
ATTEMPTS = 10


@dataclass(frozen=True, eq=False)
class LazyPictures:
    """A dataset of (image, label) that decodes an image each time.

    Attributes:
        pictures: the collection.
        labels: class of each picture (N,).
        shape: shape (C, H, W) of the images.
        normalise: what is done to their pixels.
        resize: whether pictures of another size are resized, see ``read_picture``.
        resized_crop: whether a part of each picture, drawn from torch's global generator, is resized to the shape.
    """

    pictures: Pictures
    labels: Tensor
    shape: Shape
    normalise: Normalisation
    resize: bool
    resized_crop: bool = False

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if self.resized_crop:
            pixels = self._crop(index)
        else:
            pixels = read_picture(self.pictures, index, self.shape, resize=self.resize)
        return self.normalise(pixels), int(self.labels[index])

    def _crop(self, index: int) -> Tensor:
        channels, height, width = self.shape
        picture = decode(self.pictures, index, channels)
        box = random_box(picture.height, picture.width)
        return pixels_of(picture.resize((width, height), box=box))


def random_box(height: int, width: int) -> tuple[int, int, int, int]:
    """Draw a part of a picture from torch's global generator (Szegedy 2015, section 6).

    Its area is 8 % to all of the picture's, its width over its height 3:4 to 4:3, on a logarithmic scale. Where none
    of ten draws lies inside the picture it is the largest part of the nearest such ratio, in the centre.

    Returns:
        Left, upper, right and lower edge, in pixels.
    """
    low, high = (math.log(ratio) for ratio in RATIO)
    for _ in range(ATTEMPTS):
        share, ratio = torch.rand(2).tolist()
        area = height * width * (AREA[0] + share * (AREA[1] - AREA[0]))
        shape = math.exp(low + ratio * (high - low))
        columns, rows = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
        if 0 < columns <= width and 0 < rows <= height:
            left, upper = (int(torch.randint(room + 1, ())) for room in (width - columns, height - rows))
            return left, upper, left + columns, upper + rows
    columns, rows = min(width, round(height * RATIO[1])), min(height, round(width / RATIO[0]))
    left, upper = (width - columns) // 2, (height - rows) // 2
    return left, upper, left + columns, upper + rows
