"""How many samples a recorded forward pass has computed."""

from collections.abc import Iterator

from torch import Tensor, fx

from cutback.graph.capture import Capture

_CONVOLUTIONS = {f"aten::{kind}{n}d" for kind in ("conv", "conv_transpose") for n in (1, 2, 3)}


def samples(recorded: Capture) -> int:
    """Return the batch size of a captured forward pass (1 where its inputs are a sample without a batch).

    The first convolution that an input reaches decides, else the first linear layer: its weight says how many
    dimensions a batch has there. An input with as many brings the batch first; where its length does not divide that
    of the convolution's input, and where inputs have fewer dimensions, the convolution's own batch counts.
    """
    given = [node for node in recorded.nodes if node.op == "placeholder"][len(recorded.states) :]
    for source, rank in _contractions(recorded):
        before = _before(source)
        reached = [_shape(node) for node in given if node in before and _shape(node)]
        if not reached:
            continue
        shape, within = max(reached, key=len), _shape(source)
        if len(shape) >= rank and (len(within) < rank or within[0] % max(shape[0], 1) == 0):
            return max(shape[0], 1)
        return max(within[0], 1) if len(within) >= rank else 1
    return next((max(shape[0], 1) for shape in map(_shape, given) if shape), 1)


def _contractions(recorded: Capture) -> Iterator[tuple[fx.Node, int]]:
    """Yield the input of each convolution, then of each linear layer, and how many dimensions it has with a batch."""
    for names in (_CONVOLUTIONS, {"aten::linear"}):
        for node in recorded.nodes:
            if getattr(getattr(node.target, "_schema", None), "name", "") in names:
                source, weight = node.args[:2]
                if isinstance(source, fx.Node) and isinstance(weight, fx.Node):
                    yield source, len(_shape(weight))


def _before(node: fx.Node) -> set[fx.Node]:
    """Return a node and all that it was computed from."""
    found, open_ends = {node}, [node]
    while open_ends:
        new = [earlier for earlier in open_ends.pop().all_input_nodes if earlier not in found]
        found.update(new)
        open_ends += new
    return found


def _shape(node: fx.Node) -> tuple[int, ...]:
    value = node.meta.get("val")
    return tuple(value.shape) if isinstance(value, Tensor) else ()
