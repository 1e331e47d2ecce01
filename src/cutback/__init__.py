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

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cutback import errors, measure, methods, scores
    from cutback.api import apply, apply_, load, load_plan, plan, prune, save, trace
    from cutback.errors import CutbackError
    from cutback.graph.graph import Graph
    from cutback.planning.plan import Plan
    from cutback.planning.sensitivity import Sensitivity
    from cutback.surgery.verify import Proof, prove
    from cutback.surgery.wrappers import rewrap
    from cutback.trials.correlation import Correlation, correlate
    from cutback.trials.sensitivity import sensitivity

__version__ = "0.1.0"
__all__ = [
    "Correlation",
    "CutbackError",
    "Graph",
    "Plan",
    "Proof",
    "Sensitivity",
    "apply",
    "apply_",
    "correlate",
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
_HOMES = {
    "cutback.api": ("apply", "apply_", "load", "load_plan", "plan", "prune", "save", "trace"),
    "cutback.errors": ("CutbackError",),
    "cutback.graph.graph": ("Graph",),
    "cutback.planning.plan": ("Plan",),
    "cutback.planning.sensitivity": ("Sensitivity",),
    "cutback.surgery.verify": ("Proof", "prove"),
    "cutback.surgery.wrappers": ("rewrap",),
    "cutback.trials.correlation": ("Correlation", "correlate"),
    "cutback.trials.sensitivity": ("sensitivity",),
}
"""Where each public name comes from; one that is missing here is a module of this package."""


def __getattr__(name: str) -> object:
    """Import a public name when it is first used: tracing needs torch's symbolic shapes, planning needs scipy."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = next((module for module, names in _HOMES.items() if name in names), None)
    found: object = (
        importlib.import_module(f"{__name__}.{name}") if home is None else getattr(importlib.import_module(home), name)
    )
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
