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
        return _alike(source)
    special = _SPECIAL.get(func)
    return special(source, args) if special else None


def _alike(source: Tensor) -> Tensor:
    """Return what ``torch.empty_like`` does, which takes a way through Python on meta tensors."""
    return torch.empty_strided(source.shape, source.stride(), dtype=source.dtype, device="meta")


def _sum_or_product(source: Tensor, args: Sequence[object]) -> Tensor | None:
    """Answer ``add(self, other)`` and ``mul(self, other)`` of one shape, or with one factor a channel."""
    other = args[1]
    if len(args) != 2 or not isinstance(other, Tensor) or other.dtype != source.dtype or not other.is_contiguous():
        return None
    if other.shape == source.shape and other.stride() == source.stride():
        return _alike(source)
    for full, factor in ((source, other), (other, source)):
        if full.dim() == 4 and min(full.shape[1:]) > 1 and factor.shape == (*full.shape[:2], 1, 1):
            return _alike(full)
    return None


def _added_in_place(source: Tensor, args: Sequence[object]) -> Tensor | None:
    """Answer ``add_(self, other)`` of one shape."""
    other = args[1]
    fits = len(args) == 2 and isinstance(other, Tensor) and other.dtype == source.dtype and other.shape == source.shape
    return source if fits else None


def _adaptive_avg_pool2d(source: Tensor, args: Sequence[object]) -> Tensor | None:
    """Answer ``adaptive_avg_pool2d(input, (1, 1))`` of a batch."""
    if source.dim() != 4 or tuple(args[1]) != (1, 1) or min(source.shape[1:]) < 2 or not source.shape[0]:  # type: ignore[arg-type]
        return None
    return torch.empty((*source.shape[:2], 1, 1), dtype=source.dtype, device="meta")


def _batch_norm(source: Tensor, args: Sequence[object]) -> Tensor | None:
    """Answer ``batch_norm(input, weight, bias, running_mean, running_var, ...)``."""
    if source.dim() < 2 or not source.numel():
        return None
    shape = source.shape[1:2]
    fits = all(value is None or (isinstance(value, Tensor) and value.shape == shape) for value in args[1:5])
    return _alike(source) if fits else None


def _layer_norm(source: Tensor, args: Sequence[object]) -> Tensor | None:
    """Answer ``layer_norm(input, normalized_shape, weight, bias, ...)``."""
    shape = tuple(args[1])  # type: ignore[arg-type]
    fits = tuple(source.shape[source.dim() - len(shape) :]) == shape and all(
        value is None or (isinstance(value, Tensor) and tuple(value.shape) == shape) for value in args[2:4]
    )
    return _alike(source) if fits else None


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
    _ATEN.adaptive_avg_pool2d.default: _adaptive_avg_pool2d,
    _ATEN.add.Tensor: _sum_or_product,
    _ATEN.mul.Tensor: _sum_or_product,
    _ATEN.add_.Tensor: _added_in_place,
}
