"""Products with a parameter as a matrix, and look-ups in a table: contractions under other names."""

from cutback.graph.call import Call, Labels, Refused, rules
from cutback.graph.labels import spread, varies, varying_dimensions
from cutback.graph.rules.einsum import product_of_two
from cutback.graph.rules.pointwise import paired
from cutback.graph.states import State


@rules.register("aten::matmul", "aten::mm", "aten::mv")
def product(call: Call) -> Labels:
    """Tie the input's last dimension to the rows of a parameter ``(C_in, C_out)``; its columns make the labels.

    Products of two computed tensors unite what they sum over.
    """
    return product_of_two(call, *list(call.arguments)[:2])


@rules.register("aten::addmm")
def product_and_shift(call: Call) -> Labels:
    """As ``product``, with a shift ``(C_out,)``."""
    labels = product_of_two(call, "mat1", "mat2")
    shift = call.arguments["self"]
    if isinstance(shift, State) and len(shift.shape) == 1 and call.decide(varies(labels, 1)):
        call.tie(labels[0], shift, 0, "bias")
        return labels
    return paired(call, [call.as_labels(shift), labels], call.shape)


@rules.register("aten::embedding")
def embedding(call: Call) -> Labels:
    """Issue labels for the features of a table ``(entries, C)``."""
    table, positions = call.state("weight"), call.arguments["indices"]
    if isinstance(positions, State):
        call.keep_state(positions, "tells positions")
    elif table is None or varying_dimensions(call.as_labels(positions)):
        raise Refused("looks up channels by position")
    if table is None:
        raise Refused("has no table")
    return spread(call.made(table, 1, "filter"), len(call.shape) - 1, call.shape)
