"""What a step of Group Fisher pruning costs beside a plain training step, and what cutting on the way saves.

Run ``python -m benchmarks.group_fisher_cost`` on an idle machine; about ten minutes on one thread. The networks have
learnt gratings in noise (`benchmarks/gratings.py`) for 100 steps. First table, ResNet-20, 32 pictures of 32x32 pixels:
networks that `group-fisher` has brought to a share of the MACs; a plain step of the whole network, one of the smaller
network and one of the smaller network with the method go by turns, medians of processor time. Second table, ResNet-18,
16 pictures of 48x48 pixels, whose time goes into multiplications as that of ResNet-20 does not: whole runs to half the
MACs, forty units every fifteen steps, with what is masked cut out at the end or on the way, each cut with its proof and
its new trace in the time. Third table: forward passes of what the memory and the MACs normaliser leave of ResNet-18 at
half the MACs, by turns. Results go to ``benchmarks/group_fisher_cost.md``; the exit code is 1 where a bound is missed.
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
CUT_EVERY = 320
SMALL, LARGE = "resnet20", "resnet18"
PIXELS = {SMALL: 32, LARGE: 48}
PICTURES = {SMALL: 32, LARGE: 16}
AT_THE_END = 10**9
Batch = tuple[Tensor, Tensor]
Times = tuple[float, float, float, float]
Run = tuple[nn.Module, float, int]


@cache
def batches(name: str) -> tuple[Batch, ...]:
    """Return twenty batches of pictures and classes for a network."""
    size = PICTURES[name]
    pictures, classes = gratings(20 * size, seed=0, size=PIXELS[name], channels=3)
    return tuple(zip(pictures.split(size), classes.split(size), strict=True))


@cache
def learnt(name: str) -> nn.Module:
    """Return a network that has learnt a little."""
    torch.manual_seed(0)
    model = build(name, num_classes=10).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for number in range(100):
        plain_step(model, optimizer, batches(name)[number % 20])
    return model


def made(name: str) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Return a copy of that network in train mode, and its optimiser."""
    model = copy.deepcopy(learnt(name))
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


def pruned(share: float, name: str, **settings: Any) -> tuple[nn.Module, torch.optim.Optimizer, int]:  # noqa: ANN401
    """Return a network that the method has brought to a share of the MACs, its optimiser, and after how many steps."""
    model, optimizer = made(name)
    if share == 1:
        return model, optimizer, 0
    graph, steps = cutback.trace(model, batches(name)[0][0][:2]), 0
    with GroupFisher(graph, budget=f"macs={share:.0%}", optimizers=optimizer, **settings) as method:
        while not method.finished:
            pruning_step(method, batches(name)[steps % 20])
            steps += 1
    return model, optimizer, steps


def of_steps(share: float, name: str, repeats: int) -> Times:
    """Return the share of MACs left and the seconds of a plain step, one of what is left, and one with the method."""
    dense, model, batch = made(name), pruned(share, name, interval=1, removed=8)[:2], batches(name)[0]
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


def of_run(name: str, **settings: Any) -> Run:  # noqa: ANN401
    """Return network, seconds and steps of a whole run to half the MACs."""
    start = time.process_time()
    model, _, steps = pruned(0.5, name, interval=15, removed=40, **settings)
    return model, time.process_time() - start, steps


def of_passes(models: Sequence[nn.Module], pictures: Tensor, repeats: int) -> list[float]:
    """Return the median seconds of a forward pass of each network, by turns, in eval mode."""
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
        runs: what ``of_run`` has, for each number of units a cut.
        passes: for each network its MACs, its memory in bytes, and the seconds of a pass of 1 and of 16 pictures.
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
    lines += ["", "| network | MACs | memory, KiB | 1 picture, ms | 16 pictures, ms |", "|---|---:|---:|---:|---:|"]
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
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    steps = [of_steps(share, SMALL, options.repeats) for share in SHARES]
    sys.stderr.write(f"steps: {steps}\n")
    learnt(LARGE)  # which belongs to no run
    runs = {every: of_run(LARGE, cut_every=every) for every in (AT_THE_END, CUT_EVERY)}
    sys.stderr.write(f"runs: {[run[1:] for run in runs.values()]}\n")
    by_macs = of_run(LARGE, cut_every=CUT_EVERY, normalise="macs")[0]
    networks = {"whole": learnt(LARGE), "divided by memory": runs[CUT_EVERY][0], "divided by MACs": by_macs}
    pictures = batches(LARGE)[0][0]
    one, many = (of_passes(list(networks.values()), taken, 30) for taken in (pictures[:1], pictures))
    passes = {
        name: (macs(model, pictures[:1]), memory(model, pictures[:1]), one[n], many[n])
        for n, (name, model) in enumerate(networks.items())
    }
    text, met = page(steps, runs, passes)
    PAGE.write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
