"""Filters' pictures for people to look at: one file each, and all of them on one contact sheet."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cutback.methods.functionality.png import Pixels, png

SIDE, FRAME, GAP, ACROSS = 40, 2, 4, 24
"""Pictures on the sheet are at least so many pixels wide, framed; so many stand in a row."""
WHITE, GREY, GREEN, RED = (255, 255, 255), (160, 160, 160), (30, 150, 60), (200, 40, 40)
_GLYPHS = {
    "0": (7, 5, 5, 5, 7),
    "1": (2, 6, 2, 2, 7),
    "2": (7, 1, 7, 4, 7),
    "3": (7, 1, 7, 1, 7),
    "4": (5, 5, 7, 1, 1),
    "5": (7, 4, 7, 1, 7),
    "6": (7, 4, 7, 5, 7),
    "7": (7, 1, 2, 2, 2),
    "8": (7, 5, 7, 5, 7),
    "9": (7, 5, 7, 1, 7),
}
"""Digits of three by five dots, a number a row."""


@dataclass(frozen=True, eq=False)
class Row:
    """A layer on the sheet.

    Attributes:
        name: of the layer.
        pictures: of its filters, ``(units, C, height, width)``.
        numbers: what each filter is called.
        clusters: the cluster of each; -1 for dead ones.
        kept: which stay; ``None`` where that is not settled.
    """

    name: str
    pictures: Tensor
    numbers: Sequence[int]
    clusters: Sequence[int]
    kept: Sequence[bool] | None = None


def as_pixels(picture: Tensor, low: float, high: float) -> Pixels:
    """Return a picture (C, H, W) as (H, W, 3): in colour where it has three channels, else the mean of all in grey."""
    values = picture.detach().double().numpy()
    values = values if len(values) == 3 else np.repeat(values.mean(axis=0, keepdims=True), 3, axis=0)
    scaled = (values - low) / (high - low) * 255
    return np.clip(np.round(scaled), 0, 255).astype(np.uint8).transpose(1, 2, 0)


def contact_sheet(rows: Sequence[Row], low: float, high: float) -> bytes:
    """Return a PNG of all layers, one below the other, each with its filters by cluster, the repeats side by side.

    Filters that stay are framed green, removed ones red; below each stands its number. A clear gap parts clusters.

    Args:
        rows: the layers.
        low: value of black pixels.
        high: value of white ones.
    """
    bands = [band for row in rows for band in _bands(row, low, high)]
    width = max(band.shape[1] for band in bands) + 2 * GAP
    rule = np.broadcast_to(np.array(WHITE, np.uint8), (GAP, width, 3))
    parts = [rule]
    for band in bands:
        padded = _blank(band.shape[0], width)
        padded[:, GAP : GAP + band.shape[1]] = band
        parts += [padded, rule]
    return png(np.concatenate(parts))


def files(rows: Sequence[Row], low: float, high: float, suffix: str = "") -> dict[str, bytes]:
    """Return the sheet and one PNG a filter, by file name.

    Args:
        rows: the layers.
        low: value of black pixels.
        high: value of white ones.
        suffix: what is added to each name.
    """
    found = {f"contact_sheet{suffix}.png": contact_sheet(rows, low, high)}
    for row in rows:
        for picture, number in zip(row.pictures, row.numbers, strict=True):
            name = "".join(c if c.isalnum() or c in "._-" else "_" for c in row.name)
            found[f"{name}.{number}{suffix}.png"] = png(_enlarged(as_pixels(picture, low, high)))
    return found


def _bands(row: Row, low: float, high: float) -> list[Pixels]:
    """Return the lines of a layer: pictures in the order of their clusters, after a dark bar that begins the layer."""
    order = sorted(range(len(row.numbers)), key=lambda place: (row.clusters[place], row.numbers[place]))
    tiles: list[Pixels] = []
    for before, place in zip([None, *order], order, strict=False):
        colour = GREY if row.kept is None else GREEN if row.kept[place] else RED
        tile = _tile(_enlarged(as_pixels(row.pictures[place], low, high)), row.numbers[place], colour)
        new = before is None or row.clusters[before] != row.clusters[place]
        gap = _blank(tile.shape[0], GAP if not new else 3 * GAP)
        tiles.append(np.concatenate([gap, tile], axis=1))
    lines = [tiles[start : start + ACROSS] for start in range(0, len(tiles), ACROSS)]
    bands = [np.concatenate(line, axis=1) for line in lines]
    bar = np.zeros((FRAME, max(band.shape[1] for band in bands), 3), np.uint8)
    return [bar, *bands]


def _tile(picture: Pixels, number: int, colour: Sequence[int]) -> Pixels:
    """Return a framed picture with its number below."""
    framed = np.empty((picture.shape[0] + 2 * FRAME, picture.shape[1] + 2 * FRAME, 3), np.uint8)
    framed[:] = colour
    framed[FRAME:-FRAME, FRAME:-FRAME] = picture
    label = _blank(8, framed.shape[1])
    for place, digit in enumerate(str(number)):
        for line, dots in enumerate(_GLYPHS[digit]):
            for column in range(3):
                if dots >> (2 - column) & 1 and 4 * place + column < label.shape[1]:
                    label[line + 2, 4 * place + column] = 0
    return np.concatenate([framed, label])


def _enlarged(pixels: Pixels) -> Pixels:
    """Return pixels, each made as many as it takes for the picture to be wide enough."""
    times = max(1, -(-SIDE // max(pixels.shape[:2])))
    return pixels.repeat(times, axis=0).repeat(times, axis=1)


def _blank(height: int, width: int) -> NDArray[np.uint8]:
    return np.full((height, width, 3), 255, np.uint8)


def index(rows: Sequence[Row]) -> list[Mapping[str, object]]:
    """Return what the sheet shows, layer by layer from the top, for JSON."""
    return [
        {
            "layer": row.name,
            "filters": list(row.numbers),
            "clusters": list(row.clusters),
            "kept": None if row.kept is None else [n for n, stays in zip(row.numbers, row.kept, strict=True) if stays],
        }
        for row in rows
    ]
