"""What a step of Group Fisher pruning costs beside a plain training step, and what cutting on the way saves.

Run ``python -m benchmarks.group_fisher_cost`` on an idle machine; minutes on one thread. ResNet-20, batches of 32
random pictures, SGD. First table: networks that `group-fisher` has brought to a share of the MACs; a plain step of the
whole network, one of the smaller network and one of the smaller network with the method go by turns, medians of
processor time. Second table: whole runs to half the MACs, five units every ten steps, with what is masked cut out every
so many units, each cut with its proof and its new trace in the time. Results go to
``benchmarks/group_fisher_cost.md``; the exit code is 1 where a bound is missed.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import cutback
from benchmarks.zoo.records import machine
from cutback.measure import macs
from cutback.methods import GroupFisher
from cutback.models import build

PAGE = Path(__file__).resolve().parent / "group_fisher_cost.md"
MOST, LESS, THIRD = 1.3, 1.0, 2 / 3
SHARES = (1.0, 0.85, 0.66, 0.5)
CUT_EVERY = (16, 64)
AT_THE_END = 10**9
Batch = tuple[Tensor, Tensor]
Times = tuple[float, float, float, float]


def made() -> tuple[nn.Module, torch.optim.Optimizer]:
    """Return a network in train mode, and its optimiser."""
    torch.manual_seed(0)
    model = build("resnet20").train()
    return model, torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9)


def random_batch(size: int) -> Batch:
    """Return random pictures and classes."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(size, 3, 32, 32, generator=generator), torch.randint(0, 10, (size,), generator=generator)


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


def pruned(share: float, batch: Batch, **settings: int) -> tuple[nn.Module, torch.optim.Optimizer, int]:
    """Return a network that the method has brought to a share of the MACs, its optimiser, and after how many steps."""
    model, optimizer = made()
    if share == 1:
        return model, optimizer, 0
    graph, steps = cutback.trace(model, batch[0][:2]), 0
    with GroupFisher(graph, budget=f"macs={share:.0%}", optimizers=optimizer, **settings) as method:
        while not method.finished:
            pruning_step(method, batch)
            steps += 1
    return model, optimizer, steps


def of_steps(share: float, batch: Batch, repeats: int) -> Times:
    """Return the share of MACs left and the seconds of a plain step, one of what is left, and one with the method."""
    dense, model = made(), pruned(share, batch, interval=1, removed=8)[:2]
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


def of_runs(batch: Batch, every: Sequence[int]) -> dict[int, tuple[float, int]]:
    """Return the seconds and the number of steps of whole runs to half the MACs, for each number of units a cut."""
    found: dict[int, tuple[float, int]] = {}
    for number in every:
        start = time.process_time()
        steps = pruned(0.5, batch, interval=10, removed=5, cut_every=number)[2]
        found[number] = time.process_time() - start, steps
    return found


def page(steps: Sequence[Times], runs: dict[int, tuple[float, int]]) -> tuple[str, bool]:
    """Return the page, and whether the bounds are met."""
    first = steps[0][3] / steps[0][1]
    later = [with_method / whole for share, whole, _, with_method in steps if share <= THIRD]
    met = first <= MOST and max(later) < LESS
    lines = ["# The cost of Group Fisher pruning", "", (__doc__ or "").partition("\n\n")[2], machine(), ""]
    lines += [
        "| MACs left | plain step of the whole network, ms | of what is left, ms | with the method, ms | of whole |"
    ]
    lines += ["|---:|---:|---:|---:|---:|"]
    for share, whole, left, with_method in steps:
        times = " | ".join(f"{1000 * spent:.0f}" for spent in (whole, left, with_method))
        lines.append(f"| {share:.1%} | {times} | {with_method / whole:.2f} |")
    lines += ["", "| cut out | steps | s | of masks to the end |", "|---|---:|---:|---:|"]
    for number, (spent, count) in runs.items():
        when = "at the end" if number == AT_THE_END else f"every {number} units"
        lines.append(f"| {when} | {count} | {spent:.0f} | {spent / runs[AT_THE_END][0]:.2f} |")
    lines += ["", f"- {_said(first <= MOST)}: {first:.2f} times a plain step before any cut, at most {MOST:g}"]
    lines += [f"- {_said(max(later) < LESS)}: {max(later):.2f} times once a third of the MACs has gone, below {LESS:g}"]
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
    batch = random_batch(options.batch)
    steps = [of_steps(share, batch, options.repeats) for share in SHARES]
    sys.stderr.write(f"steps: {steps}\n")
    text, met = page(steps, of_runs(batch, (AT_THE_END, *CUT_EVERY)))
    PAGE.write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
