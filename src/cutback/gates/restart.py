"""Many masks in one pass, restarted from the layer that they touch."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_arg

from cutback.errors import Ungatable, UserMistake
from cutback.gates.difference import brought, changed_channels
from cutback.gates.factors import Factors
from cutback.gates.live import LiveCapture, captured, key_of
from cutback.gates.passing import Passing, standing
from cutback.gates.places import Place, find_places
from cutback.gates.rows import RowMap, Rows, row_map
from cutback.gates.walking import Walk
from cutback.graph.capture import module_path, operator_of
from cutback.graph.clone import state_tensors
from cutback.graph.graph import Graph
from cutback.graph.inputs import Inputs, tensors_in
from cutback.graph.nests import filled
from cutback.graph.numbers import arguments_of

_Key = tuple[Hashable, ...]


class Restarts:
    """Runs a model from any layer on with many masks at once.

    Args:
        graph: the traced model; it runs in its present mode, in which samples must not meet, and without dropout.
        site: where masks stand, see ``cutback.gates``.
        groups: names of the groups that will be masked; all of them by default.

    Raises:
        UnknownName: there is no such site or group.
        Ungatable: a group has no place at the site.

    Example:
        >>> import torch, cutback
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 2, 6))
        >>> run = Restarts(cutback.trace(net, torch.zeros(1, 3, 8, 8))).on(torch.randn(5, 3, 8, 8))
        >>> run.masked({"0": 1 - torch.eye(8)}).shape[0]  # eight masks for each of the five images
        40
    """

    def __init__(self, graph: Graph, site: str = "consumer", *, groups: Sequence[str] | None = None) -> None:
        self.graph = graph
        self.groups = tuple(group.name for group in graph.groups if groups is None or group.name in groups)
        self.places = [find_places(graph, number, site, groups) for number in range(len(graph.captures))]
        self._captures: dict[Hashable, LiveCapture] = {}
        self._row_maps: dict[int, RowMap] = {}

    def on(self, inputs: object) -> "Restart":
        """Take a batch: a tensor, a tuple of positional or a dict of keyword arguments."""
        return Restart(self, Inputs.of(inputs))

    def capture(self, inputs: Inputs) -> LiveCapture:
        """Return a capture that fits inputs."""
        key = key_of(self.graph.model, inputs)
        if key not in self._captures:
            self._captures[key] = captured(self.graph, inputs, dropout=False)
        return self._captures[key]

    def row_map(self, number: int) -> RowMap:
        """Return where samples lie, for the number of a traced capture."""
        if number not in self._row_maps:
            self._row_maps[number] = row_map(self.graph, number, self.places[number])
        return self._row_maps[number]


class Restart:
    """One batch, run once up to the layers that masks touch; made by ``Restarts.on``.

    Masks of the same or of later layers than the last ones cost least; for earlier ones it starts from the inputs
    again. ``order`` tells.

    Args:
        restarts: what is known of the model.
        inputs: the batch.

    Attributes:
        macs: the multiply-accumulates done so far, counted as in ``cutback.measure.macs``, for all samples and masks.
    """

    def __init__(self, restarts: Restarts, inputs: Inputs) -> None:
        self._restarts, self._inputs = restarts, inputs
        self._live = restarts.capture(inputs)
        self._places = restarts.places[self._live.traced]
        self._names = [group.name for group in restarts.graph.groups]
        self._states = {name: tensor.detach() for name, tensor in state_tensors(restarts.graph.model).items()}
        self.macs = 0
        self._walk = self._started()
        self._full: tuple[int, Tensor] | None = None  # a call that masks touched first, and what it returns without

    @property
    def samples(self) -> int:
        """How many samples the batch has."""
        return self._live.samples

    @property
    def order(self) -> list[str]:
        """The groups that run in the present mode, in the order in which their first masked layers come."""
        run = [name for name in self._restarts.groups if any(p.has([self._names.index(name)]) for p in self._places)]
        return sorted(run, key=lambda name: self._first([name]))

    @property
    def _row_map(self) -> RowMap:
        return self._restarts.row_map(self._live.traced)

    @torch.no_grad()
    def plain(self) -> object:
        """Return what the model returns without masks."""
        self._count(self._live, self._live.capture.nodes)
        return filled(self._live.capture.returned, self._started().finish())

    def each(self, masks: Mapping[str, Tensor]) -> list[object]:
        """Return what the model returns for the batch with each mask, one after the other; see ``masked``.

        Where a mask stands at what belongs to no sample, a learned constant say, it takes one pass a mask.
        """
        count = min(map(len, masks.values()), default=0)
        if count > 1 and self._meets_constants(masks):
            alone = [{name: mask[n : n + 1] for name, mask in masks.items()} for n in range(count)]
            return [result for single in alone for result in self.each(single)]
        together = list(tensors_in(self.masked(masks)))
        returned = self._live.capture.returned
        parts = [self._parts(t, node) for t, node in zip(together, self._live.capture.results, strict=True)]
        return [filled(returned, outputs) for outputs in zip(*parts, strict=True)]

    @torch.no_grad()
    def masked(self, masks: Mapping[str, Tensor]) -> object:
        """Run the model once with each mask.

        Where every mask changes one unit of one group, the first layer that consumes it computes only the difference,
        which agrees with a whole pass up to rounding.

        Args:
            masks: for each group's name factors ``(K, units)``, the same ``K`` for all.

        Returns:
            What the model returns for ``K`` copies of the batch, one after the other: row ``k * N + n`` is sample ``n``
            under mask ``k``.

        Raises:
            UserMistake: there is no mask, or not equally many for every group.
            Ungatable: samples meet behind the masks, or some activation's rows do not belong to one sample each, or to
                none, so that masks there cannot differ.
        """
        counts = {len(mask) for mask in masks.values()}
        if len(counts) != 1:
            raise UserMistake(f"masks of {sorted(counts)} rows; give every group equally many, at least one")
        (count,) = counts
        wide = self._restarts.capture(self._repeated(count))
        factors = Factors(self._names, {n: mask.repeat_interleave(self.samples, 0) for n, mask in masks.items()})
        numbers = [self._names.index(name) for name in masks]
        places = [place for place in self._places if place.has(numbers)]
        passing = Passing(wide, standing(wide, places), self._restarts.row_map, factors, None, None)
        first = self._first(masks)
        self._advance(first)
        result = self._by_difference(first, places, masks)
        known = {} if result is None else {wide.calls[first]: result}
        start = wide.capture.nodes.index(wide.calls[first]) + len(known)
        walk = Walk(wide.capture, self._values(wide, start, count, known), start)
        self._count(wide, wide.capture.nodes[start:])
        return filled(wide.capture.returned, walk.finish(passing.call))

    def _meets_constants(self, names: Iterable[str]) -> bool:
        """Say whether masks of groups stand at some place that belongs to no sample."""
        numbers = [self._names.index(name) for name in names]
        rows = self._row_map.places
        return any(rows[place] == Rows(None) for place in self._places if place.has(numbers))

    def _parts(self, output: Tensor, node: fx.Node) -> Sequence[Tensor]:
        """Return an output of copies of the batch for each copy."""
        rows = self._row_map.result(_key(node, self._live.numbers), "an output")
        return rows.parted(output, self.samples)

    def _first(self, names: Iterable[str]) -> int:
        """Return the number of the first call that masks of groups touch."""
        numbers = [self._names.index(name) for name in names]
        calls = [place.call for place in self._places if place.has(numbers)]
        if not calls:
            raise Ungatable(f"{', '.join(names)}: nothing of it runs in the present mode")
        return min(calls)

    def _started(self) -> Walk:
        """Return a walk from the inputs on."""
        given = [*(self._states[name] for name in self._live.capture.states), *self._inputs.tensors()]
        return Walk(self._live.capture, dict(zip(self._live.capture.nodes, given, strict=False)))

    def _repeated(self, count: int) -> Inputs:
        """Return the inputs with copies of the batch one after the other."""
        return self._inputs.map(lambda t: torch.cat([t] * count) if t.dim() and len(t) == self.samples else t)

    def _advance(self, first: int) -> None:
        """Run the batch up to a call."""
        stop = self._live.capture.nodes.index(self._live.calls[first])
        if stop < self._walk.position:
            self._walk = self._started()
        self._count(self._live, self._live.capture.nodes[self._walk.position : stop])
        self._walk.until(stop)

    def _count(self, live: LiveCapture, nodes: Sequence[fx.Node]) -> None:
        """Count the multiply-accumulates of calls that are made."""
        self.macs += sum(live.macs.get(node, 0) for node in nodes)

    def _by_difference(self, first: int, places: Sequence[Place], masks: Mapping[str, Tensor]) -> Tensor | None:
        """Return what the first call that masks touch returns for copies of the batch, where a difference gives that.

        It does where each mask changes one unit, and the call has its samples first.
        """
        own = [place for place in places if place.call == first]
        if len(masks) != 1 or len(own) != 1:
            return None
        ((name, mask),), node, rows = masks.items(), self._live.calls[first], self._row_map
        found = changed_channels(node, own[0], self._names.index(name), mask)
        if found is None or {rows.places[own[0]], rows.results[first, 0]} != {Rows(0)}:
            return None
        channels, factors = found
        arguments: dict[str, Any] = map_arg(arguments_of(node), self._walk.values.__getitem__)  # type: ignore[arg-type]
        if self._full is None or self._full[0] != first:
            self._full = first, node.target(**arguments)  # type: ignore[operator]
            self._count(self._live, [node])
        full, lost = self._full[1], brought(node, arguments, channels)
        self.macs += self._live.macs[node] * channels.numel() // own[0].group.size
        return (full - (1 - factors.to(full).view(-1, *[1] * full.dim())) * lost).flatten(0, 1)

    def _values(
        self, wide: LiveCapture, start: int, count: int, known: Mapping[fx.Node, object]
    ) -> dict[fx.Node, object]:
        """Return all that a capture for copies of the batch needs from a node on, some of it known."""
        capture = wide.capture
        given = [*(self._states[name] for name in capture.states), *self._repeated(count).tensors()]
        values: dict[fx.Node, object] = {**dict(zip(capture.nodes, given, strict=False)), **known}
        held = {_key(node, self._live.numbers): value for node, value in self._walk.values.items()}
        before = set(capture.nodes[:start])
        for node in (source for user in capture.nodes[start:] for source in user.all_input_nodes):
            if node in before and node not in values:
                if node.op == "get_attr":
                    values[node] = capture.constants[str(node.target)]
                else:
                    values[node] = self._copies(node, held, wide, count)
        return values

    def _copies(self, node: fx.Node, held: Mapping[_Key, object], wide: LiveCapture, count: int) -> object:
        """Return a value for copies of the batch, from that for the batch."""
        key, wanted = _key(node, wide.numbers), node.meta["val"]
        value = held[key]
        where = f"{module_path(node) or '(model)'} ({operator_of(node)})"
        if isinstance(value, list | tuple):
            pairs = enumerate(zip(value, wanted, strict=True))
            return [self._copied(item, like.shape, (*key, n), where, count) for n, (item, like) in pairs]
        return self._copied(value, wanted.shape, key, where, count) if isinstance(value, Tensor) else value

    def _copied(self, value: Tensor, shape: torch.Size, key: _Key, where: str, count: int) -> Tensor:
        """Return a tensor for copies of the batch.

        Raises:
            Ungatable: its rows are not known to belong to one sample each.
        """
        rows = self._row_map.result(key, where)
        result = value.clone() if rows.dimension is None else rows.copied(value, self.samples, count)
        if result.shape != shape:
            raise Ungatable(f"the rows of {where} do not grow with the batch as its samples do")
        return result


def _key(node: fx.Node, numbers: Mapping[fx.Node, int]) -> _Key:
    """Return what names a value in captures for any number of samples: the number of the call, then of the result."""
    if node in numbers:
        return (numbers[node],)
    if operator_of(node) == "getitem":
        return (*_key(node.args[0], numbers), node.args[1])  # type: ignore[arg-type]
    source = node.args[0] if node.args else None  # a call without effect, such as ``contiguous``
    return _key(source, numbers) if isinstance(source, fx.Node) else (node.name,)
