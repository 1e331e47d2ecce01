"""Does Group Fisher's importance foretell the loss, and does pruning by it beat chance? An experiment of minutes.

Run ``python -m benchmarks.group_fisher_acceptance``; a few minutes on one thread. A residual network of four blocks (8
and 16 channels) learns ten classes of gratings in noise (`benchmarks/gratings.py`, 12x12 pixels, 2,000 pictures). Then,
for each of three seeds:

- *Ranking*: the importance of every unit over 2,000 other pictures, the L1 and L2 norm of its weights, and what the
  loss over these pictures rises by when the unit is masked; Spearman's rank correlation.
- *End to end*: `group-fisher` takes one unit every 10 steps (batch 32, SGD 0.01) until half the MACs are left, with
  each normaliser, with the first-order gradient, on internal units alone, and with units drawn by chance. What counts
  is the accuracy on 1,000 other pictures *before* any fine-tuning.

Results go to ``benchmarks/group_fisher_acceptance.md``; the exit code is 1 where a bound is missed.
"""

import argparse
import copy
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.functional import cross_entropy

import cutback
from benchmarks.gratings import gratings
from benchmarks.zoo.records import machine
from cutback import scores
from cutback.methods import GroupFisher
from cutback.scores import score_groups

PAGE = Path(__file__).resolve().parent / "group_fisher_acceptance.md"
SEEDS = (0, 1, 2)
PICTURES, TEST, BATCH = 2000, 1000, 32
STEPS, RATE, PRUNING_RATE, INTERVAL = 600, 0.05, 0.01, 10
LEAST, LEAD, GAIN = 0.85, 0.2, 0.08
Set = tuple[Tensor, Tensor]
Ranks = tuple[float, float, float]
Row = tuple[float, float, float]


class Block(nn.Module):
    """A basic residual block."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        stride = outputs // inputs
        self.conv1, self.bn1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs)
        projection = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        self.shortcut = nn.Identity() if stride == 1 else projection

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, outputs, H / stride, W / stride)."""
        inner = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(inner)) + self.shortcut(x))


class Residual(nn.Module):
    """Four blocks of 8 and 16 channels and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.blocks = nn.Sequential(Block(8, 8), Block(8, 8), Block(8, 16), Block(16, 16))
        self.head = nn.Linear(16, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, 10)."""
        return self.head(self.blocks(self.stem(images)).mean((2, 3)))


class ByChance(GroupFisher):
    """The same schedule with units drawn by chance."""

    def importances(self, sums: Mapping[str, Tensor]) -> dict[int, NDArray[np.float64]]:
        """Return random numbers."""
        drawn = np.random.default_rng(torch.initial_seed() + self._steps)
        return {number: drawn.random(len(values)) for number, values in super().importances(sums).items()}


HOW: dict[str, tuple[type[GroupFisher], dict[str, Any]]] = {
    "memory": (GroupFisher, {}),
    "macs": (GroupFisher, {"normalise": "macs"}),
    "none": (GroupFisher, {"normalise": "none"}),
    "gradient, memory": (GroupFisher, {"importance": "gradient"}),
    "internal only, memory": (GroupFisher, {"internal_only": True}),
    "chance": (ByChance, {"normalise": "none"}),
}


def batches(data: Set, generator: torch.Generator) -> Set:
    """Return a random batch."""
    index = torch.randint(len(data[0]), (BATCH,), generator=generator)
    return data[0][index], data[1][index]


def trained(seed: int, data: Set, steps: int = STEPS) -> nn.Module:
    """Return a network that has learnt the pictures."""
    torch.manual_seed(seed)
    model, generator = Residual(), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        images, labels = batches(data, generator)
        optimizer.zero_grad()
        cross_entropy(model(images), labels).backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def accuracy(model: nn.Module, data: Set) -> float:
    """Return the share of pictures that are told right."""
    with torch.no_grad():
        return float((model.eval()(data[0]).argmax(1) == data[1]).double().mean())


def correlations(model: nn.Module, data: Set) -> Ranks:
    """Return how the method's importance, and the units' norms, correlate with what the loss rises by."""
    graph = cutback.trace(model.eval(), data[0][:2])
    loader = list(zip(data[0].split(200), data[1].split(200), strict=True))
    rises = np.concatenate(score_groups(graph, scores.Oracle(loader, cross_entropy)))
    norms = [np.concatenate(score_groups(graph, score)) for score in (scores.L1(), scores.L2())]
    with GroupFisher(graph, budget="macs=50%", normalise="none") as method:
        for images, labels in loader:
            cross_entropy(model(images), labels).backward()
            method.after_backward()
            method.before_step()
        found = method.importances(method._sums.take())  # noqa: SLF001 (what a removal goes by)
    importance = np.concatenate([found[number] for number in range(len(graph.groups))])
    first, second, third = (float(spearmanr(values, rises)[0]) for values in (importance, *norms))
    return first, second, third


def pruned(model: nn.Module, how: str, seed: int, data: Set, interval: int = INTERVAL) -> tuple[nn.Module, int]:
    """Return a copy of a network that was pruned to half its MACs while it trained, and how many steps that took."""
    entry, settings = HOW[how]
    torch.manual_seed(seed)
    model, generator = copy.deepcopy(model).train(), torch.Generator().manual_seed(seed + 100)
    optimizer = torch.optim.SGD(model.parameters(), lr=PRUNING_RATE, momentum=0.9, weight_decay=1e-4)
    graph, steps = cutback.trace(model, data[0][:2]), 0
    with entry(graph, budget="macs=50%", optimizers=optimizer, interval=interval, **settings) as method:
        while not method.finished:
            images, labels = batches(data, generator)
            optimizer.zero_grad()
            cross_entropy(model(images), labels).backward()
            method.after_backward()
            method.before_step()
            optimizer.step()
            method.after_step()
            steps += 1
    return model, steps


def left(model: nn.Module, dense: nn.Module) -> tuple[float, float]:
    """Return the shares of MACs and of activation memory that a pruned network has."""
    picture = torch.zeros(1, 1, 12, 12)
    return tuple(figure(model, picture) / figure(dense, picture) for figure in (cutback.measure.macs, _memory))  # type: ignore[return-value]


def _memory(model: nn.Module, picture: Tensor) -> int:
    return cutback.measure.memory(model, picture)


def page(bases: Sequence[float], ranks: Sequence[Ranks], rows: Mapping[str, Sequence[Row]]) -> tuple[str, bool]:
    """Return the page, and whether all bounds are met."""
    means = {how: [mean(column) for column in zip(*found, strict=True)] for how, found in rows.items()}
    importance, norm, _ = (mean(column) for column in zip(*ranks, strict=True))
    gain = means["memory"][0] - means["chance"][0]
    checks = [
        (min(rank for rank, *_ in ranks) >= LEAST, f"importance ranks units as the loss does: at least {LEAST}"),
        (importance - norm >= LEAD, f"better than their L1 norm by {importance - norm:.2f}, at least {LEAD}"),
        (gain >= GAIN, f"accuracy is {100 * gain:.1f} points above chance, at least {100 * GAIN:.0f}"),
        (means["memory"][2] <= means["macs"][2], "less memory is left with the memory normaliser than with MACs"),
    ]
    lines = ["# Group Fisher pruning: the small-scale experiment", "", (__doc__ or "").partition("\n\n")[2], machine()]
    lines += ["", f"Accuracy before pruning: {', '.join(f'{base:.3f}' for base in bases)}.", ""]
    lines += [
        "Rank correlation with what the loss rises by:",
        "",
        "| seed | importance | L1 | L2 |",
        "|---:|---:|---:|---:|",
    ]
    lines += [f"| {seed} | {rank:.3f} | {one:.3f} | {two:.3f} |" for seed, (rank, one, two) in enumerate(ranks)]
    lines += [
        "",
        "| how | accuracy | MACs left | memory left | accuracy of each seed |",
        "|---|---:|---:|---:|---|",
    ]
    for how, (right, macs, memory) in means.items():
        each = ", ".join(f"{row[0]:.3f}" for row in rows[how])
        lines.append(f"| {how} | {right:.3f} | {macs:.3f} | {memory:.3f} | {each} |")
    lines += ["", *(f"- {'met' if met else 'MISSED'}: {text}" for met, text in checks), ""]
    return "\n".join(lines), all(met for met, _ in checks)


def main() -> int:
    """Run the experiment, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="so many of them, for a quick look")
    options = parser.parse_args()
    torch.set_num_threads(1)
    train, test, other = gratings(PICTURES, seed=0), gratings(TEST, seed=1), gratings(PICTURES, seed=2)
    models = [trained(seed, train) for seed in SEEDS[: options.seeds]]
    sys.stderr.write(f"trained: {', '.join(f'{accuracy(model, test):.3f}' for model in models)}\n")
    ranks = [correlations(model, other) for model in models]
    sys.stderr.write(f"rank correlations with importance and norm: {ranks}\n")
    rows: dict[str, list[Row]] = {}
    for how in HOW:
        for seed, model in enumerate(models):
            small, _ = pruned(model, how, seed, train)
            rows.setdefault(how, []).append((accuracy(small, test), *left(small, model)))
            sys.stderr.write(f"{how}, seed {seed}: accuracy {rows[how][-1][0]:.3f}\n")
    text, met = page([accuracy(model, test) for model in models], ranks, rows)
    PAGE.write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
