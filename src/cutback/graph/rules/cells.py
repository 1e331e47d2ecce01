"""One step of a recurrent layer, as ``nn.LSTMCell`` takes it: the rows of every gate go with their hidden unit."""

from torch import Tensor, nn

from cutback.graph.call import Call, Labels, Refused, rules
from cutback.graph.labels import spread
from cutback.graph.rules.recurrent import GATES, Weights, layer
from cutback.graph.rules.vectors import vector_along

_CELLS = {f"{kind}_cell": gates for kind, gates in GATES.items()}


@rules.register(*_CELLS)
def cell(call: Call) -> Labels:
    """Tie the features of ``(B, I)``, issue labels for the hidden units and unite the states ``(B, H)`` with them."""
    incoming, recurrent = call.state("w_ih"), call.state("w_hh")
    if incoming is None or recurrent is None:
        raise Refused("has no weights")
    biases = [bias for name in ("b_ih", "b_hh") if (bias := call.state(name)) is not None]
    labels = call.labels("input")
    features = vector_along(call, labels, labels.dim() - 1)
    held, _ = layer(call, features, Weights(incoming, recurrent, biases, None), _CELLS[call.operator])
    call.width(nn.RNNCellBase, "input_size", features)
    call.width(nn.RNNCellBase, "hidden_size", held)
    given = call.arguments["hx"]
    for state in given if isinstance(given, list | tuple) else [given]:
        known = call.as_labels(state)
        call.unite(known, spread(held, known.dim() - 1, known.shape))

    def of(value: Tensor) -> Tensor:
        return spread(held, value.dim() - 1, value.shape)

    return [of(value) for value in call.values] if isinstance(call.values, list | tuple) else of(call.values)  # type: ignore[arg-type]
