"""Gates around a model: factors on its activations, and what the loss says about each."""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from cutback.errors import Ungatable, UnknownName, UserMistake
from cutback.gates.beside import Beside, Route, Told, lone_consumers, routes
from cutback.gates.factors import Factors
from cutback.gates.live import LiveCapture, captured, key_of
from cutback.gates.passing import Observer, Passing, Standing, standing
from cutback.gates.places import Place, find_places
from cutback.gates.reading import Reader
from cutback.gates.rows import RowMap, Rows, row_map
from cutback.graph.clone import state_tensors
from cutback.graph.graph import Graph
from cutback.graph.inputs import Inputs
from cutback.graph.nests import filled
from cutback.registry import near_misses


class Gates:
    """One gate a unit, at every place of a site, while the ``with`` block lasts.

    Inside it the user's own ``model(x)`` runs the graph captured from it, on its own parameters and buffers, in its
    present mode: gradients arrive and statistics move as ever, also inside ``DistributedDataParallel`` and under
    autocast. Hooks of submodules do not run. On exit, also after an exception, nothing is left behind.

    Args:
        graph: the traced model.
        site: ``consumer``, ``input``, ``norm``, ``stream``, ``output``, ``feature`` or ``map``, see ``cutback.gates``.
        groups: names of the groups to be gated; all of them by default.
        reading: gather the gradients of the gates, see ``take``.
        observe: receives each place and the activation there (masked, where it is), in the order of the forward pass.
        masks: the site at which masks multiply, where that is another: ``consumer`` silences units as a cut does.
        beside: receives what the one layer that consumes a group returns, after its norm and activation, and what it
            would return under other factors, see ``mask_beside``; ``site`` is then ``consumer``. Called in each pass in
            which gradients are recorded.

    Attributes:
        graph: the traced model.
        groups: names of the gated groups.
        places: for each of the graph's captures, the places of the gates in order.
        macs_beside: multiply-accumulates done beside the passes so far.

    Raises:
        UnknownName: there is no such site or group.
        Ungatable: a group has no place at the site, or with ``beside`` more than one; the message says which groups to
            leave out.

    Example:
        >>> import torch, cutback
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 2, 3))
        >>> graph = cutback.trace(net, torch.zeros(1, 3, 8, 8))
        >>> with Gates(graph, "norm") as gates:
        ...     net(torch.randn(5, 3, 8, 8)).square().mean().backward()
        ...     gradients = gates.take()
        >>> {name: tuple(gradient.shape) for name, gradient in gradients.items()}
        {'0': (5, 8)}
    """

    def __init__(
        self,
        graph: Graph,
        site: str = "consumer",
        *,
        groups: Sequence[str] | None = None,
        reading: bool = True,
        observe: Observer | None = None,
        masks: str | None = None,
        beside: Told | None = None,
    ) -> None:
        self.graph = graph
        self.places = [find_places(graph, number, site, groups) for number in range(len(graph.captures))]
        apart = masks is not None and masks != site
        numbers = range(len(graph.captures) if apart else 0)
        self._masked = [find_places(graph, number, str(masks), groups) for number in numbers] or None
        self.groups = tuple(group.name for group in graph.groups if groups is None or group.name in groups)
        self._units = {group.name: group.units for group in graph.groups if group.name in self.groups}
        self._names = [group.name for group in graph.groups]
        self._observe = observe
        self._reader = Reader(self._names, self._units) if reading else None
        self._factors = Factors(self._names, {})
        self._told, self._beside = beside, Factors(self._names, {})
        self.macs_beside = 0
        several = [] if beside is None else [name for name in self.groups if name not in lone_consumers(graph)]
        if several or (beside is not None and site != "consumer"):
            raise Ungatable(
                f"no single next layer can run beside the pass for {', '.join(several) or site}; ask at the site "
                "consumer, and leave out groups that several layers consume"
            )
        self._live: dict[Hashable, tuple[LiveCapture, Standing, Sequence[Route]]] = {}
        self._rows: dict[int, RowMap] = {}
        self._own_forward: object = None
        self._inside = False

    def __enter__(self) -> Self:
        """Put the gates in.

        Raises:
            UserMistake: the model is inside gates already.
        """
        held = vars(self.graph.model)
        if isinstance(held.get("forward"), _Gated):
            raise UserMistake("the model is inside other gates already; leave them first")
        self._own_forward, self._inside = held.get("forward"), True
        held["forward"] = _Gated(self._run)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the gates out."""
        self._restore()
        self._inside = False
        self._live.clear()

    def mask(self, factors: Mapping[str, Tensor]) -> None:
        """Multiply activations by one factor a unit, until told otherwise.

        Args:
            factors: for each group's name ``(units,)``, the same for all samples, or ``(N, units)``, one row a sample.
                Groups left out are not multiplied; an empty mapping ends all masking. Autograd leaves gradients in
                those that require them.

        Raises:
            UnknownName: a group is not gated.
            UserMistake: a tensor has another shape.
        """
        self._factors = self._checked(factors, (1, 2))

    def mask_beside(self, factors: Mapping[str, Tensor]) -> None:
        """Let the next layers of groups run once more on inputs multiplied by factors, until told otherwise.

        What comes out goes to ``beside``: no gradients arrive by it, and no statistics move. Batch norms in train mode
        normalise it by the batch of the pass itself. Factors of ``mask`` multiply its inputs too.

        Args:
            factors: for each group's name ``(units,)``; an empty mapping ends it.

        Raises:
            UnknownName: a group is not gated.
            UserMistake: a tensor has another shape, or nothing is there to be told.
        """
        if self._told is None:
            raise UserMistake("these gates run nothing beside the pass; make them with beside=...")
        self._beside = self._checked(factors, (1,))

    def take(self) -> dict[str, Tensor]:
        """Return the gradients of the gates that have arrived since the last call, and forget them.

        Returns:
            For each group ``(N, units)``: for each sample the derivative of what ``backward`` was called on by a factor
            on the unit at all of its places at once; zero where the pass did not reach. Of a loss averaged over the
            batch these are the samples' shares: times ``N`` they are the derivatives of each sample's own loss.

        Raises:
            UserMistake: these gates do not read, or the model has not run since.
        """
        return {name: sum(parts[1:], parts[0]) for name, parts in self.take_apart().items()}

    def take_apart(self) -> dict[str, list[Tensor]]:
        """Return what ``take`` adds up: for each group one ``(N, units)`` a place that gradients have reached.

        Raises:
            UserMistake: these gates do not read, or the model has not run since.
        """
        if self._reader is None:
            raise UserMistake("these gates do not read gradients; make them with reading=True")
        return self._reader.take()

    @property
    def roots(self) -> list[Tensor]:
        """The leaves at which the present pass begins to be differentiated, where no parameter learns.

        ``torch.autograd.grad(loss, gates.roots, allow_unused=True)`` passes all gates and leaves nothing in any
        ``grad``.
        """
        return [] if self._reader is None else self._reader.roots

    def rows(self, place: Place) -> Rows:
        """Return how the samples lie at a place.

        Raises:
            Ungatable: its rows do not belong to one sample each.
        """
        number = next(n for n, places in enumerate(self.places) if place in places)
        return self._row_map(number).at(place)

    @contextmanager
    def lifted(self) -> Iterator[None]:
        """Put the model's own forward in its place for a while."""
        held = vars(self.graph.model)
        gated = held.get("forward")
        self._restore()
        try:
            yield
        finally:
            if self._inside and gated is not None:
                held["forward"] = gated

    def _run(self, inputs: Inputs) -> object:
        """Run the gated model."""
        live, stands, taken = self._prepared(inputs)
        beside = None
        if self._told is not None and torch.is_grad_enabled():
            beside = Beside(taken, self._beside, self._told)
        passing = Passing(live, stands, self._row_map, self._factors, self._reader, self._observe, beside)
        results = live.capture.execute(state_tensors(self.graph.model), inputs, passing.call)
        if beside is not None:
            self.macs_beside += sum(live.macs.get(node, 0) for node in beside.made)
        return filled(live.capture.returned, results)

    def _checked(self, factors: Mapping[str, Tensor], dimensions: Sequence[int]) -> Factors:
        """Return factors, if there are such groups, and they have shapes of so many dimensions."""
        for name, factor in factors.items():
            if name not in self._units:
                raise UnknownName(f"no gated group is called {name!r}; {near_misses(name, list(self.groups))}")
            if factor.dim() not in dimensions or factor.shape[-1] != self._units[name]:
                shapes = f"({self._units[name]},)", f"(N, {self._units[name]})"
                raise UserMistake(
                    f"the factors of group {name} have shape {tuple(factor.shape)}; write "
                    f"{' or '.join(shapes[number - 1] for number in dimensions)}"
                )
        return Factors(self._names, factors)

    def _prepared(self, inputs: Inputs) -> tuple[LiveCapture, Standing, Sequence[Route]]:
        """Return a capture that fits the inputs, where gates stand in it, and what can be run beside it."""
        key = key_of(self.graph.model, inputs)
        if key not in self._live:
            with self.lifted():
                live = captured(self.graph, inputs)
            places = self.places[live.traced]
            masked = self._masked[live.traced] if self._masked else None
            beside = {} if self._told is None else {name: self._place_of(name, places) for name in self.groups}
            self._live[key] = live, standing(live, places, masked), routes(live, beside)
        return self._live[key]

    def _place_of(self, name: str, places: Sequence[Place]) -> Place:
        """Return the one place of a group."""
        return next(place for place in places if place.has([self._names.index(name)]))

    def _row_map(self, number: int) -> RowMap:
        if number not in self._rows:
            places = self.places[number] + (self._masked[number] if self._masked else [])
            with self.lifted():
                self._rows[number] = row_map(self.graph, number, places)
        return self._rows[number]

    def _restore(self) -> None:
        held = vars(self.graph.model)
        if isinstance(held.get("forward"), _Gated):
            del held["forward"]
        if self._inside and self._own_forward is not None:
            held["forward"] = self._own_forward


class _Gated:
    """What stands for the model's ``forward`` inside the ``with`` block."""

    def __init__(self, run: Callable[[Inputs], object]) -> None:
        self._run = run

    def __call__(self, *args: object, **kwargs: object) -> object:
        return self._run(Inputs(args, kwargs))
