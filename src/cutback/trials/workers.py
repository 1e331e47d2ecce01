"""Work shared out over forked processes: they have the model and the user's function already, neither is sent."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import TypeVar

import torch

from cutback.errors import CutbackError, UserMistake

Task = TypeVar("Task")


def each_in_processes(
    work: Callable[[Task], float], tasks: Sequence[Task], processes: int
) -> Iterator[tuple[int, float]]:
    """Yield the number of each task and what the work on it gave, as they are finished.

    Args:
        work: a function of one task, on CPU only.
        tasks: shared out in turns before anything starts.
        processes: how many processes; each computes in one thread.

    Raises:
        UserMistake: the system cannot fork a process, or a process ended without a result.
        CutbackError: what the work raised; other errors of the work come as ``UserMistake``.
    """
    if "fork" not in multiprocessing.get_all_start_methods():
        raise UserMistake(f"processes={processes} needs a system that can fork a process; write processes=1")
    context = multiprocessing.get_context("fork")
    workers: dict[Connection, BaseProcess] = {}
    try:
        for number in range(min(processes, len(tasks))):
            mine, its = context.Pipe(duplex=False)
            worker = context.Process(target=_work, args=(work, tasks, number, processes, its), daemon=True)
            worker.start()
            its.close()
            workers[mine] = worker
        waiting = set(workers)
        while waiting:
            for connection in [one for one in wait(list(waiting)) if isinstance(one, Connection)]:
                try:
                    number, result = connection.recv()
                except EOFError:
                    raise UserMistake(
                        "a process of the scan was ended before its work was done, perhaps for lack of memory; write "
                        "fewer processes"
                    ) from None
                if isinstance(result, Exception):
                    raise result
                if number is None:
                    waiting.discard(connection)
                else:
                    yield number, result
    finally:
        for connection, worker in workers.items():
            worker.terminate()
            worker.join()
            connection.close()


def _work(
    work: Callable[[Task], float], tasks: Sequence[Task], first: int, step: int, results: "Connection[object, object]"
) -> None:
    """Do every so many tasks and send the results, at the end ``None``."""
    # Threads do not survive a fork: those that the parent had started would be waited for in vain.
    torch.set_num_threads(1)
    try:
        for number in range(first, len(tasks), step):
            results.send((number, work(tasks[number])))
        results.send((None, None))
    except CutbackError as error:
        results.send((None, error))
    except Exception as error:  # noqa: BLE001 (whatever the user's function raises; some errors cannot be sent)
        results.send((None, UserMistake(f"the scan failed in a process: {type(error).__name__}: {error}")))
