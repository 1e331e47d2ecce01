"""What a step of Group Fisher pruning costs beside a plain training step, and what cutting on the way saves.

Run ``python -m benchmarks.group_fisher_cost`` on an idle machine; minutes on one thread. ResNet-20 has learnt gratings
in noise (`benchmarks/gratings.py`, 32x32 pixels) for 100 steps of 32 pictures. First table: networks that
`group-fisher` has brought to a share of the MACs; a plain step of the whole network, one of the smaller network and one
of the smaller network with the method go by turns, medians of processor time. Second table: whole runs to half the
MACs, five units every ten steps, with what is masked cut out every so many units, each cut with its proof and its new
trace in the time. Third table: forward passes of what the memory and the MACs normaliser leave of the network at half
the MACs, by turns. Results go to ``benchmarks/group_fisher_cost.md``; the exit code is 1 where a bound is missed.
"""

import argparse
import copy
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import cutback
from benchmarks.gratings import gratings
from benchmarks.zoo.records import machine
from cutback.measure import macs, memory
from cutback.methods import GroupFisher
from cutback.models import build

PAGE = Path(__file__).resolve().parent / "group_fisher_cost.md"
MOST, LESS, THIRD = 1.3, 1.0, 2 / 3
SHARES = (1.0, 0.85, 0.66, 0.5)
CUT_EVERY = (16, 64)
AT_THE_END = 10**9
Batch = tuple[Tensor, Tensor]
Times = tuple[float, float, float, float]
Run = tuple[nn.Module, float, int]


@cache
def batches(size: int) -> tuple[Batch, ...]:
    """Return twenty batches of pictures and classes."""
    pictures, classes = gratings(20 * size, seed=0, size=32, channels=3)
    return tuple(zip(pictures.split(size), classes.split(size), strict=True))


@cache
def learnt(size: int) -> nn.Module:
    """Return a network that has learnt a little."""
    torch.manual_seed(0)
    model = build("resnet20").train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for number in range(100):
        plain_step(model, optimizer, batches(size)[number % 20])
    return model


def made(size: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Return a copy of that network in train mode, and its optimiser."""
    model = copy.deepcopy(learnt(size))
    return model, torch.optim.SGD(model.parameters(), lr=0.005, momentum=0.9)


def plain_step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch) -> None:
    """Train for a step."""
    optimizer.zero_grad()
    cross_entropy(model(batch[0]), batch[1]).backward()
    optimizer.step()


def pruning_step(method: GroupFisher, batch: Batch) -> None:
    """Train for a step with the method."""
    optimizer = method.optimizers[0]
    optimizer.zero_grad()
    (cross_entropy(method.graph.model(batch[0]), batch[1]) + method.penalty()).backward()
    method.after_backward()
    method.before_step()
    optimizer.step()
    method.after_step()


def seconds(function: Callable[[], object]) -> float:
    """Return the processor time that a call takes."""
    start = time.process_time()
    function()
    return time.process_time() - start


def pruned(share: float, size: int, **settings: Any) -> tuple[nn.Module, torch.optim.Optimizer, int]:  # noqa: ANN401
    """Return a network that the method has brought to a share of the MACs, its optimiser, and after how many steps."""
    model, optimizer = made(size)
    if share == 1:
        return model, optimizer, 0
    graph, steps = cutback.trace(model, batches(size)[0][0][:2]), 0
    with GroupFisher(graph, budget=f"macs={share:.0%}", optimizers=optimizer, **settings) as method:
        while not method.finished:
            pruning_step(method, batches(size)[steps % 20])
            steps += 1
    return model, optimizer, steps


def of_steps(share: float, size: int, repeats: int) -> Times:
    """Return the share of MACs left and the seconds of a plain step, one of what is left, and one with the method."""
    dense, model, batch = made(size), pruned(share, size, interval=1, removed=8)[:2], batches(size)[0]
    whole, left = (macs(each[0], batch[0][:1]) for each in (dense, model))
    held = GroupFisher(cutback.trace(model[0], batch[0][:2]), budget="macs=90%", optimizers=model[1], interval=10**9)
    times: tuple[list[float], list[float], list[float]] = ([], [], [])
    for _ in range(repeats):
        times[0].append(seconds(lambda: plain_step(*dense, batch)))
        times[1].append(seconds(lambda: plain_step(*model, batch)))
        with held:
            pruning_step(held, batch)  # records the forward pass
            times[2].append(seconds(lambda: pruning_step(held, batch)))
    return left / whole, median(times[0]), median(times[1]), median(times[2])


def of_runs(size: int, every: Sequence[int], **settings: Any) -> dict[int, Run]:  # noqa: ANN401
    """Return network, seconds and steps of whole runs to half the MACs, for each number of units a cut."""
    found: dict[int, Run] = {}
    for number in every:
        start = time.process_time()
        model, _, steps = pruned(0.5, size, interval=10, removed=5, cut_every=number, **settings)
        found[number] = model, time.process_time() - start, steps
    return found


def of_passes(models: Sequence[nn.Module], size: int, repeats: int) -> list[float]:
    """Return the median seconds of a forward pass of each network, by turns, in eval mode."""
    pictures = batches(max(size, 32))[0][0][:size]
    times: list[list[float]] = [[] for _ in models]
    with torch.no_grad():
        for _ in range(repeats + 1):
            for model, spent in zip(models, times, strict=True):
                spent.append(seconds(lambda: model.eval()(pictures)))  # noqa: B023
    return [median(spent[1:]) for spent in times]


def page(steps: Sequence[Times], runs: Mapping[int, Run], passes: Mapping[str, Sequence[float]]) -> tuple[str, bool]:
    """Return the page, and whether the bounds are met.

    Args:
        steps: what ``of_steps`` has found for each share.
        runs: what ``of_runs`` has.
        passes: for each network its MACs, its memory in bytes, and the seconds of a pass of 1 and of 32 pictures.
    """
    first = steps[0][3] / steps[0][1]
    later = [with_method / whole for share, whole, _, with_method in steps if share <= THIRD]
    met = first <= MOST and max(later) < LESS
    lines = ["# The cost of Group Fisher pruning", "", (__doc__ or "").partition("\n\n")[2], machine(), ""]
    lines += ["| MACs left | plain step, whole, ms | of what is left, ms | with the method, ms | of the first |"]
    lines += ["|---:|---:|---:|---:|---:|"]
    for share, whole, left, with_method in steps:
        times = " | ".join(f"{1000 * spent:.0f}" for spent in (whole, left, with_method))
        lines.append(f"| {share:.1%} | {times} | {with_method / whole:.2f} |")
    lines += ["", "| cut out | steps | s | of masks to the end |", "|---|---:|---:|---:|"]
    for number, (_, spent, count) in runs.items():
        when = "at the end" if number == AT_THE_END else f"every {number} units"
        lines.append(f"| {when} | {count} | {spent:.0f} | {spent / runs[AT_THE_END][1]:.2f} |")
    lines += ["", "| network | MACs | memory, KiB | 1 picture, ms | 32 pictures, ms |", "|---|---:|---:|---:|---:|"]
    for name, (mac, held, one, many) in passes.items():
        lines.append(f"| {name} | {mac:,.0f} | {held / 1024:.0f} | {1000 * one:.2f} | {1000 * many:.1f} |")
    first_time, other = passes["divided by memory"][3], passes["divided by MACs"][3]
    lines += ["", f"- {_said(first <= MOST)}: {first:.2f} times a plain step before any cut, at most {MOST:g}"]
    lines += [f"- {_said(max(later) < LESS)}: {max(later):.2f} times with a third of the MACs gone, below {LESS:g}"]
    lines += [
        f"- divided by memory, the network takes {first_time / other:.2f} of the time that it takes divided by MACs"
    ]
    return "\n".join([*lines, ""]), met


def _said(met: bool) -> str:  # noqa: FBT001 (one word for one fact)
    return "met" if met else "MISSED"


def main() -> int:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    size = options.batch
    steps = [of_steps(share, size, options.repeats) for share in SHARES]
    sys.stderr.write(f"steps: {steps}\n")
    runs = of_runs(size, (AT_THE_END, *CUT_EVERY))
    sys.stderr.write(f"runs: {[run[1:] for run in runs.values()]}\n")
    by_macs = of_runs(size, (CUT_EVERY[0],), normalise="macs")[CUT_EVERY[0]][0]
    networks = {"whole": learnt(size), "divided by memory": runs[CUT_EVERY[0]][0], "divided by MACs": by_macs}
    picture = batches(size)[0][0][:1]
    one, many = (of_passes(list(networks.values()), number, 30) for number in (1, 32))
    passes = {
        name: (macs(model, picture), memory(model, picture), one[n], many[n])
        for n, (name, model) in enumerate(networks.items())
    }
    text, met = page(steps, runs, passes)
    PAGE.write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
