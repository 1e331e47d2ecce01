"""Timing one call alone."""

import time
from collections.abc import Callable

import torch

FEWEST, MOST = 5, 40
AGREEING, TOLERANCE = 3, 0.02
"""A time stands once so many runs lie so close above the shortest one."""
LONGEST_SECONDS = 0.5


def best_time(call: Callable[[], object], device: torch.device) -> float:
    """Return the time of a call in milliseconds: the shortest of several runs.

    Whatever else a machine does makes single runs longer, never shorter, so runs are added until three agree with the
    shortest within 2 %, within limits on their number and on the time they take together.

    Args:
        call: what to time.
        device: where it computes; CUDA is synchronised before each reading of the clock.
    """
    with torch.inference_mode():
        _run(call, device)
        _run(call, device)
        taken: list[float] = []
        start = time.perf_counter()
        while len(taken) < MOST:
            taken.append(_run(call, device))
            enough = sum(one <= min(taken) * (1 + TOLERANCE) for one in taken) >= AGREEING
            late = time.perf_counter() - start > LONGEST_SECONDS
            if (len(taken) >= FEWEST and enough) or (late and len(taken) >= AGREEING):
                break
    return min(taken)


def _run(call: Callable[[], object], device: torch.device) -> float:
    """Return the time of one run in milliseconds."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter_ns()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter_ns() - start) / 1e6
