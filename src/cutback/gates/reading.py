"""Gathering the gradients of gates that are all ones, without multiplying anything by them."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from cutback.errors import Ungatable, UserMistake
from cutback.gates.places import Place
from cutback.gates.rows import Rows


class Reader:
    """Gathers, for each sample and unit, the sum over its places of activation times gradient.

    Args:
        names: the names of a graph's groups, in order.
        units: how many units each of the gated groups has.

    Attributes:
        roots: leaves without history of their own, at the first gates where no parameter before them learns.
    """

    def __init__(self, names: Sequence[str], units: Mapping[str, int]) -> None:
        self._names, self._units = names, units
        self._gathered: dict[str, dict[Place, Tensor]] = {}
        self._count: int | None = None
        self._layouts: dict[Place, list[tuple[str, Tensor | None, Tensor | None]]] = {}
        self._like = torch.zeros(())
        self.roots: list[Tensor] = []

    def begin(self, count: int) -> None:
        """Note that a forward pass of so many samples begins.

        Raises:
            UserMistake: gradients of another number of samples wait to be taken.
        """
        if self._gathered and count != self._count:
            raise UserMistake(
                f"gate gradients of {self._count} samples wait while {count} samples are run: call take() after each "
                "backward pass"
            )
        if not self._gathered:  # the pass before was not differentiated, or has been taken
            self.roots = []
        self._count = count

    def read(self, place: Place, gated: Tensor, activation: Tensor, rows: Rows) -> None:
        """Gather what the gradient of a gated tensor says, once it arrives.

        Args:
            place: the place.
            gated: the activation times the gates.
            activation: the activation, which must not change any more.
            rows: where its samples lie.

        Raises:
            Ungatable: it belongs to no sample, though there are several.
        """
        if rows.dimension is None and self._count != 1:
            raise Ungatable(
                f"no samples can be told apart at {place.where}, so its gates have no gradient for each of "
                f"{self._count}; leave its groups out, or run one sample at a time"
            )
        self._like = activation
        gated.register_hook(lambda gradient: self._gather(place, activation, gradient, rows))

    def take(self) -> dict[str, list[Tensor]]:
        """Return what has been gathered, ``(N, units)`` for each group and place that gradients reached; forget it.

        Where they reached none there is one of zeros.

        Raises:
            UserMistake: the model has not run since.
        """
        if self._count is None:
            raise UserMistake("no forward pass has run inside the gates since gradients were last taken")
        like = next((part for parts in self._gathered.values() for part in parts.values()), self._like)
        found = {
            name: list(self._gathered.get(name, {}).values()) or [like.new_zeros(self._count, units)]
            for name, units in self._units.items()
        }
        self._gathered, self._count, self._like, self.roots = {}, None, torch.zeros(()), []
        return found

    def _gather(self, place: Place, activation: Tensor, gradient: Tensor, rows: Rows) -> None:
        products = _products(place, activation, gradient.detach(), rows)
        for name, inside, unit in self._layout(place):
            values = products if inside is None else products[:, inside.to(products.device)]
            if unit is not None:
                values = values.new_zeros(len(values), self._units[name]).index_add_(1, unit.to(values.device), values)
            parts = self._gathered.setdefault(name, {})
            parts[place] = parts[place] + values if place in parts else values

    def _layout(self, place: Place) -> list[tuple[str, Tensor | None, Tensor | None]]:
        """Return for each group its name, which elements are its own (``None``: all) and the unit of each.

        The units are ``None`` where they are all of them in order.
        """
        if place not in self._layouts:
            self._layouts[place] = []
            group, unit = place.group.reshape(-1), place.unit.reshape(-1)
            for number in map(int, np.unique(group[group >= 0])):
                name, inside = self._names[number], np.flatnonzero(group == number)
                every = len(inside) == len(group)
                ordered = np.array_equal(unit[inside], np.arange(self._units[name]))
                self._layouts[place].append(
                    (
                        name,
                        None if every else torch.from_numpy(inside),
                        None if ordered else torch.from_numpy(unit[inside]),
                    )
                )
        return self._layouts[place]


def _products(place: Place, activation: Tensor, gradient: Tensor, rows: Rows) -> Tensor:
    """Return activation times gradient summed over what belongs to one sample and one element; ``(N, elements)``."""
    if activation.dtype in (torch.float16, torch.bfloat16):
        activation, gradient = activation.float(), gradient.float()
    kept = [d for d, size in enumerate(place.group.shape) if size > 1 and d != rows.dimension]
    stay = kept if rows.dimension is None else [*kept, rows.dimension]
    over = [d for d in range(activation.dim()) if d not in stay]
    products = activation * gradient  # and a sum: several times faster than a contraction of such narrow matrices
    summed = products.sum(over) if over else products
    if rows.dimension is None:
        return summed.reshape(1, -1)
    summed = summed.movedim(sorted(stay).index(rows.dimension), 0)
    return rows.gathered(summed.reshape(len(summed), -1))
