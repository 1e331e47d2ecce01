"""Where in the model's own code a recorded call stands."""

import os
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from types import CodeType

import torch
from torch import fx
from torch.overrides import TorchFunctionMode

SOURCE = "cutback_source"
_OTHERS = tuple(f"{Path(path).parent}{os.sep}" for path in (torch.__file__, Path(__file__).parent))
_GENERATED = "<"  # code that never was in a file: "<string>", "<frozen importlib>"


def source_line(node: fx.Node) -> str:
    """Return where the model's code makes a call: ``nets/block.py:41``; empty where that is not known.

    Args:
        node: a call of a captured graph.
    """
    file, _, line = node.meta.get(SOURCE, "").rpartition(":")
    return f"{_readable(file)}:{line}" if file else ""


def calling_line(outermost: CodeType) -> str:
    """Return file and line of the innermost running function that is neither torch's nor cutback's.

    Args:
        outermost: where to stop looking: the function that calls the model.
    """
    frame = sys._getframe(1)  # noqa: SLF001 (what the traceback module reads too)
    while frame is not None and frame.f_code is not outermost:
        file = frame.f_code.co_filename
        if not _is_machinery(file):
            return f"{file}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


@lru_cache(maxsize=4096)
def _is_machinery(file: str) -> bool:
    return file.startswith(_GENERATED) or file.startswith(_OTHERS)


@lru_cache(maxsize=4096)
def _readable(file: str) -> str:
    """Return a path relative to the current directory, or its last two parts where it lies elsewhere."""
    path = Path(file)
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(Path(*path.parts[-2:]))


class EachCall(TorchFunctionMode):
    """Reports each call of torch's functions that the model's code makes, once it has been made.

    Args:
        report: called after each.
    """

    def __init__(self, report: Callable[[], None]) -> None:
        super().__init__()
        self._report = report

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: tuple[type, ...],
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        """Call the function and report."""
        result = func(*args, **(kwargs or {}))
        self._report()
        return result
