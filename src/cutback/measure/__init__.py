"""What a network costs: MACs, parameters, latency."""

from cutback.measure.latency import Latency, compare_latency
from cutback.measure.macs import macs, params

__all__ = ["Latency", "compare_latency", "macs", "params"]
