"""Making up for a width that an operator divides by: which rows of which parameters are to be multiplied.

``scaled_dot_product_attention`` without a scale divides by the square root of the head width. When that shrinks, the
query must be multiplied by ``sqrt(after / before)``; so must be whatever number the code computes from the width. What
makes the query linearly (a projection, the scale of a norm) is found by walking back from it, and walking forward again
makes sure that nothing else sees the rows concerned.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from cutback.graph.capture import Capture, operator_of
from cutback.graph.labels import NONE, core

_MOVEMENTS = frozenset(
    (
        *("view", "reshape", "_unsafe_view", "unflatten", "flatten", "view_as", "reshape_as", "permute", "transpose"),
        *("t", "numpy_T", "mT", "movedim", "moveaxis", "swapaxes", "swapdims", "unsqueeze", "squeeze", "select"),
        *("unbind", "getitem", "contiguous", "clone", "alias", "detach", "to", "_to_copy", "chunk", "split", "slice"),
        *("split_with_sizes", "tensor_split", "unsafe_chunk", "narrow", "expand", "flip", "roll", "index_select"),
        *("expand_as", "repeat", "repeat_interleave", "lift_fresh_copy"),
    )
)
SPLITS = ("aten::chunk", "aten::split", "aten::split_with_sizes", "aten::tensor_split", "aten::unsafe_chunk")
_JOINS = frozenset(("cat", "concat", "concatenate", "stack"))
_CONVOLUTIONS = frozenset(("conv1d", "conv2d", "conv3d"))
_LAYER_NORMS = frozenset(("layer_norm", "rms_norm"))
_PRODUCERS = frozenset(("linear", "batch_norm", *_CONVOLUTIONS, *_LAYER_NORMS))

Rows = tuple[str, tuple[int, ...]]
"""A state, and the indices along its first dimension that are multiplied."""


@dataclass(frozen=True, eq=False)
class Compensation:
    """How one call can be made up for.

    Attributes:
        node: the call.
        argument: the argument that is multiplied.
        labels: its labels; the last dimension is the width.
        rows: what to multiply.
        results: for each result of the capture that shows multiplied elements, which ones these are.
        entered: every call and argument in which the multiplied elements end.
        producers: the calls whose parameters' rows are multiplied.
    """

    node: fx.Node
    argument: str
    labels: Tensor
    rows: tuple[Rows, ...]
    results: Mapping[int, Tensor]
    entered: frozenset[tuple[fx.Node, str]]
    producers: frozenset[fx.Node]


@dataclass(frozen=True)
class Held:
    """Rows of a state that are rows of a weight or a bias.

    Attributes:
        state: its name.
        start: the row of the weight at which they begin.
        size: how many they are.
        first: which row of the state is the first of them.
    """

    state: str
    start: int
    size: int
    first: int

    def inside(self, indices: Sequence[int], begin: int) -> list[int]:
        """Return those of some indices that are these rows', counted from the first; they begin at ``begin``."""
        return [index - begin for index in indices if begin <= index < begin + self.size]


@dataclass(eq=False)
class Linear:
    """The calls between the parameters that make an argument and the call that takes it.

    Attributes:
        producers: the calls whose parameters' rows are multiplied.
        inside: these, and all calls that hand the argument on.
    """

    producers: dict[fx.Node, None] = field(default_factory=dict)
    inside: dict[fx.Node, None] = field(default_factory=dict)


def is_movement(node: fx.Node) -> bool:
    """Whether a call only moves elements about."""
    return node.op == "call_function" and operator_of(node).rpartition("::")[2] in _MOVEMENTS


def tensor_arguments(node: fx.Node) -> dict[str, fx.Node]:
    """Return the arguments of a call that are single nodes, by the names of the operator's schema."""
    names = [argument.name for argument in node.target._schema.arguments]  # type: ignore[union-attr]
    given = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    return {name: value for name, value in given.items() if isinstance(value, fx.Node)}


class Search:
    """Finds compensations in one captured graph.

    Args:
        recorded: the capture.
        labels: the labels of the results of each call of an operator.
        demands: for each call that may have to be made up for, the arguments that may be multiplied.
    """

    def __init__(
        self,
        recorded: Capture,
        labels: Mapping[fx.Node, Sequence[Tensor]],
        demands: Mapping[fx.Node, Sequence[str]],
    ) -> None:
        self._recorded, self._labels, self._demands = recorded, labels, demands
        self._states = dict(zip(recorded.nodes, recorded.states, strict=False))
        self._outputs = set(recorded.results[: recorded.outputs])

    def find(self, node: fx.Node, argument: str) -> Compensation | None:
        """Return how an argument of a call can be multiplied; ``None`` if it cannot."""
        chain = Linear()
        source = tensor_arguments(node).get(argument)
        if source is None or not self._back(source, chain):
            return None
        labels = self._of(source)
        wanted = np.unique(core(labels).numpy())
        wanted = wanted[wanted != NONE]
        rows: list[Rows] = []
        made: list[NDArray[np.int64]] = []
        for producer in chain.producers:
            found = self._rows(producer, wanted)
            if found is None:
                return None
            rows += found[0]
            made.append(found[1])
        entered = self._forward(chain, wanted)
        if entered is None or not np.isin(wanted, np.concatenate(made)).all():
            return None
        results = {
            position: self._among(result, wanted)
            for position, result in enumerate(self._recorded.results)
            if result in chain.inside
        }
        return Compensation(
            node, argument, labels, tuple(rows), results, frozenset(entered), frozenset(chain.producers)
        )

    def uses(self, wanted: Rows) -> list[fx.Node]:
        """Return the calls that use rows of a state: itself, a part of it, or it laid together with others."""
        name, indices = wanted
        waiting = [node for node, state in self._states.items() if state == name]
        found: list[fx.Node] = []
        for node in waiting:
            for user in node.users:
                held = self._held(user)
                if held is None and self._is_split(user):
                    waiting.append(user)
                elif held is None:
                    found.append(user)
                elif any(rows.state == name and rows.inside(indices, rows.first) for rows in held):
                    found += user.users
        return found

    def _back(self, node: fx.Node, chain: Linear) -> bool:
        """Walk back to what makes a value; false if it is not linear in some parameter's rows."""
        if node.op != "call_function":
            return False
        if node in chain.inside:
            return True
        operator = operator_of(node).rpartition("::")[2]
        sources = [value for value in node.args if isinstance(value, fx.Node)]
        known = dict(chain.producers), dict(chain.inside)
        if operator in _PRODUCERS:
            chain.producers[node] = None
            good = True
        elif operator in _MOVEMENTS or operator == "neg":
            good = bool(sources) and self._back(sources[0], chain)
        elif operator in _JOINS:
            good = all(isinstance(part, fx.Node) and self._back(part, chain) for part in node.args[0])  # type: ignore[union-attr]
        elif operator in ("add", "sub"):
            good = len(sources) == 2 and all(self._back(source, chain) for source in sources)
        elif operator == "mul":
            good = any(self._back(source, chain) for source in sources)
        elif operator == "div":
            good = sources[:1] == [node.args[0]] and self._back(sources[0], chain)
        else:
            good = False
        if good:
            chain.inside[node] = None
        else:
            chain.producers, chain.inside = known
        return good

    def _forward(self, chain: Linear, wanted: NDArray[np.int64]) -> set[tuple[fx.Node, str]] | None:
        """Return where the multiplied elements end; ``None`` if something sees them that is not linear in them."""
        waiting, entered = list(chain.inside), set()
        while waiting:
            node = waiting.pop()
            if not bool(self._among(node, wanted).any()):
                continue
            if node in self._outputs:
                return None
            for user in node.users:
                if user.op == "output" or user in chain.inside:
                    continue
                if operator_of(user).rpartition("::")[2] in _MOVEMENTS:
                    if bool(self._among(user, wanted).any()):
                        chain.inside[user] = None
                        waiting.append(user)
                    continue
                names = [name for name, value in tensor_arguments(user).items() if value is node]
                if user not in self._demands or len(names) != 1 or names[0] not in self._demands[user]:
                    return None
                entered.add((user, names[0]))
        return entered if self._each_once(chain) else None

    def _each_once(self, chain: Linear) -> bool:
        """Whether products inside have only one factor that is multiplied."""
        return all(
            sum(source in chain.inside for source in node.args) == 1
            for node in chain.inside
            if operator_of(node) in ("aten::mul", "aten::div")
        )

    def _rows(self, producer: fx.Node, wanted: NDArray[np.int64]) -> tuple[list[Rows], NDArray[np.int64]] | None:
        """Return the rows of a producer's parameters that make the wanted labels, and the labels made."""
        given, operator = tensor_arguments(producer), operator_of(producer).rpartition("::")[2]
        weights = self._held(given["weight"]) if "weight" in given else None
        biases = self._held(given["bias"]) if "bias" in given else []
        if weights is None or biases is None:
            return None
        labels = self._of(producer)
        if operator in _CONVOLUTIONS:
            dimension = labels.dim() - len(given["weight"].meta["val"].shape) + 1
        else:
            dimension = 1 if operator == "batch_norm" else labels.dim() - 1
        if operator in _LAYER_NORMS and len(given["weight"].meta["val"].shape) != 1:
            return None
        table = core(labels).movedim(dimension, 0).flatten(1).numpy()
        table = np.broadcast_to(table, (labels.size(dimension), table.shape[1]))
        hits = np.isin(table, wanted)
        if not hits.any() or (hits.any(axis=1) != hits.all(axis=1)).any():
            return None
        indices = tuple(np.flatnonzero(hits.all(axis=1)).tolist())
        rows: list[Rows] = []
        for held in (*weights, *biases):
            inside = tuple(place + held.first for place in held.inside(indices, held.start))
            rows += [(held.state, inside)] if inside else []
        return rows, table[hits]

    def _held(self, node: fx.Node) -> list[Held] | None:
        """Return whose rows a weight or a bias has: it is a state, a part of one, or several laid together.

        ``None`` if it is anything else.
        """
        if node in self._states:
            return [Held(self._states[node], 0, node.meta["val"].shape[:1].numel(), 0)]
        if node.op != "call_function":
            return None
        if operator_of(node) == "getitem" and self._is_split(node.args[0]):
            source, position = node.args
            sizes = [len(part) for part in source.meta["val"]]  # type: ignore[union-attr]
            state = self._states[source.args[0]]  # type: ignore[union-attr, index]
            return [Held(state, 0, sizes[position], sum(sizes[:position]))]  # type: ignore[index, misc]
        if operator_of(node) not in ("aten::cat", "aten::concat"):
            return None
        found: list[Held] = []
        start = 0
        for part in node.args[0]:  # type: ignore[union-attr]
            if part not in self._states:
                return None
            size = part.meta["val"].shape[:1].numel()
            found.append(Held(self._states[part], start, size, 0))
            start += size
        return found

    def _is_split(self, node: object) -> bool:
        """Whether a call splits a state into blocks of rows."""
        if not isinstance(node, fx.Node) or node.op != "call_function" or node.args[0] not in self._states:
            return False
        along = node.args[2] if len(node.args) > 2 else node.kwargs.get("dim", 0)
        return isinstance(along, int) and along == 0 and operator_of(node) in SPLITS

    def _of(self, node: fx.Node) -> Tensor:
        """Return the labels of a node that is one tensor."""
        return self._labels[node][0]

    def _among(self, node: fx.Node, wanted: NDArray[np.int64]) -> Tensor:
        """Return which elements of a node's labels are among those wanted."""
        tensors = [core(labels) for labels in self._labels.get(node, ())]
        if len(tensors) != 1:
            found = [np.isin(labels.numpy(), wanted).any() for labels in tensors]
            return torch.tensor(bool(np.any(found)))
        return torch.from_numpy(np.atleast_1d(np.isin(tensors[0].numpy(), wanted))).view(tensors[0].shape)
