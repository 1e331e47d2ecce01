"""Talking to the user: results on stdout, progress on stderr, bars where that is a terminal, plain lines elsewhere."""

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from cutback.train.progress import Progress

PLAIN_WIDTH = 120
NOTEWORTHY_SECONDS = 2.0
"""A step that takes longer gets a line of its own."""
SECONDS_BETWEEN_LINES, MOST_SECONDS_BETWEEN_LINES = 5.0, 60.0
"""Lines come ever more rarely, so that a log of a long run stays short."""


def stdout(width: int = PLAIN_WIDTH) -> Console:
    """Return a console on stdout; where that is no terminal, lines are broken at a width of their own, not at 80."""
    return Console(width=None if sys.stdout.isatty() else width, highlight=False, markup=False)


def print_json(document: Mapping[str, object]) -> None:
    """Print a result as JSON on stdout."""
    print(json.dumps(document, indent=2))


@contextlib.contextmanager
def stdout_kept_clean() -> Iterator[None]:
    """Send what a user's own code prints to stderr, so that stdout holds results only."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


class Reporter:
    """Tells on stderr what is going on.

    Args:
        quiet: tell nothing.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True, quiet=quiet)

    def line(self, text: str) -> None:
        """Print one line."""
        self._console.print(text)

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[Progress]:
        """Show a step of the work while it lasts.

        Yields:
            A callback to draw progress with; a bar that is never told anything pulses.
        """
        start = time.monotonic()
        if self._console.is_terminal:
            with self._bar(title) as update:
                yield update
        else:
            yield _Lines(self, title)
        self._took(title, start)

    @contextlib.contextmanager
    def training(self, title: str) -> Iterator[tuple[Progress | None, Callable[[str], None]]]:
        """Show a training while it lasts: with a bar, or where that is no terminal with a line an epoch.

        Yields:
            A callback to draw progress with, and one that takes the line of an epoch.
        """
        start = time.monotonic()
        if self._console.is_terminal:
            with self._bar(title) as update:
                yield update, lambda _: None
        else:
            yield None, lambda text: self.line(f"{title}: {text}")
        self._took(title, start)

    def _took(self, title: str, start: float) -> None:
        seconds = time.monotonic() - start
        if seconds > NOTEWORTHY_SECONDS:
            self.line(f"{title}: {seconds:.1f} s")

    @contextlib.contextmanager
    def _bar(self, title: str) -> Iterator[Progress]:
        columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
        with Bars(*columns, console=self._console, transient=True) as bars:
            task = bars.add_task(title, total=None)

            def update(done: int, total: int, text: str) -> None:
                bars.update(task, completed=done, total=total, description=f"{title}: {text}")

            yield update


class _Lines:
    """Draws progress as plain lines."""

    def __init__(self, reporter: Reporter, title: str) -> None:
        self._reporter, self._title = reporter, title
        self._next, self._pause = time.monotonic() + NOTEWORTHY_SECONDS, SECONDS_BETWEEN_LINES

    def __call__(self, done: int, total: int, text: str) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next, self._pause = now + self._pause, min(2 * self._pause, MOST_SECONDS_BETWEEN_LINES)
            self._reporter.line(f"{self._title}: {text} ({done / max(total, 1):.0%})")
