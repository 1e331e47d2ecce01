"""How the scales of a network are distributed."""

from collections.abc import Iterable

import numpy as np
from torch import Tensor

BINS = 50


def histogram(scales: Iterable[Tensor]) -> dict[str, list[float] | list[int]]:
    """Return the counts of absolute scales in equal bins from zero to the largest.

    Args:
        scales: of each norm, ``(C,)``.

    Returns:
        ``edges`` (one more than bins) and ``counts``, for JSON.

    Example:
        >>> import torch
        >>> histogram([torch.tensor([0.0, -1.0]), torch.tensor([0.01])])["counts"][:2]
        [2, 0]
    """
    every = np.concatenate([own.detach().abs().cpu().double().flatten().numpy() for own in scales])
    counts, edges = np.histogram(every, bins=BINS, range=(0.0, max(float(every.max(initial=0.0)), 1e-12)))
    return {"edges": edges.tolist(), "counts": counts.tolist()}
