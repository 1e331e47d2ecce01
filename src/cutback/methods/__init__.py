"""Published methods that prune while a network trains, one folder each, behind one interface: see ``Method``.

``cutback.methods.methods`` holds them by name; ``describe(name)`` tells paper, settings and what to expect. Their
classes are attributes of this package, ``cutback.methods.Taylor``, each found in the table when it is first asked for.
"""

from cutback.methods.about import About, Description, Setting, describe, make_method, methods
from cutback.methods.method import Method

__all__ = ["About", "Description", "Method", "Setting", "describe", "make_method", "methods"]


def __getattr__(name: str) -> type[Method]:
    """Return the registered method whose class has a name."""
    if not name.startswith("_"):
        for entry in (methods.get(registered) for registered in methods):
            if entry.__name__ == name:
                return entry
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
