"""What a network costs: MACs, parameters, latency."""

from cutback.measure.latency import Latency, compare_latency
from cutback.measure.macs import macs, params
from cutback.measure.setting import LatencySetting

__all__ = ["Latency", "LatencySetting", "compare_latency", "macs", "params"]
