"""One gated forward pass: the captured graph, call by call, with gates on what a call is given or returns."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from cutback.errors import Ungatable
from cutback.gates.beside import Beside
from cutback.gates.factors import Factors
from cutback.gates.live import LiveCapture
from cutback.gates.places import Place
from cutback.gates.reading import Reader
from cutback.gates.rows import RowMap, Rows, first_mixer
from cutback.graph.capture import operator_of

Observer = Callable[[Place, Tensor], None]
"""Receives a place and the activation there."""


@dataclass(frozen=True, eq=False)
class Stand:
    """A place in a capture in use.

    Attributes:
        place: the place.
        source: the node whose value its gates multiply.
        shared: whether other places' gates multiply the same value alike.
        rewritten: whether the value is written over later, so that it has to be copied to be read.
        reads: whether it is a place whose gradients are gathered and whose activation is observed.
        masks: whether it is a place at which factors multiply.
    """

    place: Place
    source: fx.Node
    shared: bool
    rewritten: bool
    reads: bool = True
    masks: bool = True


Standing = Mapping[fx.Node, Sequence[Stand]]
"""The places at each call (those on what it is given), and at each node (those on what it returns)."""


def standing(live: LiveCapture, places: Sequence[Place], masked: Sequence[Place] | None = None) -> Standing:
    """Find the nodes of places in a capture.

    Args:
        live: the capture.
        places: those of the gates.
        masked: those at which factors multiply, where they are others.
    """
    found: dict[fx.Node, list[Stand]] = {}
    for own, reads, masks in ((places, True, masked is None), (masked or (), False, True)):
        sources = [live.source(place) for place in own]
        given = [_alike(place, source) for place, source in zip(own, sources, strict=True) if place.argument]
        for place, source in zip(own, sources, strict=True):
            at = live.calls[place.call] if place.argument else source
            shared = bool(place.argument) and given.count(_alike(place, source)) > 1
            rewritten = reads and _rewritten(source, place, alone=True)
            found.setdefault(at, []).append(Stand(place, source, shared, rewritten, reads, masks))
    return found


class Passing:
    """Runs the calls of one gated forward pass.

    Args:
        live: the capture.
        stands: where gates stand in it.
        row_map: gives, for the number of a traced capture, where samples lie.
        factors: what activations are multiplied by.
        reader: gathers gradients; ``None`` to read none.
        observe: receives activations.
        beside: runs layers once more under other factors; ``None`` for none.

    Raises:
        Ungatable: there is one factor a sample where samples mix.
    """

    def __init__(
        self,
        live: LiveCapture,
        stands: Standing,
        row_map: Callable[[int], RowMap],
        factors: Factors,
        reader: Reader | None,
        observe: Observer | None,
        beside: Beside | None = None,
    ) -> None:
        self._live, self._stands, self._row_map = live, stands, row_map
        self._factors, self._observe, self._beside = factors, observe, beside
        self._reader = reader if torch.is_grad_enabled() else None
        self._values: dict[tuple[fx.Node, bytes, bytes], Tensor] = {}
        if self._reader is not None:
            self._reader.begin(live.samples)
        if factors.each_sample:
            factors.check(live.samples)
            places = [stand.place for each in stands.values() for stand in each if stand.masks]
            first = min((place.call + (place.argument is None) for place in places), default=0)
            mixer = first_mixer(live, row_map(live.traced), first)
            if mixer:
                raise Ungatable(
                    f"one factor for each sample needs samples that do not meet, but {mixer}; use one factor for the "
                    "whole batch, or eval mode"
                )

    def call(self, node: fx.Node, args: Sequence[object], kwargs: Mapping[str, object]) -> object:
        """Run a call, with gates on what it is given or returns."""
        stands = self._stands.get(node, ())
        for stand in stands:
            if stand.place.argument is not None:
                args, kwargs = self._with_gate(node, args, kwargs, stand)
        result = node.target(*args, **kwargs)  # type: ignore[operator]
        if self._beside is not None:
            self._beside.follow(node, args, kwargs, result)
        for stand in stands:
            if stand.place.argument is None and isinstance(result, Tensor):
                result = self._gated(result, stand, itself=True)
        return result

    def _with_gate(
        self, node: fx.Node, args: Sequence[object], kwargs: Mapping[str, object], stand: Stand
    ) -> tuple[Sequence[object], Mapping[str, object]]:
        """Return a call's arguments with a gate on one of them."""
        place = stand.place
        names = [argument.name for argument in node.target._schema.arguments]  # type: ignore[union-attr]
        position = names.index(str(place.argument))
        given = args[position] if position < len(args) else kwargs[str(place.argument)]
        if isinstance(given, list | tuple) and place.item is not None:
            changed: object = [self._shared(item, stand) if n == place.item else item for n, item in enumerate(given)]
        else:
            changed = self._shared(given, stand)
        if position < len(args):
            return [*args[:position], changed, *args[position + 1 :]], kwargs
        return args, {**kwargs, str(place.argument): changed}

    def _shared(self, value: object, stand: Stand) -> object:
        """Return a gated value, the same one for all places alike."""
        if not isinstance(value, Tensor):
            return value
        if not stand.shared:
            return self._gated(value, stand, itself=False)
        key = _alike(stand.place, stand.source)
        if key not in self._values:
            self._values[key] = self._gated(value, stand, itself=False)
        return self._values[key]

    def _gated(self, value: Tensor, stand: Stand, *, itself: bool) -> Tensor:
        """Return a value times its gates, with what is asked for being read from it.

        Args:
            value: the activation.
            stand: the place.
            itself: whether all that uses the value is behind the gates, so that its own gradient is theirs.
        """
        place = stand.place
        factor = self._factors.at(place, lambda: self._rows(stand)) if stand.masks else None
        result = value
        if factor is not None:
            result = value * factor.to(value.device, value.dtype)
        if not stand.reads:
            return result
        if self._observe is not None:
            self._observe(place, result)
        if self._reader is None or not value.is_floating_point():
            return result
        if not result.requires_grad:  # no parameter before it learns; the copy may be written to in place
            root = result.detach().requires_grad_()
            self._reader.roots.append(root)
            result = root.clone()
        elif not itself and factor is None:
            result = torch.ops.aten.alias.default(result)
        plain = value.detach()
        self._reader.read(place, result, plain.clone() if stand.rewritten else plain, self._rows(stand))
        return result

    def _rows(self, stand: Stand) -> Rows:
        """Return where samples lie at a place."""
        samples = self._live.samples
        if samples == 1:
            return Rows(None)
        rows = self._row_map(self._live.traced).at(stand.place)
        shape = tuple(stand.source.meta["val"].shape)
        if rows.dimension is not None and shape[rows.dimension] != rows.repeats * samples:
            raise Ungatable(
                f"{stand.place.where} has shape {shape} for {samples} samples, where each had {rows.repeats} rows; "
                "trace the model with inputs of the shape it is used with"
            )
        return rows


def _alike(place: Place, source: fx.Node) -> tuple[fx.Node, bytes, bytes]:
    """Return what makes two places on the same value one."""
    return source, place.group.tobytes(), place.unit.tobytes()


def _rewritten(source: fx.Node, place: Place, *, alone: bool) -> bool:
    """Say whether a value that is read is written over later.

    What ``relu_`` leaves of a result serves as well if nothing else reads that: where it writes zeros the gradient is
    zero too.

    Args:
        source: the value, or what shares its memory.
        place: where it is read.
        alone: whether nothing else uses what ``source`` shares the memory of.
    """
    alone = alone and len(source.users) == 1
    for user in source.users:
        schema = getattr(user.target, "_schema", None)
        if schema is None:
            continue
        for position, argument in enumerate(schema.arguments):
            aliased = argument.alias_info is not None
            given = user.args[position] if position < len(user.args) else user.kwargs.get(argument.name)
            if not aliased or given is not source:
                continue
            if argument.alias_info.is_write:
                if operator_of(user) != "aten::relu" or place.argument is not None or not alone:
                    return True
            elif _rewritten(user, place, alone=alone):
                return True
    return False
