"""Which sample each row of an activation belongs to, and where samples mix: found by poisoning one sample at a time.

Rows of an activation need not be samples: windows, regions and heads are folded into the batch, sequences may come
first. A few samples are run, one of them NaN; what becomes NaN belongs to it.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx

from cutback.errors import Ungatable
from cutback.gates.live import LiveCapture, captured
from cutback.gates.places import Place
from cutback.graph.capture import module_path, operator_of
from cutback.graph.clone import random_state_kept, set_training, state_tensors, structural_clone
from cutback.graph.graph import Graph
from cutback.graph.inputs import Inputs
from cutback.measure.batch import samples

_SAMPLES = 3
_NOBODY, _SEVERAL = -1, -2


@dataclass(frozen=True)
class Rows:
    """How samples lie along a dimension of an activation.

    Attributes:
        dimension: the dimension; ``None`` where the activation belongs to no sample.
        repeats: how many rows each sample has.
        inner: whether a sample's rows follow one another; else every sample has one row before the next follow.
    """

    dimension: int | None
    repeats: int = 1
    inner: bool = True

    def gathered(self, values: Tensor) -> Tensor:
        """Sum the rows of each sample: ``(rows, ...)`` to ``(N, ...)``."""
        if self.repeats == 1:
            return values
        shape = (-1, self.repeats) if self.inner else (self.repeats, values.shape[0] // self.repeats)
        return values.unflatten(0, shape).sum(1 if self.inner else 0)

    def scattered(self, values: Tensor) -> Tensor:
        """Give each row what belongs to its sample: ``(N, ...)`` to ``(rows, ...)``."""
        if self.repeats == 1:
            return values
        if self.inner:
            return values.repeat_interleave(self.repeats, 0)
        return values.repeat(self.repeats, *[1] * (values.dim() - 1))

    def copied(self, value: Tensor, count: int, copies: int) -> Tensor:
        """Return an activation of ``count`` samples as that of copies of the batch, one after the other."""
        dimension = self.dimension or 0
        if self.inner:
            return torch.cat([value] * copies, dimension)
        parts = value.unflatten(dimension, (self.repeats, count))
        return torch.cat([parts] * copies, dimension + 1).flatten(dimension, dimension + 1)

    def parted(self, value: Tensor, count: int) -> Sequence[Tensor]:
        """Return an activation of copies of ``count`` samples, as ``copied`` lays them out, for each copy."""
        dimension = self.dimension or 0
        if self.inner:
            return value.split(count * self.repeats, dimension)
        parts = value.unflatten(dimension, (self.repeats, -1)).split(count, dimension + 1)
        return [part.flatten(dimension, dimension + 1) for part in parts]


@dataclass(frozen=True, eq=False)
class RowMap:
    """Where the samples lie in every activation of a model.

    Attributes:
        results: rows of each result, by the numbers of the call and of the result, or what is wrong with them.
        places: the same of each place.
        mixing: number and name of the first call that mixes samples, batch normalisation aside.
    """

    results: Mapping[tuple[Hashable, Hashable], Rows | str]
    places: Mapping[Place, Rows | str]
    mixing: tuple[int, str] | None

    def at(self, place: Place) -> Rows:
        """Return how samples lie at a place.

        Raises:
            Ungatable: its rows do not belong to one sample each.
        """
        return _sound(self.places[place], place.where)

    def result(self, key: Sequence[Hashable], where: str) -> Rows:
        """Return how samples lie in a result of a call, given the numbers of both (or of the call, if it has one).

        Raises:
            Ungatable: its rows do not belong to one sample each.
        """
        return _sound(self.results.get((key[0], key[1] if len(key) > 1 else 0), "they are the inputs"), where)


def row_map(graph: Graph, number: int, places: Sequence[Place]) -> RowMap:
    """Find where samples lie, on a copy of a graph's model, without dropout and batch normalisation.

    Args:
        graph: the traced model.
        number: the number of the capture whose mode the model is to be in.
        places: the capture's places that are to be looked at.

    Raises:
        CaptureError: the model does not run on three samples.
        Ungatable: no input has samples that could be told apart.
    """
    clone = structural_clone(graph.model)
    set_training(clone, graph.captures[number].training)
    inputs, batched = _few(graph)
    live = captured(replace(graph, model=clone), inputs, dropout=False)
    watch = _Watch(live, places)
    with random_state_kept(), torch.no_grad():
        for sample in range(_SAMPLES):
            states = {name: tensor.detach().clone() for name, tensor in state_tensors(clone).items()}
            watch.sample = sample
            tensors = [_poisoned(t, sample) if known else t for t, known in zip(inputs.tensors(), batched, strict=True)]
            live.capture.execute(states, inputs.replaced(tensors), watch.call)
    results = {key: _rows(owner) for key, owner in watch.results.items()}
    return RowMap(results, {place: _rows(watch.places[place]) for place in places}, watch.mixing)


def first_mixer(live: LiveCapture, rows: RowMap, after: int) -> str:
    """Name a call, from a given one on, at which samples mix; empty where none does."""
    for number, node in enumerate(live.calls):
        if number >= after and operator_of(node) == "aten::batch_norm" and node.args[5]:
            return f"{module_path(node) or '(model)'} (aten::batch_norm) normalises over the batch"
    mixing = rows.mixing
    return f"{mixing[1]} mixes samples" if mixing is not None and mixing[0] >= after else ""


class _Watch:
    """Notes what becomes NaN, call by call."""

    def __init__(self, live: LiveCapture, places: Sequence[Place]) -> None:
        self._numbers = live.numbers
        self._at: dict[fx.Node, list[Place]] = {}
        for place in places:
            self._at.setdefault(live.calls[place.call], []).append(place)
        self.results: dict[tuple[Hashable, Hashable], Tensor] = {}
        self.places: dict[Place, Tensor] = {}
        self.mixing: tuple[int, str] | None = None
        self.sample = 0

    def call(self, node: fx.Node, args: Sequence[object], kwargs: Mapping[str, object]) -> object:
        """Run a call and note what it was given and what it returned."""
        for place in self._at.get(node, ()):
            if place.argument is not None:
                self._note(self.places, place, _argument(node, args, kwargs, place))
        if operator_of(node) == "aten::batch_norm":  # mixes samples in train mode alone; of use is where they lie
            result: object = args[0].clone()  # type: ignore[union-attr]
        else:
            result = node.target(*args, **kwargs)  # type: ignore[operator]
        number = self._numbers.get(node)
        if number is None:
            return result
        results = list(result) if isinstance(result, list | tuple) else [result]
        for item, value in enumerate(results):
            several = self._note(self.results, (number, item), value)
            if several and (self.mixing is None or number < self.mixing[0]):
                self.mixing = number, f"{module_path(node) or '(model)'} ({operator_of(node)})"
        for place in self._at.get(node, ()):
            if place.argument is None:
                self._note(self.places, place, results[place.item or 0])
        return result

    def _note(self, table: dict, key: object, value: object) -> bool:  # type: ignore[type-arg]
        """Note whose NaN a value holds; say whether some element depends on several samples."""
        if not isinstance(value, Tensor):
            return False
        owner = table.setdefault(key, torch.full(value.shape, _NOBODY, dtype=torch.int8))
        if value.is_floating_point():
            poisoned = value.isnan().cpu()
            owner[poisoned & (owner >= 0) & (owner != self.sample)] = _SEVERAL
            owner[poisoned & (owner == _NOBODY)] = self.sample
        return bool((owner == _SEVERAL).any())


def _argument(node: fx.Node, args: Sequence[object], kwargs: Mapping[str, object], place: Place) -> object:
    names = (argument.name for argument in node.target._schema.arguments)  # type: ignore[union-attr]
    value = {**dict(zip(names, args, strict=False)), **kwargs}.get(str(place.argument))
    return value[place.item] if isinstance(value, list | tuple) and place.item is not None else value


def _few(graph: Graph) -> tuple[Inputs, list[bool]]:
    """Return example inputs with three samples, and which of their tensors have samples that can be poisoned."""
    count = samples(graph.captures[0])
    tensors = graph.inputs.tensors()
    batched = [tensor.dim() > 0 and len(tensor) == count for tensor in tensors]
    index = torch.arange(_SAMPLES) % count
    few = [t[index.to(t.device)] if known else t for t, known in zip(tensors, batched, strict=True)]
    batched = [known and tensor.is_floating_point() for known, tensor in zip(batched, tensors, strict=True)]
    if not any(batched):
        raise Ungatable(
            f"the samples of inputs of shape {graph.inputs.describe()} cannot be followed: none is a batch of numbers "
            "with a fraction; use one mask for the whole batch"
        )
    return graph.inputs.replaced(few), batched


def _poisoned(tensor: Tensor, sample: int) -> Tensor:
    result = tensor.detach().clone()
    result[sample] = float("nan")
    return result


def _rows(owner: Tensor) -> Rows | str:
    """Return how samples lie, given whose each element is; or what is wrong."""
    if bool((owner == _SEVERAL).any()):
        return "they depend on several samples"
    if bool((owner == _NOBODY).all()):
        return Rows(None)
    alone = [d for d in range(owner.dim()) if (vector := _along(owner, d)) is not None and len(vector) >= _SAMPLES]
    if len(alone) != 1:
        return "samples do not lie along one dimension"
    vector = _along(owner, alone[0])
    repeats, rest = divmod(len(vector), _SAMPLES)  # type: ignore[arg-type]
    order = torch.arange(_SAMPLES, dtype=torch.int8)
    if not rest and torch.equal(vector, order.repeat_interleave(repeats)):  # type: ignore[arg-type]
        return Rows(alone[0], repeats)
    if not rest and torch.equal(vector, order.repeat(repeats)):  # type: ignore[arg-type]
        return Rows(alone[0], repeats, inner=False)
    return "they come in an order that is not known"


def _along(owner: Tensor, dimension: int) -> Tensor | None:
    """Return whose each index along a dimension is; ``None`` where one is several samples'."""
    flat = owner.movedim(dimension, 0).reshape(owner.size(dimension), -1)
    highest = flat.amax(1)
    other = (flat != highest[:, None]) & (flat != _NOBODY)
    return None if bool(other.any()) else highest


def _sound(found: Rows | str, where: str) -> Rows:
    if isinstance(found, str):
        raise Ungatable(f"the rows at {where} do not belong to one sample each: {found}")
    return found
