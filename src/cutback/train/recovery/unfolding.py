"""What each output of a linear layer or a convolution is a weighted sum of."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.conv import _ConvNd as Convolution
from torch.nn.modules.conv import _ConvTransposeNd as TransposedConvolution

Layer = nn.Linear | Convolution


def is_layer(module: nn.Module) -> bool:
    """Say whether a module is a linear layer or a convolution, not a transposed one."""
    return isinstance(module, nn.Linear | Convolution) and not isinstance(module, TransposedConvolution)


def groups_of(layer: Layer) -> int:
    """Return into how many groups a layer's channels fall: one for a linear layer, all for a depthwise convolution."""
    return layer.groups if isinstance(layer, Convolution) else 1


def fits(layer: Layer, inputs: Tensor, outputs: Tensor) -> bool:
    """Say whether outputs have the shape that a layer's own numbers give for these inputs, samples first."""
    if not isinstance(layer, Convolution):
        return inputs.dim() > 1 and outputs.shape == (*inputs.shape[:-1], len(layer.weight))
    if inputs.dim() != len(layer.kernel_size) + 2:
        return False
    sizes = _padded(layer, inputs[:1]).shape[2:]
    geometry = zip(sizes, layer.kernel_size, layer.stride, layer.dilation, strict=True)
    return outputs.shape == (len(inputs), len(layer.weight), *(_windows(*numbers) for numbers in geometry))


def drawn_positions(layer: Layer, outputs: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Return which positions of a layer's outputs are looked at: all, or as many as are allowed, drawn at random.

    Args:
        layer: the layer.
        outputs: what it put out, (N, C, ...) of a convolution, (N, ..., C) of a linear layer.
        most: how many positions of each sample.
        generator: source of the draw, on the CPU.
    """
    places = outputs.shape[2:] if isinstance(layer, Convolution) else outputs.shape[1:-1]
    count = math.prod(places)
    return torch.arange(count) if count <= most else torch.randperm(count, generator=generator)[:most].sort().values


def unfolded_outputs(layer: Layer, outputs: Tensor, positions: Tensor) -> Tensor:
    """Return outputs at some positions, as rows of each group: (groups, N * positions, channels of a group)."""
    count, groups = len(outputs), groups_of(layer)
    if isinstance(layer, Convolution):
        chosen = outputs.flatten(2)[:, :, positions.to(outputs.device)].movedim(1, 2)
    else:
        chosen = outputs.reshape(count, -1, outputs.shape[-1])[:, positions.to(outputs.device)]
    return chosen.reshape(-1, groups, chosen.shape[-1] // groups).transpose(0, 1)


def unfolded_inputs(layer: Layer, inputs: Tensor, positions: Tensor) -> Tensor:
    """Return what the outputs at some positions are weighted sums of: (groups, N * positions, weights of an output).

    The last dimension is in the order of the layer's weight, flattened from its second dimension on.
    """
    if not isinstance(layer, Convolution):
        return inputs.reshape(len(inputs), -1, inputs.shape[-1])[:, positions.to(inputs.device)].reshape(
            1, -1, inputs.shape[-1]
        )
    padded = _padded(layer, inputs)
    index = _index(layer, padded.shape[2:], positions).to(inputs.device)
    windows = padded.flatten(2)[:, :, index.flatten()]
    count, channels, groups = *padded.shape[:2], layer.groups
    windows = windows.reshape(count, groups, channels // groups, *index.shape)
    return windows.permute(1, 0, 3, 2, 4).reshape(groups, count * len(index), -1)


def _padded(layer: Convolution, inputs: Tensor) -> Tensor:
    """Return inputs (N, C, ...) with the layer's padding around them."""
    sides: list[int] = []
    for kernel, dilation, padding in zip(
        reversed(layer.kernel_size), reversed(layer.dilation), reversed(_padding(layer)), strict=True
    ):
        total = dilation * (kernel - 1)
        sides += [total // 2, total - total // 2] if padding is None else [padding, padding]
    return functional.pad(inputs, sides, mode="constant" if layer.padding_mode == "zeros" else layer.padding_mode)


def _padding(layer: Convolution) -> tuple[int | None, ...]:
    """Return the padding of each spatial dimension; ``None`` for as much as keeps the size."""
    if isinstance(layer.padding, str):
        return (None if layer.padding == "same" else 0,) * len(layer.kernel_size)
    return layer.padding


def _windows(length: int, kernel: int, stride: int, dilation: int) -> int:
    """Return how many windows lie along a dimension of a length, padding included."""
    return (length - dilation * (kernel - 1) - 1) // stride + 1


def _index(layer: Convolution, size: tuple[int, ...], positions: Tensor) -> Tensor:
    """Return where the window of each position lies in a flattened input of a size: (positions, kernel elements)."""
    index = torch.zeros(1, 1, dtype=torch.int64)
    for length, kernel, stride, dilation in zip(size, layer.kernel_size, layer.stride, layer.dilation, strict=True):
        starts = torch.arange(_windows(length, kernel, stride, dilation)) * stride
        offsets = torch.arange(kernel) * dilation
        # Outputs and kernel elements are numbered with the last dimension fastest.
        index = index[:, None, :, None] * length + starts[None, :, None, None] + offsets[None, None, None, :]
        index = index.flatten(2).flatten(0, 1)
    return index[positions]
