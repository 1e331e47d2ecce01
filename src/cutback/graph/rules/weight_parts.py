"""Parts of a parameter that are the weights of several layers, as query, key and value of a cross-attention are."""

from torch import Tensor

from cutback.graph.call import Call, Labels, Refused, weight_rules
from cutback.graph.labels import varying_dimensions
from cutback.graph.rules.positions import split
from cutback.graph.rules.weights import lifted
from cutback.graph.scales import SPLITS
from cutback.graph.weights import ComputedWeight, Layer


@weight_rules.register(*SPLITS)
def parts(call: Call) -> Labels:
    """Split each layer of labels; what its parts must have in common is what parts of an activation must."""
    weight, arguments = lifted(call, call.arguments["self"]), call.arguments
    if not weight.layers:
        raise Refused("splits a weight of one row and one column")
    found: list[list[Layer]] = [[] for _ in call.values]  # type: ignore[union-attr, attr-defined]
    for layer in weight.layers:
        call.arguments = {**arguments, "self": layer.labels}
        pieces: list[Tensor] = split(call)  # type: ignore[assignment]
        for own, labels in zip(found, pieces, strict=True):
            own.append(Layer(labels, call.decide(tuple(varying_dimensions(labels)))))
    call.arguments = arguments
    return [ComputedWeight(tuple(layers), layers[0].labels.shape) for layers in found]
