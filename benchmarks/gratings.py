"""Pictures of oriented gratings in noise: a data set in one line, for experiments of seconds.

Each class is one pair of direction and frequency; the phase of every picture is random, so that no pixel tells the
class and a network has to learn filters.

    train, test = gratings(2000, seed=0), gratings(1000, seed=1)
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

FREQUENCIES = (0.8, 1.6)


def gratings(
    count: int,
    *,
    seed: int,
    size: int = 12,
    channels: int = 1,
    angles: int = 5,
    frequencies: Sequence[float] = FREQUENCIES,
    amplitude: float = 1.0,
    noise: float = 1.5,
) -> tuple[Tensor, Tensor]:
    """Draw pictures ``(count, channels, size, size)`` and their classes ``(count,)``.

    Args:
        count: how many; classes come equally often, in random order.
        seed: the same one gives the same pictures.
        size: height and width in pixels.
        channels: all of them show the same grating, each in noise of its own.
        angles: how many directions, evenly over half a turn.
        frequencies: of the gratings, in radians a pixel.
        amplitude: of the gratings.
        noise: standard deviation of the normal noise that is added.

    Returns:
        The pictures, float32, and the classes ``angle * len(frequencies) + frequency``.

    Example:
        >>> pictures, classes = gratings(40, seed=0)
        >>> pictures.shape, classes.bincount().tolist()
        (torch.Size([40, 1, 12, 12]), [4, 4, 4, 4, 4, 4, 4, 4, 4, 4])
    """
    generator = torch.Generator().manual_seed(seed)
    classes = torch.arange(count) % (angles * len(frequencies))
    classes = classes[torch.randperm(count, generator=generator)]
    angle = classes // len(frequencies) * (math.pi / angles)
    frequency = torch.tensor(frequencies)[classes % len(frequencies)]
    phase = torch.rand(count, generator=generator) * 2 * math.pi
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    along = x * angle.cos()[:, None, None] + y * angle.sin()[:, None, None]
    waves = amplitude * torch.sin(frequency[:, None, None] * along + phase[:, None, None])
    pictures = waves[:, None].expand(count, channels, size, size)
    return pictures + noise * torch.randn(count, channels, size, size, generator=generator), classes
