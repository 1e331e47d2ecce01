"""The latency of a traced network for any widths, from a measured table and whole passes to calibrate it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from cutback.graph.graph import Graph
from cutback.measure.latency_table import LatencyTable, Timer, Told
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
        told: told of the progress of measuring.

    Attributes:
        calibration: from the sum of the layers to a whole pass.
        measured: how many measurements had to be made.
    """

    def __init__(
        self,
        graph: Graph,
        setting: LatencySetting,
        *,
        timer: Timer | None = None,
        told: Told | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        calls = layer_calls(graph, setting.batch)
        table = LatencyTable(setting, _device(graph), timer)
        table.measure(((call, wanted_widths(call)) for call in calls), told)
        self.measured = table.measured
        self.calibration = calibration or Calibration()
        self._times = LayerTimes(calls, table)
        self._units = np.zeros((2 * len(calls), len(graph.groups)))
        self._fixed = np.ones(2 * len(calls))
        for row, call in enumerate(calls):
            for number, axis in enumerate(call.axes):
                self._units[2 * row + number], self._fixed[2 * row + number] = axis.units, axis.fixed
        self._whole = np.array([group.units for group in graph.groups], dtype=np.int64)

    def total(self, kept: NDArray[np.int64]) -> float:
        """Return the sum of the layers, given how many units of each group stay."""
        widths = np.rint(self._units @ kept + self._fixed).astype(np.int64)
        return float(self._times.at(widths.reshape(-1, 2)).sum())

    def of(self, kept: NDArray[np.int64]) -> float:
        """Return the predicted latency, given how many units of each group stay."""
        return self.calibration(self.total(kept))

    @property
    def dense(self) -> float:
        """The predicted latency before a cut."""
        return self.of(self._whole)


def _device(graph: Graph) -> torch.device:
    return graph.inputs.tensors()[0].device
