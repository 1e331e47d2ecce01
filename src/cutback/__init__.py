"""cutback makes trained convolutional networks physically smaller and proves each cut.

Example:
    >>> import torch, cutback
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 2, 3))
    >>> graph = cutback.trace(net, torch.zeros(1, 3, 8, 8))
    >>> plan = cutback.plan(graph, score="l1", budget="macs=50%")
    >>> proof = cutback.apply_(graph, plan)
    >>> net[0].out_channels
    4
"""

from cutback import errors, measure, methods, scores
from cutback.api import apply, apply_, load, load_plan, plan, prune, save, trace
from cutback.errors import CutbackError
from cutback.graph.graph import Graph
from cutback.planning.plan import Plan
from cutback.planning.sensitivity import Sensitivity
from cutback.surgery.verify import Proof, prove
from cutback.surgery.wrappers import rewrap
from cutback.trials.sensitivity import sensitivity

__version__ = "0.1.0"
__all__ = [
    "CutbackError",
    "Graph",
    "Plan",
    "Proof",
    "Sensitivity",
    "apply",
    "apply_",
    "errors",
    "load",
    "load_plan",
    "measure",
    "methods",
    "plan",
    "prove",
    "prune",
    "rewrap",
    "save",
    "scores",
    "sensitivity",
    "trace",
]
