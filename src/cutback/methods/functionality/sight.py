"""What one position of a layer sees of a picture, and the layer run on just that part."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from cutback.errors import UserMistake
from cutback.gates import Place, find_places, stream_groups
from cutback.gates.live import LiveCapture, captured
from cutback.gates.walking import Walk
from cutback.graph.clone import state_tensors
from cutback.graph.graph import Graph

TRIED = 4
SAME = 1e-4
"""So far at most, relative to the largest, may a cropped picture's objectives be from a whole one's."""
Box = tuple[int, int, int, int]
"""Top, bottom, left and right, in pixels; the second of each pair is not in it."""


@dataclass(frozen=True)
class Sight:
    """What the middle position of a place sees.

    Attributes:
        crop: the part of a picture that the layers are run on, of the whole picture.
        seen: the part of the crop that the position sees.
        position: the position in what the crop gives, one number a dimension that carries positions.
    """

    crop: Box
    seen: Box
    position: tuple[int, ...]

    def of(self, pictures: Tensor) -> Tensor:
        """Return what is seen of cropped pictures, (N, C, height, width)."""
        top, bottom, left, right = self.seen
        return pictures[:, :, top:bottom, left:right]


def picture_shape(graph: Graph) -> tuple[int, int, int]:
    """Return channels, height and width of the pictures that a model is given.

    Raises:
        UserMistake: it is given something else.
    """
    tensors = graph.inputs.tensors()
    if len(tensors) != 1 or tensors[0].dim() != 4 or not tensors[0].is_floating_point():
        raise UserMistake(
            "functionality shows what filters look for in pictures (N, C, H, W); the model is given inputs of shape "
            f"{graph.inputs.describe()}; use another method"
        )
    channels, height, width = tensors[0].shape[1:]
    return channels, height, width


def places_of(graph: Graph, group: str, site: str) -> list[Place]:
    """Return where a group's functions are looked at, in eval mode.

    The last place of a site: of a pointwise layer with a depthwise one behind it, what the depthwise one puts out. All
    of them for the channels of a stream, which each block adds to.

    Args:
        graph: the traced model.
        group: name of the group.
        site: see ``cutback.gates``.
    """
    places = find_places(graph, 0, site, [group])
    return places if group in stream_groups(graph) else places[-1:]


class Objective:
    """What the units of a group put out at one place, for as many pictures at once.

    Args:
        graph: the traced model, in eval mode.
        place: the place.
        number: number of the group.
        count: how many pictures at once.

    Raises:
        UserMistake: samples do not come first there.
    """

    def __init__(self, graph: Graph, place: Place, number: int, count: int) -> None:
        shape = picture_shape(graph)
        like = graph.inputs.tensors()[0]
        self._inputs = graph.inputs.replaced([like.new_zeros(count, *shape)])
        self._live: LiveCapture = captured(graph, self._inputs, dropout=False)
        self._states = {name: tensor.detach() for name, tensor in state_tensors(graph.model).items()}
        self._node: fx.Node = self._live.source(place)
        self._stop = self._live.capture.nodes.index(self._node) + 1
        value = self._node.meta["val"]
        if value.shape[0] != count:
            raise UserMistake(f"{place.where} does not have its samples first; leave the layer out with ignore")
        self._along = [d for d in range(1, value.dim()) if place.group.shape[d] > 1]
        self._others = [d for d in range(1, value.dim()) if d not in self._along]
        self.sizes = tuple(int(value.shape[d]) for d in self._others)
        self._index = _channels(place, number)

    def everywhere(self, pictures: Tensor) -> Tensor:
        """Return what each unit puts out at each position: (N, units, positions...), channels of a unit summed."""
        given = [*(self._states[name] for name in self._live.capture.states), pictures]
        walk = Walk(self._live.capture, dict(zip(self._live.capture.nodes, given, strict=False)))
        walk.until(self._stop)
        value = walk.values[self._node]
        if not isinstance(value, Tensor):
            raise TypeError(f"{self._node} puts out no tensor")
        sizes = [value.shape[d] for d in self._others]
        table = value.permute(0, *self._along, *self._others).reshape(len(value), -1, *sizes)
        return table[:, self._index.to(table.device)].sum(2)

    def at(self, pictures: Tensor, position: Sequence[int]) -> Tensor:
        """Return what each unit puts out at one position, (N, units)."""
        return self.everywhere(pictures)[(slice(None), slice(None), *position)]


def sight_of(graph: Graph, place: Place, number: int) -> Sight:
    """Find what the middle position of a place sees, and a crop of the picture that gives the same there.

    What depends on the whole picture, or on its size, is looked at whole.

    Args:
        graph: the traced model, in eval mode.
        place: the place.
        number: number of the group.
    """
    shape, like = picture_shape(graph), graph.inputs.tensors()[0]
    objective = Objective(graph, place, number, TRIED)
    middle = tuple(size // 2 for size in objective.sizes)
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randn(TRIED, *shape, generator=generator).to(like.device, like.dtype).requires_grad_()
    with torch.enable_grad():
        outputs = objective.at(pictures, middle)
        (gradient,) = torch.autograd.grad(outputs.sum(), [pictures])
    reached = gradient.abs().sum((0, 1)) > 0
    seen = _bounds(reached)
    whole = Sight((0, shape[1], 0, shape[2]), seen, middle)
    if len(objective.sizes) != 2:
        return whole
    strides = [max(1, round(pixels / size)) for pixels, size in zip(shape[1:], objective.sizes, strict=True)]
    crop = _aligned(seen, strides, shape[1:])
    if crop == whole.crop:
        return whole
    top, bottom, left, right = crop
    with torch.no_grad():
        try:
            found = objective.everywhere(pictures.detach()[:, :, top:bottom, left:right])
        except RuntimeError:  # sizes are written into the code
            return whole
        if found.dim() != 4:
            return whole
        apart = (found - outputs.detach()[:, :, None, None]).abs().amax((0, 1))
    if float(apart.min()) > SAME * float(outputs.abs().max()):
        return whole
    place_in_crop = divmod(int(apart.argmin()), apart.shape[1])
    inner = seen[0] - top, seen[1] - top, seen[2] - left, seen[3] - left
    return Sight(crop, inner, place_in_crop)


def _channels(place: Place, number: int) -> Tensor:
    """Return for each unit the places of its channels among those of an activation, (units, channels a unit).

    Raises:
        UserMistake: units have unequally many there.
    """
    labels = np.where(place.group == number, place.unit, -1).reshape(-1)
    counts: NDArray[np.int64] = np.bincount(labels[labels >= 0])
    if (counts != counts[0]).any():
        raise UserMistake(f"not all units have equally many channels at {place.where}; leave it out with ignore")
    order = np.argsort(labels, kind="stable")[len(labels) - counts.sum() :]
    return torch.from_numpy(order.reshape(len(counts), -1))


def _bounds(reached: Tensor) -> Box:
    """Return the box around all pixels that are reached; the whole picture where none is."""
    if not bool(reached.any()):
        return 0, reached.shape[0], 0, reached.shape[1]
    rows, columns = reached.any(1).nonzero().flatten(), reached.any(0).nonzero().flatten()
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def _aligned(box: Box, strides: Sequence[int], shape: Sequence[int]) -> Box:
    """Return a box that begins and ends at whole strides."""
    top, bottom, left, right = box
    down, across = strides
    return (
        top // down * down,
        min(shape[0], ceil(bottom / down) * down),
        left // across * across,
        min(shape[1], ceil(right / across) * across),
    )
