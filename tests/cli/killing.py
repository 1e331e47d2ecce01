"""Command lines in processes of their own that start at once, to be killed at any instant.

The processes are forked from a server that has imported and run everything once, so that a run takes the time of its
work alone.
"""

import contextlib
import hashlib
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from cutback.cli.main import main
from tests.train import iterative

NETWORK = """
from torch import nn

def make():
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3, stride=2), nn.BatchNorm2d(12),
        nn.ReLU(), nn.Dropout(0.1), nn.Flatten(), nn.Linear(12 * 9, 10)
    )
"""
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.cli.warmed"])


def started(arguments: Sequence[str], folder: Path) -> BaseProcess:
    """Start a command line in a folder; what it prints goes to ``out.txt`` there."""
    process = CONTEXT.Process(target=_run, args=(list(arguments), str(folder)))
    process.start()
    return process


def finished(arguments: Sequence[str], folder: Path, seconds: float = 300) -> int:
    """Carry out a command line; return its exit code."""
    process = started(arguments, folder)
    process.join(seconds)
    code = process.exitcode
    if code is None:
        process.kill()
        raise TimeoutError(f"{arguments} ran longer than {seconds:g} s")
    return code


def killed(arguments: Sequence[str], folder: Path, when: Callable[[], bool]) -> bool:
    """Start a command line and kill it by SIGKILL as soon as ``when`` holds; say whether it still ran then."""
    process = started(arguments, folder)
    while process.is_alive() and not when():
        time.sleep(0.001)
    alive = process.is_alive()
    if alive and process.pid is not None:
        os.kill(process.pid, signal.SIGKILL)
    process.join()
    return alive


def after(seconds: float) -> Callable[[], bool]:
    """Return a condition that holds once some time has passed."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end


def weights(folder: Path) -> str:
    """Return the hash of a run's final weights."""
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def events(folder: Path) -> list[dict]:
    """Return the lines of a run's log, without times and speeds."""
    found = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    left_out = {"time", "seconds", "pictures_per_second"}
    return [
        {key: value for key, value in event.items() if key not in left_out}
        for event in found
        if event["event"] != "resumed"
    ]


def _run(arguments: list[str], folder: str) -> None:
    torch.set_num_threads(1)
    iterative.register()
    os.chdir(folder)
    with (
        Path("out.txt").open("a", encoding="utf-8") as out,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(out),
    ):
        code = main(arguments)
    sys.exit(code)
