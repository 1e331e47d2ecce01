"""Patterns: which layers and groups a user means."""

import fnmatch
from collections.abc import Iterable, Sequence

from cutback.errors import UnknownName, UserMistake
from cutback.graph.graph import Graph, Group, layer_of
from cutback.registry import near_misses


def as_patterns(argument: str, given: object) -> tuple[str, ...]:
    """Read one pattern or several.

    Args:
        argument: what the user calls it, for messages.
        given: what the user passed: a string is one pattern.

    Raises:
        UserMistake: it is something else.

    Example:
        >>> as_patterns("ignore", "fc"), as_patterns("ignore", ["stem", "head*"])
        (('fc',), ('stem', 'head*'))
    """
    patterns = (given,) if isinstance(given, str) else tuple(given) if isinstance(given, Iterable) else (given,)
    if not all(isinstance(pattern, str) for pattern in patterns):
        raise UserMistake(f"{argument}={given!r} is no list of module path patterns; write {argument}=['head*']")
    return tuple(str(pattern) for pattern in patterns)


def matching(pattern: str, paths: Sequence[str], argument: str) -> list[str]:
    """Return the paths a glob matches: modules (``ignore``, ``skip``) or layers to cut (``keep``, ``ratios``).

    Raises:
        UnknownName: none does; the message lists near misses.
    """
    found = [path for path in paths if fnmatch.fnmatchcase(path, pattern)]
    if not found:
        what = "module" if argument in ("ignore", "skip") else "layer that can be cut"
        raise UnknownName(f"{argument} pattern {pattern!r} matches no {what}; {near_misses(pattern, list(paths))}")
    return found


def nameable(graph: Graph) -> list[str]:
    """Return what ``ignore`` can name: every module, and the parameters that the model itself holds."""
    modules = [path for path, _ in graph.model.named_modules() if path]
    return modules + [name for name, _ in graph.model.named_parameters() if not layer_of(name)]


def output_paths(group: Group) -> set[str]:
    """Return the paths of the layers that make or normalise a group's channels, and of the modules around them."""
    layers = {layer_of(slot.state) or slot.state for slot in group.slices if slot.role != "column"}
    return {".".join(parts[: n + 1]) for layer in layers for parts in [layer.split(".")] for n in range(len(parts))}
