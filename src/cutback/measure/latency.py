"""Measured latency: models timed against each other in one run, with a confidence interval each."""

import math
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from cutback.errors import UserMistake
from cutback.graph.clone import set_training
from cutback.graph.inputs import Inputs

FEWEST_REPEATS = 6


@dataclass(frozen=True)
class Latency:
    """Time of one forward pass.

    Attributes:
        median_ms: median over the repeats, in milliseconds.
        low_ms: lower end of the 95 % confidence interval of the median.
        high_ms: its upper end.
        repeats: number of timed passes.
        threads: number of CPU threads that PyTorch used within an operation.
        of_first: its time as a share of the first model's, the median over the rounds: unlike a share of medians it
            tells little of a machine that changes its speed meanwhile.
    """

    median_ms: float
    low_ms: float
    high_ms: float
    repeats: int
    threads: int
    of_first: float


def compare_latency(
    models: Mapping[str, nn.Module],
    example_inputs: object,
    *,
    repeats: int = 30,
    warmup: int = 5,
    threads: int | None = None,
) -> dict[str, Latency]:
    """Time the forward passes of several models on the same inputs, in eval mode.

    The models take turns in every round, in a shuffled order that is the same in every run, so that a slow moment of
    the machine falls on all of them alike. On CUDA the device is synchronised before each reading of the clock.

    Args:
        models: what to time, by name; their modules' modes are left as found.
        example_inputs: a tensor, a tuple of positional or a dict of keyword arguments, on the models' device.
        repeats: timed passes of each model, at least 6: the fewest that give a 95 % interval.
        warmup: passes of each model before that.
        threads: number of CPU threads to use; ``None`` for PyTorch's present setting, which is restored afterwards.

    Returns:
        Latency by name, in the order of ``models``.

    Raises:
        UserMistake: too few repeats or threads, or no tensor among the inputs.
    """
    if repeats < FEWEST_REPEATS:
        raise UserMistake(f"latency needs at least {FEWEST_REPEATS} repeats for its 95 % interval, not {repeats}")
    if threads is not None and threads < 1:
        raise UserMistake(f"latency needs at least 1 thread, not {threads}")
    inputs = Inputs.of(example_inputs)
    threads_before = torch.get_num_threads()
    modes = [set_training(model, False) for model in models.values()]
    try:
        if threads is not None:
            torch.set_num_threads(threads)
        threads_used = torch.get_num_threads()
        times = _take_turns(list(models.values()), inputs, repeats, warmup)
    finally:
        torch.set_num_threads(threads_before)
        for model, modes_before in reversed(list(zip(models.values(), modes, strict=True))):
            set_training(model, modes_before)
    return {name: _summary(taken, times[0], threads_used) for name, taken in zip(models, times, strict=True)}


def _take_turns(models: list[nn.Module], inputs: Inputs, repeats: int, warmup: int) -> list[list[float]]:
    """Return the times of each model's passes in milliseconds, round by round."""
    tensors = [*inputs.tensors(), *(parameter for model in models for parameter in model.parameters())]
    devices = {tensor.device for tensor in tensors if tensor.is_cuda}
    shuffle = torch.Generator().manual_seed(0)
    times: list[list[float]] = [[] for _ in models]
    with torch.inference_mode():
        for round_number in range(warmup + repeats):
            for index in torch.randperm(len(models), generator=shuffle).tolist():
                taken = _time(models[index], inputs, devices)
                if round_number >= warmup:
                    times[index].append(taken)
    return times


def _time(model: nn.Module, inputs: Inputs, devices: set[torch.device]) -> float:
    """Return the time of one forward pass in milliseconds."""
    for device in devices:
        torch.cuda.synchronize(device)
    start = time.perf_counter_ns()
    model(*inputs.positional, **inputs.keyword)
    for device in devices:
        torch.cuda.synchronize(device)
    return (time.perf_counter_ns() - start) / 1e6


def _summary(times: list[float], first: list[float], threads: int) -> Latency:
    """Summarise times by their median and the order statistics that enclose the true one with 95 %."""
    below, ordered = _rank_below(len(times)), sorted(times)
    of_first = statistics.median(taken / other for taken, other in zip(times, first, strict=True))
    return Latency(statistics.median(times), ordered[below - 1], ordered[-below], len(times), threads, of_first)


def _rank_below(count: int) -> int:
    """Return the highest rank r, from 1, with at most 2.5 % chance that the true median lies below the r-th smallest.

    The number of times below the true median is binomial (count, 1/2), whatever their distribution.
    """
    rank, outcomes = 0, 1
    while outcomes * 40 <= 2**count:
        rank += 1
        outcomes += math.comb(count, rank)
    return rank
