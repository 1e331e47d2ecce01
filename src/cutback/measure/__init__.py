"""What a network costs: MACs, parameters, activation memory, latency."""

from cutback.measure.latency import Latency, compare_latency
from cutback.measure.macs import macs, params
from cutback.measure.memory import memory, peak_memory

__all__ = ["Latency", "compare_latency", "macs", "memory", "params", "peak_memory"]
