"""How blocks of channels shrink: every block alike, or whole blocks."""

import fnmatch
from collections.abc import Mapping, Sequence

from torch import fx

from cutback.errors import UnknownName, UserMistake
from cutback.graph.capture import Capture, module_path
from cutback.registry import near_misses

Granularity = str | Mapping[str, str]
"""``channels`` or ``blocks``, for the whole model or by module path pattern."""

_KNOWN = ("channels", "blocks")


def check_granularity(written: object) -> None:
    """Refuse what is no granularity.

    Raises:
        UserMistake: it is neither ``channels`` nor ``blocks``.
    """
    if written not in _KNOWN:
        raise UserMistake(
            f"granularity {written!r} is none; write 'channels' or 'blocks', or a dict from module path patterns to "
            "one of these"
        )


def whole_blocks(captures: Sequence[Capture], granularity: Granularity) -> frozenset[fx.Node]:
    """Return the calls whose blocks are to stay or go whole.

    Args:
        captures: recorded forward passes.
        granularity: see ``cutback.trace``.

    Raises:
        UserMistake: it is none.
        UnknownName: a pattern matches no module that was run.
    """
    wanted = granularity if isinstance(granularity, Mapping) else {"*": granularity}
    calls = [node for capture in captures for node in capture.nodes if node.op == "call_function"]
    paths = sorted({module_path(node) for node in calls})
    found: set[fx.Node] = set()
    for pattern, kind in wanted.items():
        check_granularity(kind)
        inside = {path for path in paths if fnmatch.fnmatchcase(path, pattern)}
        if not inside and calls:
            raise UnknownName(f"granularity pattern {pattern!r} matches no module; {near_misses(pattern, paths)}")
        chosen = {node for node in calls if module_path(node) in inside}
        found = found | chosen if kind == "blocks" else found - chosen
    return frozenset(found)
