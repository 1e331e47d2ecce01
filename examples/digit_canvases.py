"""Handwritten digits strewn over canvases, for detectors: MNIST where its files are, else scikit-learn's digits."""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import TensorDataset

from cutback.models.boxes import overlaps
from cutback.train.idx import read_idx

MNIST = Path(__file__).resolve().parents[2] / "shared" / "data" / "MNIST" / "raw"
SIZE, MOST = 64, 4
SMALLEST, LARGEST = 12, 36
NOISE, CROWDED = 0.15, 0.05
HELD_OUT = 5000


def canvases(
    count: int, pictures: Tensor, labels: Tensor, *, seed: int, size: int = SIZE, most: int = MOST
) -> TensorDataset:
    """Put digits on noisy canvases: one to ``most``, 12 to 36 pixels high, hardly overlapping.

    Args:
        count: how many canvases.
        pictures: single digits (N, H, W) in 0..1.
        labels: their classes (N,).
        seed: the same one gives the same canvases.
        size: height and width of a canvas in pixels.
        most: digits on a canvas.

    Returns:
        Canvases (count, 1, size, size) and targets (count, most, 5): the edges of each digit's box (left, top, right,
        bottom) in pixels, and its class; rows of -1 where there is no digit.
    """
    generator = torch.Generator().manual_seed(seed)
    images = NOISE * torch.randn(count, 1, size, size, generator=generator)
    targets = torch.full((count, most, 5), -1.0)
    for image, target in zip(images, targets, strict=True):
        placed = 0
        for _ in range(_draw(1, most, generator)):
            number = _draw(0, len(pictures) - 1, generator)
            digit = _resized(pictures[number], _draw(SMALLEST, LARGEST, generator))
            height, width = digit.shape
            top, left = _draw(0, size - height, generator), _draw(0, size - width, generator)
            box = torch.tensor([left, top, left + width, top + height], dtype=torch.float32)
            if not (overlaps(box[None], target[:placed, :4]) > CROWDED).any():
                image[0, top : top + height, left : left + width] += digit
                target[placed] = torch.cat([box, labels[number, None].float()])
                placed += 1
    return TensorDataset(images, targets)


def digits() -> dict[str, tuple[Tensor, Tensor]]:
    """Return single digits (N, H, W) in 0..1 and their classes, for ``train``, ``validation`` and ``test``."""
    if (MNIST / "train-images-idx3-ubyte.gz").is_file():
        (images, labels), test = _mnist("train"), _mnist("t10k")
        first = len(images) - HELD_OUT
        return {"train": (images[:first], labels[:first]), "validation": (images[first:], labels[first:]), "test": test}
    from sklearn.datasets import load_digits  # noqa: PLC0415 (slow to import, and only needed without MNIST)

    held = load_digits()
    images, labels = torch.tensor(held.images, dtype=torch.float32) / 16, torch.tensor(held.target)
    parts = zip(("train", "validation", "test"), images.split(1100), labels.split(1100), strict=False)
    found = {name: (own, classes) for name, own, classes in parts}
    half = len(found["validation"][0]) // 2
    own, classes = found["validation"]
    return {**found, "validation": (own[:half], classes[:half]), "test": (own[half:], classes[half:])}


def _mnist(split: str) -> tuple[Tensor, Tensor]:
    images = read_idx(MNIST / f"{split}-images-idx3-ubyte.gz", dimensions=3)
    return images.float() / 255, read_idx(MNIST / f"{split}-labels-idx1-ubyte.gz", dimensions=1).long()


def _resized(picture: Tensor, height: int) -> Tensor:
    """Return what is drawn on a picture, without its margins, so many pixels high and as wide as it should be then."""
    rows, columns = (picture > 0.1).any(1).nonzero(), (picture > 0.1).any(0).nonzero()
    drawn = picture[int(rows.min()) : int(rows.max()) + 1, int(columns.min()) : int(columns.max()) + 1]
    width = max(3, min(height, round(height * drawn.shape[1] / drawn.shape[0])))
    return functional.interpolate(drawn[None, None], (height, width), mode="bilinear", align_corners=False)[0, 0]


def _draw(low: int, high: int, generator: torch.Generator) -> int:
    return int(torch.randint(low, high + 1, (), generator=generator))
