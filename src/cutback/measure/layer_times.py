"""Which widths of a call are measured, and what lies between them.

Kernels work on blocks of channels: a width of 49 may cost what 64 costs. Each axis is therefore measured finely, just
at and just above each multiple of a block, with the other axis whole: its profile. How the two work together is smooth,
and measured on a coarse grid: by how much the time there differs from the product of the profiles.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cutback.measure.latency_table import LatencyTable, Widths
from cutback.measure.layer_call import Axis, LayerCall

Array = NDArray[np.float64]
COARSE = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 3 / 4, 1)
"""Shares of an axis at which the two axes are measured together."""
_SMALL = 16
"""Axes up to this size are measured at every width."""


def fine_widths(axis: Axis) -> list[int]:
    """Return the widths at which the profile of an axis is measured, rising."""
    size, multiple = axis.dense, axis.multiple
    if multiple > 1:
        steps = size // multiple
        chosen = np.unique(np.linspace(1, steps, min(steps, 32)).round().astype(int)) * multiple
        return sorted({*chosen.tolist(), size})
    if size <= _SMALL:
        return list(range(1, size + 1))
    block = next((block for block, most in ((8, 128), (16, 512), (32, 1024)) if size <= most), size // 32)
    starts = range(0, size, block)
    return sorted({1, 2, 4, size, *(width for start in starts for width in (start, start + 1) if 0 < width <= size)})


def coarse_widths(axis: Axis) -> list[int]:
    """Return the widths at which an axis is measured together with the other, rising and at whole blocks."""
    block = 16 if axis.dense >= 64 else axis.multiple
    shares = [max(round(axis.dense * share / block) * block, min(block, axis.dense)) for share in COARSE[:-1]]
    return sorted({*shares, axis.dense})


def wanted_widths(call: LayerCall) -> list[Widths]:
    """Return the widths at which a call is measured."""
    if not call.axes:
        return [()]
    if len(call.axes) == 1:
        return [(width,) for width in fine_widths(call.axes[0])]
    first, second = call.axes
    wanted = [(width, second.dense) for width in sorted({*fine_widths(first), *coarse_widths(first)})]
    wanted += [(first.dense, width) for width in sorted({*fine_widths(second), *coarse_widths(second)})]
    wanted += [(a, b) for a in coarse_widths(first)[:-1] for b in coarse_widths(second)[:-1]]
    return list(dict.fromkeys(wanted))


class LayerTimes:
    """Times of calls at any widths, in milliseconds.

    Args:
        calls: what was measured at ``wanted_widths`` of each.
        table: where that was noted.
    """

    def __init__(self, calls: Sequence[LayerCall], table: LatencyTable) -> None:
        count = len(calls)
        profiles: list[Array] = [np.ones(2)]
        starts = np.zeros((count, 2), dtype=np.int64)
        self._most = np.ones((count, 2), dtype=np.int64)
        self._knots = np.tile(np.arange(1.0, len(COARSE) + 1), (count, 2, 1))
        self._factors = np.ones((count, len(COARSE), len(COARSE)))
        self._dense = np.ones(count)
        end = 2
        for row, call in enumerate(calls):
            self._dense[row] = table.time(call, call.dense)
            for number, axis in enumerate(call.axes):
                profile = _profile(call, number, table) / self._dense[row]
                starts[row, number], self._most[row, number] = end, axis.dense
                profiles.append(profile)
                end += len(profile)
            if len(call.axes) == 2:
                own = [profiles[-2], profiles[-1]]
                self._knots[row], self._factors[row] = _corrections(call, own, self._dense[row], table)
        self._starts, self._profiles = starts, np.concatenate(profiles)

    def at(self, widths: NDArray[np.int64]) -> Array:
        """Return the time of each call, ``(..., calls)``.

        Args:
            widths: of the axes of each call, shape ``(..., calls, 2)``; of axes that a call does not have anything.
        """
        inside = np.clip(widths, 1, self._most)
        shares = self._profiles[self._starts + inside]
        place, fraction = _places(self._knots, inside)
        rows = np.arange(len(self._dense))
        (a, b), (u, v) = np.moveaxis(place, -1, 0), np.moveaxis(fraction, -1, 0)
        low = self._factors[rows, a, b] * (1 - v) + self._factors[rows, a, b + 1] * v
        high = self._factors[rows, a + 1, b] * (1 - v) + self._factors[rows, a + 1, b + 1] * v
        return self._dense * shares[..., 0] * shares[..., 1] * (low * (1 - u) + high * u)


def _profile(call: LayerCall, number: int, table: LatencyTable) -> Array:
    """Return the times over all widths of one axis, the other whole, shape ``(dense + 1,)``; entry 0 is that of 1."""
    axis = call.axes[number]
    coarse = coarse_widths(axis) if len(call.axes) == 2 else []
    measured = sorted({*fine_widths(axis), *coarse})
    times = [table.time(call, (*call.dense[:number], width, *call.dense[number + 1 :])) for width in measured]
    return np.interp(np.arange(axis.dense + 1), measured, times)


def _corrections(call: LayerCall, profiles: Sequence[Array], dense: float, table: LatencyTable) -> tuple[Array, Array]:
    """Return the knots of both axes, and by what the product of the profiles is multiplied there."""
    widths = [coarse_widths(axis) for axis in call.axes]
    factors = np.array(
        [[table.time(call, (a, b)) / (dense * profiles[0][a] * profiles[1][b]) for b in widths[1]] for a in widths[0]]
    )
    missing = [len(COARSE) - len(own) for own in widths]
    knots = np.array(
        [[*own, *(own[-1] + 1 + extra for extra in range(more))] for own, more in zip(widths, missing, strict=True)],
        dtype=np.float64,
    )
    return knots, np.pad(factors, [(0, more) for more in missing], mode="edge")


def _places(knots: Array, widths: NDArray[np.int64]) -> tuple[NDArray[np.int64], Array]:
    """Return between which knots widths lie, and how far from one to the next; beyond the ends at the ends."""
    place = np.clip((widths[..., None] >= knots).sum(axis=-1) - 1, 0, knots.shape[-1] - 2)
    each = np.broadcast_to(knots, (*widths.shape, knots.shape[-1]))
    below, above = (np.take_along_axis(each, (place + more)[..., None], axis=-1)[..., 0] for more in (0, 1))
    return place, np.clip((widths - below) / (above - below), 0.0, 1.0)
