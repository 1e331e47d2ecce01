"""The table of networks that come along, and how one is built by its name."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from cutback.errors import UserMistake
from cutback.registry import Registry, near_misses


@dataclass(frozen=True)
class ModelEntry:
    """One network that can be built by its name.

    Attributes:
        build: returns a freshly initialised network; accepts at least ``num_classes`` and ``in_channels``.
        input_shape: shape (C, H, W) of one input where no option is given.
        num_classes: number of outputs where no option is given.
        summary: one line for listings.
    """

    build: Callable[..., nn.Module]
    input_shape: tuple[int, int, int]
    num_classes: int
    summary: str


models: Registry[ModelEntry] = Registry("model", "cutback.models")


def build(name: str, **options: float | str) -> nn.Module:
    """Build a network by its name: ``build("resnet20", num_classes=100)``.

    Args:
        name: a name in ``models``, for instance ``"vgg16"``.
        **options: arguments of the network's class, such as ``num_classes`` and ``in_channels``.

    Returns:
        The network, freshly initialised from PyTorch's global random state, in training mode.

    Raises:
        UnknownName: no network is called that.
        UserMistake: the network has no such option, or refuses the value given.
    """
    entry = models.get(name)
    known = list(inspect.signature(entry.build).parameters)
    for option in options:
        if option not in known:
            raise UserMistake(f"model {name!r} has no option {option!r}; {near_misses(option, known)}")
    return entry.build(**options)
