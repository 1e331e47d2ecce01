"""Networks whose masks are written down by hand: which layer reads which units, channel by channel.

Each class says in ``READS`` for every layer that reads prunable channels the unit of each of its input channels, as a
group's name and how many channels in a row belong to one unit. Explicit masks are then hooks on these layers.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.helpers import randomised


def conv(inputs: int, outputs: int, size: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    layer = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs))


class Basic(nn.Module):
    """Basic blocks of 8 and 16 channels on two streams, and a linear head."""

    READS: ClassVar = {
        **{f"{block}.0": ("stem.0", 1) for block in ("a1", "b1", "shortcut")},
        **{f"{block}.0": ("b2.0", 1) for block in ("c1",)},
        "head": ("b2.0", 1),
        "a2.0": ("a1.0", 1),
        "b2.0": ("b1.0", 1),
        "c2.0": ("c1.0", 1),
    }
    MAKES: ClassVar = {
        "stem.0": {"stem.0", "a2.0"},
        "a1.0": {"a1.0"},
        "b1.0": {"b1.0"},
        "b2.0": {"b2.0", "shortcut.0", "c2.0"},
        "c1.0": {"c1.0"},
    }

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(1, 8)
        self.a1, self.a2 = conv(8, 8), conv(8, 8)
        self.b1, self.b2, self.shortcut = conv(8, 16, stride=2), conv(16, 16), conv(8, 16, 1, 2)
        self.c1, self.c2 = conv(16, 16), conv(16, 16)
        self.head = nn.Linear(16, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = F.relu(self.stem(images))
        x = F.relu(x + self.a2(F.relu(self.a1(x))))
        x = F.relu(self.b2(F.relu(self.b1(x))) + self.shortcut(x))
        x = F.relu(x + self.c2(F.relu(self.c1(x))))
        return self.head(x.mean((2, 3)))


class Grouped(nn.Module):
    """A bottleneck whose middle convolution has four groups."""

    READS: ClassVar = {
        "reduce.0": ("stem.0", 1),
        "middle.0": ("reduce.0", 3),
        "expand.0": ("reduce.0", 2),
        "head": ("stem.0", 1),
    }
    MAKES: ClassVar = {"stem.0": {"stem.0", "expand.0"}, "reduce.0": {"reduce.0", "middle.0"}}

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.reduce = conv(1, 6), conv(6, 12, 1)
        self.middle, self.expand = conv(12, 8, groups=4), conv(8, 6, 1)
        self.head = nn.Linear(6, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = F.relu(self.stem(images))
        x = F.relu(x + self.expand(F.relu(self.middle(F.relu(self.reduce(x))))))
        return self.head(x.mean((2, 3)))


class Inverted(nn.Module):
    """Two inverted residuals: expand, depthwise, project."""

    READS: ClassVar = {
        **{f"{block}_expand.0": ("stem.0", 1) for block in "ab"},
        **{f"{block}_{layer}.0": (f"{block}_expand.0", 1) for block in "ab" for layer in ("depthwise", "project")},
        "head": ("stem.0", 1),
    }
    MAKES: ClassVar = {
        "stem.0": {"stem.0", "a_project.0", "b_project.0"},
        **{f"{block}_expand.0": {f"{block}_expand.0", f"{block}_depthwise.0"} for block in "ab"},
    }

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(1, 5)
        for block in "ab":
            self.add_module(f"{block}_expand", conv(5, 9, 1))
            self.add_module(f"{block}_depthwise", conv(9, 9, groups=9))
            self.add_module(f"{block}_project", conv(9, 5, 1))
        self.head = nn.Linear(5, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = F.relu(self.stem(images))
        for block in "ab":
            inner = F.relu6(getattr(self, f"{block}_expand")(x))
            inner = F.relu6(getattr(self, f"{block}_depthwise")(inner))
            x = x + getattr(self, f"{block}_project")(inner)
        return self.head(x.mean((2, 3)))


class Pyramid(nn.Module):
    """Two pyramid levels and an extra one made of a level, read by one head with two entries."""

    READS: ClassVar = {
        "coarse.0": ("fine.0", 1),
        "lateral_fine": ("fine.0", 1),
        "lateral_coarse": ("coarse.0", 1),
        "smooth_fine": ("lateral_coarse", 1),
        "smooth_coarse": ("lateral_coarse", 1),
        "third": ("smooth_fine", 1),
        "classify": ("smooth_fine", 1),
        "locate": ("smooth_fine", 1),
        "classes": ("classify", 1),
        "boxes": ("locate", 1),
    }
    MAKES: ClassVar = {
        "fine.0": {"fine.0"},
        "coarse.0": {"coarse.0"},
        "lateral_coarse": {"lateral_fine", "lateral_coarse"},
        "smooth_fine": {"smooth_fine", "smooth_coarse", "third"},
        "classify": {"classify"},
        "locate": {"locate"},
    }

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = conv(1, 6, stride=2), conv(6, 7, stride=2)
        self.lateral_fine, self.lateral_coarse = nn.Conv2d(6, 5, 1), nn.Conv2d(7, 5, 1)
        self.smooth_fine, self.smooth_coarse = nn.Conv2d(5, 5, 3, padding=1), nn.Conv2d(5, 5, 3, padding=1)
        self.third = nn.Conv2d(5, 5, 3, 2, padding=1)
        self.classify, self.locate = nn.Conv2d(5, 4, 3, padding=1), nn.Conv2d(5, 3, 3, padding=1)
        self.classes, self.boxes = nn.Conv2d(4, 10, 1), nn.Conv2d(3, 4, 1)

    def forward(self, images: Tensor) -> Tensor:
        fine = F.relu(self.fine(images))
        coarse = F.relu(self.coarse(fine))
        top = self.lateral_coarse(coarse)
        below = self.lateral_fine(fine) + F.interpolate(top, scale_factor=2.0, mode="nearest")
        levels = [self.smooth_fine(below), self.smooth_coarse(top)]
        levels.append(self.third(F.relu(levels[1])))
        found = [self.classes(F.relu(self.classify(level))).flatten(2) for level in levels]
        sizes = [self.boxes(F.relu(self.locate(level))).flatten(2) for level in levels]
        return torch.cat([torch.cat(found, 2).mean(2), torch.cat(sizes, 2).mean(2)], 1)


class TwoStages(nn.Module):
    """Features read by a region proposal convolution and, region by region, by a fully connected box head.

    The regions of an image are its four quarters: four rows of the box head's batch for each image.
    """

    REGIONS = 4
    READS: ClassVar = {
        "propose": ("features.0", 1),
        "box": ("features.0", 9),
        "objectness": ("propose", 1),
        "classes": ("box", 1),
    }
    MAKES: ClassVar = {"features.0": {"features.0"}, "propose": {"propose"}, "box": {"box"}}

    def __init__(self) -> None:
        super().__init__()
        self.features = conv(1, 6, stride=2)
        self.propose, self.objectness = nn.Conv2d(6, 5, 3, padding=1), nn.Conv2d(5, 1, 1)
        self.box, self.classes = nn.Linear(6 * 9, 7), nn.Linear(7, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = F.relu(self.features(images))
        regions = torch.stack([x[..., :3, :3], x[..., :3, 3:], x[..., 3:, :3], x[..., 3:, 3:]], 1)
        found = self.classes(F.relu(self.box(regions.flatten(0, 1).flatten(1))))
        proposed = self.objectness(F.relu(self.propose(x))).mean((1, 2, 3))
        return found.unflatten(0, (-1, self.REGIONS)).mean(1) * proposed.sigmoid()[:, None]


NETWORKS = (Basic, Grouped, Inverted, Pyramid, TwoStages)


def made(network: Callable[[], nn.Module]) -> nn.Module:
    return randomised(network())


def units(network: type) -> dict[str, int]:
    """Return how many units each group has, by the widths of the layers that make and read it."""
    model, found = network(), {}
    for path, (group, channels) in network.READS.items():
        layer = model.get_submodule(path)
        width = layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels
        found[group] = width // channels
    return found


@contextmanager
def masks(model: nn.Module, given: dict[str, Tensor], *, apart: bool = False) -> Iterator[dict[str, list[Tensor]]]:
    """Multiply what layers read by explicit masks ``(N, units)``, one for each group, with hooks on the layers.

    Yields for each group the masks that were used: the given one at all places or, ``apart``, a copy for each call.
    """
    used = {group: [] if apart else [mask] for group, mask in given.items()}

    def masked(group: str, channels: int):
        def hook(_: nn.Module, inputs: tuple[Tensor]) -> Tensor:
            mask = given[group]
            if apart:
                mask = mask.detach().clone().requires_grad_()
                used[group].append(mask)
            wide = mask.repeat_interleave(channels, 1).repeat_interleave(len(inputs[0]) // len(mask), 0)
            return inputs[0] * wide.view(*wide.shape, *[1] * (inputs[0].dim() - 2))

        return hook

    handles = [
        model.get_submodule(path).register_forward_pre_hook(masked(group, channels))
        for path, (group, channels) in model.READS.items()
    ]
    try:
        yield used
    finally:
        for handle in handles:
            handle.remove()
