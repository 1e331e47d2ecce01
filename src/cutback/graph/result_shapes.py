"""Results of frequent operators on meta tensors, without running their kernels.

Only where the answer is beyond doubt: contiguous floating-point arguments that fit. Everything else is left to torch,
whose kernels also raise the errors.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch._ops import OpOverload

_ATEN = torch.ops.aten
_POINTWISE = ("relu", "hardswish", "hardsigmoid", "silu", "sigmoid", "hardtanh", "relu6", "tanh", "leaky_relu", "elu")
_NEW = {getattr(_ATEN, name).default for name in _POINTWISE} | {_ATEN.gelu.default}
_IN_PLACE = {getattr(_ATEN, f"{name}_").default for name in _POINTWISE}


def quick_result(func: OpOverload, args: Sequence[object]) -> Tensor | None:
    """Return the result of an operator on meta tensors, or ``None`` where its kernel has to be run.

    Args:
        func: the operator.
        args: its arguments, all positional; tensors are meta tensors.
    """
    if not args:
        return None
    source = args[0]
    if not isinstance(source, Tensor) or not source.is_floating_point() or not source.is_contiguous():
        return None
    if func in _IN_PLACE:
        return source
    if func in _NEW:
        return torch.empty_like(source)
    special = _SPECIAL.get(func)
    return special(source, args) if special else None


def _batch_norm(source: Tensor, args: Sequence[object]) -> Tensor | None:
    """Answer ``batch_norm(input, weight, bias, running_mean, running_var, ...)``."""
    if source.dim() < 2 or not source.numel():
        return None
    shape = source.shape[1:2]
    fits = all(value is None or (isinstance(value, Tensor) and value.shape == shape) for value in args[1:5])
    return torch.empty_like(source) if fits else None


def _layer_norm(source: Tensor, args: Sequence[object]) -> Tensor | None:
    """Answer ``layer_norm(input, normalized_shape, weight, bias, ...)``."""
    shape = tuple(args[1])  # type: ignore[arg-type]
    fits = tuple(source.shape[source.dim() - len(shape) :]) == shape and all(
        value is None or (isinstance(value, Tensor) and tuple(value.shape) == shape) for value in args[2:4]
    )
    return torch.empty_like(source) if fits else None


def _conv2d(source: Tensor, args: Sequence[object]) -> Tensor | None:
    """Answer ``conv2d(input, weight, bias, stride, padding, dilation, groups)`` of a batch."""
    weight, bias, strides, paddings, dilations, groups = [*args[1:], *_CONVOLUTION_DEFAULTS[len(args) - 1 :]]
    if not isinstance(weight, Tensor) or source.dim() != 4 or weight.dim() != 4 or weight.dtype != source.dtype:
        return None
    out, inner, *kernel = weight.shape
    batch, channels, *sizes = source.shape
    fits = (
        weight.is_contiguous()
        and channels == inner * groups  # type: ignore[operator]
        and groups > 0  # type: ignore[operator]
        and out % groups == 0  # type: ignore[operator]
        and out * channels * batch > 0
        and (bias is None or (isinstance(bias, Tensor) and bias.shape == (out,) and bias.dtype == source.dtype))
        and all(len(values) == 2 for values in (strides, paddings, dilations))  # type: ignore[arg-type]
    )
    if not fits:
        return None
    for position, (stride, padding, dilation) in enumerate(zip(strides, paddings, dilations, strict=True)):  # type: ignore[call-overload]
        room = sizes[position] + 2 * padding - dilation * (kernel[position] - 1) - 1
        if stride < 1 or padding < 0 or dilation < 1 or room < 0:
            return None
        sizes[position] = room // stride + 1
    return torch.empty((batch, out, *sizes), dtype=source.dtype, device="meta")


_CONVOLUTION_DEFAULTS = (None, None, (1, 1), (0, 0), (1, 1), 1)
_SPECIAL: dict[OpOverload, Callable[[Tensor, Sequence[object]], Tensor | None]] = {
    _ATEN.batch_norm.default: _batch_norm,
    _ATEN.layer_norm.default: _layer_norm,
    _ATEN.conv2d.default: _conv2d,
}
