"""Tensors created with sizes of their own: what shares a dimension with them must keep it."""

from cutback.graph.call import Call, Labels, rules

_FACTORIES = (
    *("zeros", "ones", "full", "empty", "rand", "randn", "arange", "linspace", "eye", "scalar_tensor", "tensor"),
    *("new_zeros", "new_ones", "new_full", "new_empty"),
)


@rules.register(*(f"aten::{name}" for name in _FACTORIES))
def created(call: Call) -> Labels:
    """Give one kept label to the whole tensor."""
    return call.kept_result("a tensor created with sizes of its own")
