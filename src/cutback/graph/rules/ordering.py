"""Operators that order elements or return positions: legal over dimensions that carry no channels."""

from torch import Tensor

from cutback.graph.call import Call, Labels, Refused, rules
from cutback.graph.labels import core, varies

_ORDERS = (
    "topk",
    "argsort",
    "argmax",
    "argmin",
    "kthvalue",
    "median",
    "mode",
    "cummax",
    "cummin",
    "cumprod",
    "logcumsumexp",
)


@rules.register(*(f"aten::{name}" for name in _ORDERS))
def ordered(call: Call) -> Labels:
    """Order, pick or number the elements along one dimension, or along all where none is given."""
    labels = call.labels("self")
    given = call.arguments.get("dim")
    touched = range(labels.dim()) if given is None else [int(given) % max(labels.dim(), 1)]  # type: ignore[call-overload]
    if any(varies(labels, dimension) for dimension in touched):
        raise Refused("orders channels, or counts them by position")

    def of(value: Tensor) -> Tensor:
        left = core(labels)
        if value.dim() < labels.dim():
            for dimension in reversed(touched):
                left = left.select(dimension, 0)
        else:
            for dimension in touched:
                left = left.narrow(dimension, 0, 1)
        return left.expand(value.shape)

    return [of(value) for value in call.values] if isinstance(call.values, list | tuple) else of(call.values)  # type: ignore[arg-type]
