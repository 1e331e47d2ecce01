"""Building blocks of random networks: one file a kind, each block registered with the operator family it stands for.

A block turns ``(N, channels, 8, 8)`` into ``(N, block.out, 8, 8)``. Adding one is adding a class with ``@block(...)``
to a file here; it is then cut and proven alone and among others.
"""

import importlib
import pkgutil

from tests.graph.blocks.base import BLOCKS, FAMILIES, Block, Entry

__all__ = ["BLOCKS", "FAMILIES", "Block", "Entry"]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
