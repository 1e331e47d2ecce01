"""Reductions over dimensions that carry no channels, and softmax-like operators along them."""

from torch import Tensor

from cutback.graph.interpret import Call, Labels, Refused, rules
from cutback.graph.labels import varies, varying_dimensions

_REDUCTIONS = (
    "mean",
    "sum",
    "amax",
    "amin",
    "var",
    "std",
    "prod",
    "linalg_vector_norm",
    "norm",
    "logsumexp",
    "max",
    "min",
)
_ALONG = ("softmax", "log_softmax", "_softmax", "cumsum", "sort")


@rules.register(*(f"aten::{name}" for name in _REDUCTIONS))
def reduce(call: Call) -> Labels:
    """Drop dimensions along which labels are constant."""
    if isinstance(call.arguments.get("other"), Tensor):
        raise Refused("compares two tensors; use maximum or minimum")
    labels = call.as_labels(next(iter(call.arguments.values())))
    dimensions = _dimensions(call, labels)
    if any(varies(labels, dimension) for dimension in dimensions):
        raise Refused("reduces over channels, which changes what it computes when some go")
    for dimension in sorted(dimensions, reverse=True):
        labels = labels.narrow(dimension, 0, 1) if call.arguments.get("keepdim") else labels.select(dimension, 0)
    return [labels for _ in call.values] if isinstance(call.values, list | tuple) else labels


@rules.register(*(f"aten::{name}" for name in _ALONG))
def along(call: Call) -> Labels:
    """Leave the labels as they are, if the dimension carries no channels."""
    labels = call.labels("self")
    if any(varies(labels, dimension) for dimension in _dimensions(call, labels)):
        raise Refused("normalises or orders over channels, which changes what it computes when some go")
    return [labels for _ in call.values] if isinstance(call.values, list | tuple) else labels


def _dimensions(call: Call, labels: Tensor) -> list[int]:
    """Return the dimensions a call reduces over, none given meaning all."""
    given = call.arguments.get("dim")
    if given is None or given == []:
        return list(range(labels.dim())) or varying_dimensions(labels)
    listed = given if isinstance(given, list | tuple) else [given]
    return [int(dimension) % max(labels.dim(), 1) for dimension in listed]  # type: ignore[call-overload]
