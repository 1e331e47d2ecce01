"""Products with a parameter as a matrix, and look-ups in a table: contractions under other names."""

from torch import Tensor

from cutback.graph.call import Call, Labels, Refused, rules
from cutback.graph.labels import spread, varying_dimensions
from cutback.graph.rules.vectors import vector_along
from cutback.graph.states import State


@rules.register("aten::matmul", "aten::mm")
def product(call: Call) -> Labels:
    """Tie the input's last dimension to the rows of a parameter ``(C_in, C_out)``; its columns make the labels."""
    return _product(call, "self", "other" if "other" in call.arguments else "mat2")


@rules.register("aten::addmm")
def product_and_shift(call: Call) -> Labels:
    """As ``product``, with a shift ``(C_out,)``."""
    labels = _product(call, "mat1", "mat2")
    shift = call.state("self")
    if shift is not None:
        call.tie(labels[0], shift, 0, "bias")
    return labels


@rules.register("aten::embedding")
def embedding(call: Call) -> Labels:
    """Issue labels for the features of a table ``(entries, C)``."""
    table = call.state("weight")
    if table is None or varying_dimensions(call.labels("indices")):
        raise Refused("looks up channels by position")
    return spread(call.made(table, 1, "filter"), len(call.shape) - 1, call.shape)


def _product(call: Call, left: str, right: str) -> Tensor:
    """Label a product of an activation and a parameter."""
    matrix = call.arguments[right]
    if not isinstance(matrix, State) or len(matrix.shape) != 2 or isinstance(call.arguments[left], State):
        raise Refused("multiplies two computed tensors")
    labels = call.labels(left)
    call.tie(vector_along(call, labels, labels.dim() - 1), matrix, 0, "column")
    return spread(call.made(matrix, 1, "filter"), len(call.shape) - 1, call.shape)
