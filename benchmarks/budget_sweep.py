"""Are budgets hit? Twelve targets on six architectures by four allocations, with any widths and multiples of 8.

Run ``python -m benchmarks.budget_sweep``; minutes on one thread. A plan may never be over a budget, and ends at most
1 % of the dense cost below the binding one; with ``round_to=8`` at most as far below as the costliest step of eight
channels saves. Nothing is cut here: that plans tell the figures of the networks really cut is tested in
``tests/planning/test_quantities.py``. The result goes to ``benchmarks/budget_sweep.md``; the exit code is 1 where a
bound is missed.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

import cutback
from benchmarks.zoo import libraries
from benchmarks.zoo.records import machine
from cutback.planning.allocation import Task
from cutback.planning.choices import choices_of
from cutback.planning.cost import CostModel
from cutback.planning.limits import Limits
from cutback.planning.quantity import Quantity, quantities

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "benchmarks" / "budget_sweep.md"
TOLERANCE, MULTIPLE = Fraction(1, 100), 8
ALLOCATIONS = ("uniform", "global", "isomorphic", "per-macs")
Target = Mapping[str, int]
"""What may stay of each quantity, in per cent."""
TARGETS: Sequence[Target] = (
    *({"macs": share} for share in (90, 65, 40, 20)),
    *({"params": share} for share in (80, 50, 15)),
    *({"memory": 75}, {"memory": 55}, {"size": 55}, {"peak": 60}),
    {"macs": 60, "params": 45, "memory": 80},
)
PICTURES = (2, 3, 224, 224)
NETWORKS = {
    "ResNet-50": "resnet50",
    "VGG-16": "vgg16_bn",
    "MobileNetV2": "mobilenet_v2",
    "DenseNet-121": "densenet121",
    "ResNeXt-50": "resnext50_32x4d",
    "ConvNeXt-T": "convnext_tiny",
}
"""Torchvision's names."""


@dataclass(frozen=True)
class Ending:
    """Where a plan ends.

    Attributes:
        network: what was planned for.
        target: what was asked for.
        allocation: how it was shared out.
        round_to: what widths that change are multiples of.
        binding: the quantity whose budget is nearest.
        gap: how far below that budget it ends, as a share of the dense cost; negative where it is over some budget.
        step: what the costliest permitted step saves of it, as a share of the dense cost.
        plan: the plan.
    """

    network: str
    target: Target
    allocation: str
    round_to: int
    binding: str
    gap: Fraction
    step: Fraction
    plan: cutback.Plan

    @property
    def over(self) -> bool:
        """Whether it is over a budget."""
        return self.gap < 0

    @property
    def said(self) -> bool:
        """Whether the plan's notes say that it ends far below."""
        return any("below the budget" in note for note in self.plan.notes)

    @property
    def hit(self) -> bool:
        """Whether it ends as near below as it may."""
        return 0 <= self.gap <= (TOLERANCE if self.round_to == 1 else max(TOLERANCE, self.step))


class Sweep:
    """Makes plans for one network.

    Args:
        network: its name.
        graph: its traced model.
    """

    def __init__(self, network: str, graph: cutback.Graph) -> None:
        self._network, self._graph, cost = network, graph, CostModel(graph)
        names = dict.fromkeys(quantity for target in TARGETS for quantity in target)
        self._measured: dict[str, Quantity] = {name: quantities.get(name)(graph, cost) for name in names}
        self._steps: dict[tuple[str, int], Fraction] = {}

    def ending(self, target: Target, allocation: str, round_to: int) -> Ending:
        """Make a plan and return where it ends."""
        plan = cutback.plan(self._graph, budget=written(target), allocate=allocation, round_to=round_to)
        gaps = below(plan, target)
        binding = min(gaps, key=gaps.__getitem__)
        key = binding, round_to
        if key not in self._steps:
            self._steps[key] = largest_step(self._graph, self._measured[binding], round_to)
        return Ending(self._network, target, allocation, round_to, binding, gaps[binding], self._steps[key], plan)


def written(target: Target) -> list[str]:
    """Return the budgets of a target."""
    return [f"{quantity}={share}%" for quantity, share in target.items()]


def below(plan: cutback.Plan, target: Target) -> dict[str, Fraction]:
    """Return how far below each budget a plan ends, as a share of the dense cost."""
    gaps: dict[str, Fraction] = {}
    for quantity, share in target.items():
        cost = plan.costs[quantity]
        gaps[quantity] = Fraction(share * cost.before // 100 - cost.after, cost.before)
    return gaps


def largest_step(graph: cutback.Graph, quantity: Quantity, round_to: int) -> Fraction:
    """Return what the costliest permitted step saves where all else is whole, as a share of the dense cost.

    A step takes one group, or several that a balance links, from one permitted width to the next.
    """
    choices, _ = choices_of(graph, {}, only_settled=False, share=None, limits=Limits(round_to=round_to))
    task = Task(graph, choices, {}, {})
    whole, most = task.widths(np.zeros(len(choices), dtype=np.int64)), 0
    for number, choice in enumerate(choices):
        costs = [quantity.of(task.moved(whole, number, 0, level)) for level in range(len(choice.counts))]
        most = max([most, *(wider - narrower for wider, narrower in pairwise(costs))])
    return Fraction(most, quantity.dense)


def page(found: Sequence[Ending]) -> tuple[str, bool]:
    """Return the page, and whether all bounds are met."""
    lines = ["# Budgets that are hit", "", (__doc__ or "").partition("\n\n")[2], machine(), ""]
    lines += [
        "Cells tell how far below the binding budget a plan ends, in per cent of the dense cost: with any widths, and",
        f"with `round_to={MULTIPLE}`. The last column has the costliest permitted step in either case: one channel",
        f"of one group, or {MULTIPLE}; where a balance links several blocks, as many of each.",
        "",
    ]
    for network in dict.fromkeys(ending.network for ending in found):
        lines += [*_table(network, [ending for ending in found if ending.network == network]), ""]
    bounds = {
        f"none of {len(found)} plans is over a budget": not any(ending.over for ending in found),
        f"any widths: at most {float(TOLERANCE):.0%} below": all(e.hit for e in found if e.round_to == 1),
        f"round_to={MULTIPLE}: at most the largest step below, where that is more than {float(TOLERANCE):.0%}": all(
            e.hit for e in found if e.round_to != 1
        ),
        f"what ends more than {float(TOLERANCE):.0%} below says so, and nothing else": all(
            ending.said is (ending.gap > TOLERANCE) for ending in found
        ),
    }
    lines += [*(f"- {'met' if met else 'MISSED'}: {text}" for text, met in bounds.items()), ""]
    return "\n".join(lines), all(bounds.values())


def _table(network: str, own: Sequence[Ending]) -> list[str]:
    """Return the table of one network."""
    lines = [f"## {network}", "", f"| target | {' | '.join(ALLOCATIONS)} | largest step |"]
    lines += ["|---|" + "---:|" * (len(ALLOCATIONS) + 1)]
    ending = {(str(e.target), e.allocation, e.round_to): e for e in own}
    for target in TARGETS:
        pairs = [[ending[str(target), allocation, each] for each in (1, MULTIPLE)] for allocation in ALLOCATIONS]
        cells = [" / ".join(f"{float(e.gap):.2%}" + ("" if e.hit else " **missed**") for e in pair) for pair in pairs]
        steps = " / ".join(f"{float(max(e.step for e in each)):.2%}" for each in zip(*pairs, strict=True))
        lines.append(f"| {', '.join(written(target))} | {' | '.join(cells)} | {steps} |")
    return lines


def endings(networks: Sequence[str]) -> Iterator[Ending]:
    """Make all plans, network by network."""
    for name in networks:
        torch.manual_seed(0)
        model = getattr(libraries.torchvision().models, NETWORKS[name])(weights=None)
        sweep = Sweep(name, cutback.trace(model, torch.zeros(PICTURES)))
        for target in TARGETS:
            for allocation in ALLOCATIONS:
                for round_to in (1, MULTIPLE):
                    yield sweep.ending(target, allocation, round_to)


def main() -> int:
    """Make all plans, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS), help="only these")
    parser.add_argument("--page", type=Path, default=PAGE, help="file to write")
    options = parser.parse_args()
    torch.set_num_threads(1)
    text, met = page(list(endings(options.networks)))
    options.page.write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
