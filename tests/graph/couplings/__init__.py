"""Networks in which two channels are coupled only through one operator; the expected units are written by hand."""

import importlib
import pkgutil

from tests.graph.couplings.base import COUPLINGS, Coupling

__all__ = ["COUPLINGS", "Coupling"]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
