"""Worker processes: one an architecture, with a time limit and a memory limit each."""

import ctypes
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Generic, TypeVar

import torch

Task = TypeVar("Task")
Result = TypeVar("Result")
_POLL_SECONDS = 0.2
_M_MMAP_THRESHOLD = -3  # of glibc's malloc.h
_LARGE = 4 * 2**20
"""Bytes from which on an allocation is given back to the system as soon as it is freed."""


@dataclass(frozen=True)
class Failure:
    """Why a task has no result."""

    reason: str


@dataclass
class _Running(Generic[Task]):
    task: Task
    process: BaseProcess
    answers: Connection
    deadline: float


def run(
    function: Callable[[Task], Result], tasks: Sequence[Task], *, jobs: int, seconds: float, gigabytes: float
) -> Iterator[tuple[Task, Result | Failure]]:
    """Run a function on each task in a process of its own; yield what comes back, in the order of finishing.

    Processes are forked, so that what this one has imported need not be imported again; each uses one thread.

    Args:
        function: what to run.
        tasks: its arguments.
        jobs: how many processes run at once.
        seconds: time limit of each.
        gigabytes: memory limit of each (its own data, not what it shares with this process).
    """
    torch.set_num_threads(1)
    context = multiprocessing.get_context("fork")
    waiting, running = list(reversed(tasks)), []
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                task = waiting.pop()
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=_work, args=(function, task, theirs, gigabytes), daemon=True)
                process.start()
                theirs.close()
                running.append(_Running(task, process, ours, time.monotonic() + seconds))
            time.sleep(_POLL_SECONDS)
            for worker in [*running]:
                answer = _answer(worker, seconds)
                if answer is not None:
                    running.remove(worker)
                    yield worker.task, answer
    finally:
        for worker in running:
            worker.process.kill()


def _answer(worker: "_Running[Task]", seconds: float) -> object:
    """Return what a worker sent, why it sends nothing any more, or ``None`` while it works."""
    ended = not worker.process.is_alive()
    if worker.answers.poll():
        try:
            answer = worker.answers.recv()
        except EOFError:
            worker.process.join()
            answer = Failure(f"the process died (exit code {worker.process.exitcode})")
    elif ended:
        answer = Failure(f"the process died (exit code {worker.process.exitcode})")
    elif time.monotonic() > worker.deadline:
        worker.process.kill()
        answer = Failure(f"not done after {seconds:g} seconds")
    else:
        return None
    worker.process.join()
    return answer


def _work(function: Callable[[Task], Result], task: Task, answers: Connection, gigabytes: float) -> None:
    """Run in the worker: limit the memory, compute, send."""
    torch.set_num_threads(1)
    if sys.platform == "linux":  # elsewhere this limit does not count what torch allocates
        limit = int(gigabytes * 2**30)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        # By itself glibc soon keeps freed weights of up to 32 MiB in a heap full of holes: another model's size.
        set_option = getattr(ctypes.CDLL(None), "mallopt", None)
        if set_option is not None:
            set_option(_M_MMAP_THRESHOLD, _LARGE)
    try:
        answers.send(function(task))
    except Exception as error:  # noqa: BLE001 (a crash is a result, not the end of the sweep)
        answers.send(Failure(f"{type(error).__name__}: {error}"))
