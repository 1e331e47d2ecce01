"""Published methods that prune while a network trains, one folder each, behind one interface: see ``Method``.

``cutback.methods.methods`` holds them by name; ``describe(name)`` tells paper, settings and what to expect.
"""

from cutback.methods.about import About, Description, Setting, describe, make_method, methods
from cutback.methods.group_fisher import GroupFisher
from cutback.methods.l1 import L1
from cutback.methods.method import Method

__all__ = ["L1", "About", "Description", "GroupFisher", "Method", "Setting", "describe", "make_method", "methods"]
