"""What a network costs: MACs, parameters, activation memory, latency."""

from cutback.measure.latency import Latency, compare_latency
from cutback.measure.macs import macs, params
from cutback.measure.memory import memory, peak_memory
from cutback.measure.run_time_memory import RunTimeMemory, run_time_memory
from cutback.measure.setting import LatencySetting

__all__ = [
    "Latency",
    "LatencySetting",
    "RunTimeMemory",
    "compare_latency",
    "macs",
    "memory",
    "params",
    "peak_memory",
    "run_time_memory",
]
