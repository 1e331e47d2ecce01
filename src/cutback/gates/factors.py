"""Factors on units, laid out in the shape of an activation."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from cutback.errors import Ungatable, UserMistake
from cutback.gates.places import Place
from cutback.gates.rows import Rows


class Factors:
    """One factor a unit, or one a sample and unit.

    Args:
        names: the names of a graph's groups, in order.
        factors: for some of them ``(units,)`` or ``(N, units)``.

    Attributes:
        each_sample: whether any has one row a sample.
    """

    def __init__(self, names: Sequence[str], factors: Mapping[str, Tensor]) -> None:
        self._factors = {number: factors[name] for number, name in enumerate(names) if name in factors}
        self._names = names
        self._layouts: dict[Place, tuple[list[int], Tensor] | None] = {}
        self.each_sample = any(factor.dim() == 2 for factor in factors.values())

    def check(self, count: int) -> None:
        """Check that there is a row for each sample.

        Raises:
            UserMistake: there are more, or fewer.
        """
        for number, factor in self._factors.items():
            if factor.dim() == 2 and len(factor) != count:
                raise UserMistake(
                    f"the factors of group {self._names[number]} have {len(factor)} rows for {count} samples"
                )

    def at(self, place: Place, rows: Callable[[], Rows]) -> Tensor | None:
        """Return what the activation at a place is multiplied by, in a shape that is broadcast to it.

        Args:
            place: the place.
            rows: gives where its samples lie, should that be needed.

        Returns:
            ``None`` where no factor is given for any of its units.

        Raises:
            Ungatable: the activation belongs to no sample, and factors of samples differ.
        """
        if place not in self._layouts:
            self._layouts[place] = self._layout(place)
        layout = self._layouts[place]
        if layout is None:
            return None
        numbers, index = layout
        tables = [self._factors[number] for number in numbers]
        index = index.to(tables[0].device)
        if all(table.dim() == 1 for table in tables):
            return torch.cat([tables[0].new_ones(1), *tables])[index].view(place.group.shape)
        count = max(len(table) for table in tables if table.dim() == 2)
        wide = [table if table.dim() == 2 else table.expand(count, -1) for table in tables]
        picked = torch.cat([tables[0].new_ones(count, 1), *wide], 1)[:, index]
        where = rows()
        if where.dimension is None:
            # A single sample; or nothing that inputs reach as numbers: a learned constant, an embedding of integers.
            if count > 1 and (picked.requires_grad or not torch.equal(picked, picked[:1].expand_as(picked))):
                raise Ungatable(
                    f"no samples can be told apart at {place.where}, so they cannot have factors of their own; use one "
                    "factor for the whole batch (one mask at a time)"
                )
            return picked[0].view(place.group.shape)
        others = [size for d, size in enumerate(place.group.shape) if d != where.dimension]
        return where.scattered(picked).view(-1, *others).movedim(0, where.dimension)

    def _layout(self, place: Place) -> tuple[list[int], Tensor] | None:
        """Return which groups with factors a place has, and for each element its column among theirs (0: none)."""
        group, unit = place.group.reshape(-1), place.unit.reshape(-1)
        numbers = [int(n) for n in np.unique(group) if int(n) in self._factors]
        if not numbers:
            return None
        index = np.zeros(len(group), dtype=np.int64)
        start = 1
        for number in numbers:
            inside = group == number
            index[inside] = start + unit[inside]
            start += self._factors[number].shape[-1]
        return numbers, torch.from_numpy(index)
