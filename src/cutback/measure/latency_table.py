"""A measured table of this machine's layers: what each call takes at which widths, kept on disk."""

import contextlib
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Sequence

import torch

from cutback.measure.layer_call import LayerCall
from cutback.measure.setting import LatencySetting, environment
from cutback.measure.stopwatch import best_time
from cutback.measure.whole_file import write_whole

FORMAT = "cutback latency table 1"

Widths = tuple[int, ...]
Timer = Callable[[LayerCall, Widths], float]
"""Returns the time of a call at some widths in milliseconds."""


class LatencyTable:
    """Times of calls alone, measured when first asked for and never again on the same machine.

    The file is named after what times depend on: device, processor, version of torch, threads. One that cannot be read
    is made anew; one that cannot be written is done without.

    Args:
        setting: threads, and the folder of the file.
        device: where the calls compute.
        timer: measures one call; ``None`` for the clock of this machine.

    Attributes:
        device: where the calls compute.
        measured: how many measurements were made, not looked up.
    """

    def __init__(self, setting: LatencySetting, device: torch.device, timer: Timer | None = None) -> None:
        self.device = device
        self.measured = 0
        self._threads = setting.threads_used
        self._environment = environment(device, self._threads)
        named = hashlib.sha256(json.dumps(self._environment, sort_keys=True).encode()).hexdigest()[:16]
        self.path = setting.folder / f"{device.type}-{self._threads}-{named}.json"
        self._timer = timer or self._time
        self._points = self._read()

    def measure(self, wanted: Iterable[tuple[LayerCall, Sequence[Widths]]]) -> None:
        """Measure what is not known yet.

        Args:
            wanted: calls, each with widths of its axes.
        """
        missing: dict[tuple[str, str], tuple[LayerCall, Widths]] = {}
        for call, several in wanted:
            key, known = call.key, self._points.get(call.key, {})
            missing.update({(key, _name(w)): (call, w) for w in several if _name(w) not in known})
        if not missing:
            return
        threads = torch.get_num_threads()
        torch.set_num_threads(self._threads)
        try:
            for (key, name), (call, widths) in missing.items():
                self._points.setdefault(key, {})[name] = self._timer(call, widths)
                self.measured += 1
        finally:
            torch.set_num_threads(threads)
            self._write()

    def time(self, call: LayerCall, widths: Widths) -> float:
        """Return the time of a call in milliseconds at widths that were measured."""
        return self._points[call.key][_name(widths)]

    def _time(self, call: LayerCall, widths: Widths) -> float:
        return best_time(call.prepared(widths, self.device), self.device)

    def _read(self) -> dict[str, dict[str, float]]:
        """Return what the file holds; nothing where there is none, or where it is damaged."""
        try:
            document = json.loads(self.path.read_text(encoding="utf-8"))
            sound = document["format"] == FORMAT and document["environment"] == self._environment
            points = {
                str(key): {str(widths): float(taken) for widths, taken in times.items()}
                for key, times in document["points"].items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}
        times = (taken for own in points.values() for taken in own.values())
        return points if sound and all(math.isfinite(taken) and taken > 0 for taken in times) else {}

    def _write(self) -> None:
        """Write the file as a whole, with what another process may have added to it meanwhile."""
        for key, times in self._read().items():
            self._points[key] = {**times, **self._points.get(key, {})}
        document = {"format": FORMAT, "environment": self._environment, "points": self._points}
        with contextlib.suppress(OSError):
            write_whole(self.path, json.dumps(document, separators=(",", ":")))


def _name(widths: Widths) -> str:
    return ",".join(map(str, widths))
