"""Named things that live one a file: scores, rules, models, methods, data sources."""

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from cutback.errors import UnknownName

Entry = TypeVar("Entry")


def near_misses(name: str, known: list[str]) -> str:
    """Say which known names are close to ``name``, or list a few known ones: ``"did you mean 'l1'?"``."""
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(repr(candidate) for candidate in close)}?"
    shown = ", ".join(sorted(known)[:12])
    return f"known names: {shown}{', ...' if len(known) > 12 else ''}"


class Registry(Generic[Entry]):
    """A table from names to entries, filled by the modules of one package.

    The package's modules are imported at the first look-up, not before; each registers what it defines.
    Adding an entry is therefore adding a file.

    Args:
        kind: what an entry is called in messages, for instance ``"score"``.
        package: dotted name of the package whose modules register entries.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self._package = package
        self._entries: dict[str, Entry] = {}
        self._filled = False

    def register(self, *names: str) -> Callable[[Entry], Entry]:
        """Return a decorator that files the decorated object under each of ``names``."""

        def file(entry: Entry) -> Entry:
            for name in names:
                if self._entries.setdefault(name, entry) is not entry:
                    raise ValueError(f"{self.kind} {name!r} is registered twice")
            return entry

        return file

    def find(self, name: str) -> Entry | None:
        """Return the entry called ``name``, or ``None``."""
        self._fill()
        return self._entries.get(name)

    def get(self, name: str) -> Entry:
        """Return the entry called ``name``.

        Raises:
            UnknownName: nothing is called that; the message lists near misses.
        """
        entry = self.find(name)
        if entry is None:
            raise UnknownName(f"no {self.kind} is called {name!r}; {near_misses(name, list(self._entries))}")
        return entry

    def __iter__(self) -> Iterator[str]:
        self._fill()
        return iter(sorted(self._entries))

    def _fill(self) -> None:
        if self._filled:
            return
        package = importlib.import_module(self._package)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{self._package}.{module.name}")
        self._filled = True
