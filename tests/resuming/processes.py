"""Command lines in processes of their own that start at once, to be killed at any instant.

The processes are forked from a server that has imported and run everything once, so that a run takes the time of its
work alone.
"""

import contextlib
import hashlib
import importlib
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from cutback.cli.main import main

ROOT = Path(__file__).resolve().parent.parent.parent
OUTPUT = "out.txt"
VARYING = {"time", "seconds", "pictures_per_second"}
"""What two runs that do the same log differently."""


def forking() -> ForkServerContext:
    """Return what makes processes by forking a server; at the first call the server starts, which takes a while."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.resuming.warmed"])
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), str(ROOT), *filter(None, [before])])
    try:
        first = context.Process(target=int)
        first.start()
        first.join()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
    return context


def started(arguments: Sequence[str], folder: Path, first: str = "") -> BaseProcess:
    """Start a command line in a folder; what it prints goes to ``out.txt`` there.

    Args:
        arguments: what follows ``cutback``.
        folder: where it works.
        first: module whose ``register`` is called first.
    """
    process = forking().Process(target=run, args=(list(arguments), str(folder), first))
    process.start()
    return process


def finished(arguments: Sequence[str], folder: Path, first: str = "") -> None:
    """Carry out a command line.

    Raises:
        RuntimeError: it failed; tells what it has printed.
    """
    process = started(arguments, folder, first)
    process.join()
    if process.exitcode != 0:
        raise RuntimeError(
            f"cutback {' '.join(arguments)} ended with {process.exitcode}:\n{(folder / OUTPUT).read_text()}"
        )


def killed(arguments: Sequence[str], folder: Path, when: Callable[[], bool], first: str = "") -> bool:
    """Start a command line and kill it by SIGKILL as soon as ``when`` holds; say whether it still ran then."""
    process = started(arguments, folder, first)
    while process.is_alive() and not when():
        time.sleep(0.001)
    alive = process.is_alive()
    if alive and process.pid is not None:
        os.kill(process.pid, signal.SIGKILL)
    process.join()
    return alive


def run(arguments: list[str], folder: str, first: str) -> None:
    """Carry out a command line in this process, and end it with its exit code."""
    torch.set_num_threads(1)
    if first:
        importlib.import_module(first).register()
    with (
        Path(folder, OUTPUT).open("a", encoding="utf-8") as out,
        contextlib.chdir(folder),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(out),
    ):
        code = main(arguments)
    sys.exit(code)


class SomeTimeAfter:
    """A condition: some time has passed since a run has reached one of its parts.

    Args:
        folder: the run's folder.
        part: number of the part.
        seconds: how long after.
    """

    def __init__(self, folder: Path, part: int, seconds: float) -> None:
        self._folder, self._part, self._seconds = folder, part, seconds
        self._since: float | None = None

    def __call__(self) -> bool:
        """Say whether it holds."""
        if self._since is None and part_of(self._folder) >= self._part:
            self._since = time.monotonic()
        return self._since is not None and time.monotonic() >= self._since + self._seconds


def part_of(folder: Path) -> int:
    """Return the part at which a run is by its newest checkpoint; -1 where there is none, or it goes right now."""
    return state_of(folder).get("stage", -1)


def state_of(folder: Path) -> dict[str, Any]:
    """Return a run's newest checkpoint as it is written, without tensors; empty where there is none."""
    try:
        newest = max(path for path in (folder / "checkpoints").iterdir() if path.name.isdecimal())
        return dict(json.loads((newest / "tree.json").read_bytes())["tree"]["dict"])
    except (OSError, ValueError):  # it goes right now
        return {}


def weights(folder: Path) -> str:
    """Return the hash of a run's final weights."""
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def events(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's log, without what varies."""
    found = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [
        {key: value for key, value in event.items() if key not in VARYING}
        for event in found
        if event["event"] != "resumed"
    ]
