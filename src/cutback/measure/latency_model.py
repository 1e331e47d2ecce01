"""The latency of a traced network for any widths, from a measured table and whole passes to calibrate it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cutback.graph.graph import Graph
from cutback.measure.latency_table import LatencyTable, Timer
from cutback.measure.layer_calls import layer_calls
from cutback.measure.layer_times import LayerTimes, wanted_widths
from cutback.measure.setting import LatencySetting


@dataclass(frozen=True)
class Calibration:
    """From the sum of the layers to a whole pass: ``overhead + factor * sum``.

    Layers timed alone find their input in the cache and pay nothing for the Python code between them.

    Attributes:
        factor: what the sum is multiplied by.
        overhead: milliseconds that no width changes.
    """

    factor: float = 1.0
    overhead: float = 0.0

    @classmethod
    def through(cls, sums: Sequence[float], measured: Sequence[float]) -> "Calibration":
        """Return the calibration that fits whole passes: one, or a narrow and a wide one.

        Args:
            sums: the sum of the layers of each, in milliseconds.
            measured: what each pass took.
        """
        if len(sums) == 1 or sums[0] == sums[1]:
            return cls(measured[0] / sums[0])
        factor = (measured[1] - measured[0]) / (sums[1] - sums[0])
        overhead = measured[1] - factor * sums[1]
        # Noise may turn either negative, which nothing on a machine is.
        return cls(factor, overhead) if factor > 0 and overhead >= 0 else cls(measured[1] / sums[1])

    def moved_through(self, total: float, measured: float) -> "Calibration":
        """Return a calibration of the same overhead that gives what one more pass took."""
        overhead = min(self.overhead, measured / 2)
        return Calibration((measured - overhead) / total, overhead)

    def __call__(self, total: float) -> float:
        """Return the latency, given the sum of the layers."""
        return self.overhead + self.factor * total


class LatencyModel:
    """Predicts the time of one forward pass in eval mode, in milliseconds, for any widths.

    Args:
        graph: the traced network.
        setting: batch, threads and cache.
        timer: measures one call; ``None`` for the clock of this machine.

    Attributes:
        calibration: from the sum of the layers to a whole pass.
        measured: how many measurements had to be made.
    """

    def __init__(self, graph: Graph, setting: LatencySetting, *, timer: Timer | None = None) -> None:
        calls = layer_calls(graph, setting.batch)
        table = LatencyTable(setting, graph.inputs.tensors()[0].device, timer)
        table.measure((call, wanted_widths(call)) for call in calls)
        self.measured = table.measured
        self.calibration = Calibration()
        self._times = LayerTimes(calls, table)
        self._units = np.zeros((2 * len(calls), len(graph.groups)))
        self._fixed = np.ones(2 * len(calls))
        for row, call in enumerate(calls):
            for number, axis in enumerate(call.axes):
                self._units[2 * row + number], self._fixed[2 * row + number] = axis.units, axis.fixed
        self._whole = np.array([group.units for group in graph.groups], dtype=np.int64)

    def totals(self, kept: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the sum of the layers for several cuts, ``(cuts,)``, given ``(cuts, groups)`` units that stay."""
        widths = np.rint(kept @ self._units.T + self._fixed).astype(np.int64)
        return self._times.at(widths.reshape(len(kept), -1, 2)).sum(axis=-1)

    def total(self, kept: NDArray[np.int64]) -> float:
        """Return the sum of the layers, given how many units of each group stay."""
        return float(self.totals(kept[None])[0])

    def of(self, kept: NDArray[np.int64]) -> float:
        """Return the predicted latency, given how many units of each group stay."""
        return self.calibration(self.total(kept))

    @property
    def dense(self) -> float:
        """The predicted latency before a cut."""
        return self.of(self._whole)
