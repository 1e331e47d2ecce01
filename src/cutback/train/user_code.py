"""Functions from a user's own Python file, named ``path/to/file.py:function``."""

import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from cutback.errors import UnknownName, UserMistake
from cutback.registry import near_misses


class UserCodeError(UserMistake):
    """A user's Python file or function that cannot be found, read or run; the message names the line."""


def run_function(spec: str) -> object:
    """Load a function from a user's file, call it without arguments and return what it returns.

    Raises:
        UserMistake: as ``load_function``, or the function raised an error.
    """
    function = load_function(spec)
    path, _, name = spec.rpartition(":")
    try:
        return function()
    except (Exception, SystemExit) as error:
        raise UserCodeError(f"{name}() of {path} failed{reason_of(error, Path(path))}; correct it") from error


def load_function(spec: str) -> Callable[..., Any]:
    """Load a function from a user's file.

    The file is imported once for as long as its content stays the same, and its folder is appended to ``sys.path``,
    so that it can import its neighbours.

    Args:
        spec: ``"path/to/file.py:function"``.

    Returns:
        The function, or whatever callable has that name.

    Raises:
        UserCodeError: the specification has another form, there is no such file, or the file has a syntax error or
            fails when it is imported.
        UnknownName: the file defines no such function; the message lists near misses.
    """
    path_text, _, name = spec.rpartition(":")
    if not path_text.endswith(".py") or not name.isidentifier():
        raise UserCodeError(f"{spec!r} does not name a function in a file; write path/to/file.py:function")
    module = load_module(Path(path_text).expanduser())
    function = getattr(module, name, None)
    if not callable(function):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        hint = near_misses(name, known) if known else "it defines no functions"
        what = "no function" if function is None else f"a {type(function).__name__}, not a function,"
        raise UnknownName(f"{path_text} has {what} called {name!r}; {hint}")
    return function


def load_module(path: Path) -> ModuleType:
    """Import a file under a name made of its path and content; leave nothing behind where that fails.

    Raises:
        UserCodeError: there is no such file, or it fails when it is imported.
    """
    try:
        source = path.read_bytes()
    except OSError as error:
        neighbours = [file.name for file in path.parent.glob("*.py")] if path.parent.is_dir() else []
        hint = near_misses(path.name, neighbours) if neighbours else "check the path"
        raise UserCodeError(f"cannot read {path} ({error.strerror or error}); {hint}") from error
    path = path.resolve()
    digest = hashlib.sha256(f"{path}\0".encode() + source).hexdigest()[:16]
    module_name = f"cutback_user_{path.stem}_{digest}"
    if module_name in sys.modules:
        return sys.modules[module_name]
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None:
        raise UserCodeError(f"{path} is not a Python file; write path/to/file.py:function")
    module = importlib.util.module_from_spec(spec)
    folder = str(path.parent)
    if folder not in sys.path:
        sys.path.append(folder)
    sys.modules[module_name] = module
    try:
        # Compiled here: a cached .pyc could be older than an edit within the same second.
        exec(compile(source, str(path), "exec", dont_inherit=True), vars(module))  # noqa: S102 (the user asks for it)
    except BaseException as error:
        del sys.modules[module_name]
        if not isinstance(error, Exception | SystemExit):
            raise
        raise UserCodeError(f"{path} cannot be imported{reason_of(error, path)}; correct it") from error
    return module


def reason_of(error: BaseException, path: Path) -> str:
    """Say in one line what an error is and which line of the user's file it comes from."""
    if isinstance(error, SyntaxError):
        line, what = error.lineno, error.msg
        path = Path(error.filename or path)
        place = f", {path.name} line {line}"
    else:
        what = " ".join(str(error).split())
        own = str(path.expanduser().resolve())
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == own]
        place = f", line {lines[-1]}" if lines else ""
    return f"{place}: {type(error).__name__}{f': {what}' if what else ''}"
