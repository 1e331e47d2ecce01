"""A detector pruned as a whole: mean average precision before and after at half the MACs.

Run ``python -m benchmarks.detection``; about ten minutes on one thread. The small RetinaNet of `cutback.models`
(residual backbone, feature pyramid, one head for three levels) learns handwritten digits on canvases
(`examples/detection.py`: data, losses and metric). `group-fisher` then takes three units every 10 steps (the paper's
interval for detectors) from backbone, pyramid and head together until half the MACs are left, while training goes on at
a tenth of the rate; fine-tuning follows. A second network goes the same way with units drawn by chance. The best epoch
is chosen on validation canvases; test canvases are read once for each row. Results go to ``benchmarks/detection.md``;
the exit code is 1 if the pruned detector loses more than five points.
"""

import argparse
import copy
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import cutback
from benchmarks.group_fisher_acceptance import ByChance
from benchmarks.zoo.records import machine
from cutback.methods import GroupFisher
from cutback.models import build
from cutback.planning.plan import Plan
from cutback.train.user_code import load_function

ROOT = Path(__file__).resolve().parent.parent
PAGE, TASK = ROOT / "benchmarks" / "detection.md", ROOT / "examples" / "detection.py"
BATCH, RATE, LOWER, CLIP = 16, 3e-3, 0.1, 10.0
INTERVAL, REMOVED, LOSS = 10, 3, 0.05


@dataclass(frozen=True)
class Task:
    """What is minimised and by which figure detectors are compared."""

    loss: Callable[[tuple[Tensor, Tensor], Tensor], Tensor]
    metric: Callable[[nn.Module, Iterator[tuple[Tensor, Tensor]]], float]
    train: TensorDataset
    validation: TensorDataset
    test: TensorDataset


def task() -> Task:
    """Read the example."""
    loss, metric, data = (load_function(f"{TASK}:{name}") for name in ("loss", "metric", "data"))
    return Task(loss, metric, *data())


def batches(data: TensorDataset, order: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches in an order."""
    for index in order.split(BATCH):
        yield data.tensors[0][index], data.tensors[1][index]


def precision(model: nn.Module, of: Task, data: TensorDataset) -> float:
    """Return the mean average precision in eval mode."""
    model.eval()
    return of.metric(model, batches(data, torch.arange(len(data))))


def train(model: nn.Module, of: Task, epochs: int, rate: float, seed: int) -> None:
    """Train with a rate that falls on a cosine, and leave the weights of the best epoch on the validation canvases."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = made(model, rate)
    steps = epochs * -(-len(of.train) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    best, kept = -1.0, copy.deepcopy(model.state_dict())
    for _ in range(epochs):
        model.train()
        for images, targets in batches(of.train, torch.randperm(len(of.train), generator=generator)):
            optimizer.zero_grad()
            of.loss(model(images), targets).backward()
            nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            schedule.step()
        found = precision(model, of, of.validation)
        sys.stderr.write(f"validation mAP {found:.3f}\n")
        if found > best:
            best, kept = found, copy.deepcopy(model.state_dict())
    model.load_state_dict(kept)


def made(model: nn.Module, rate: float) -> torch.optim.Optimizer:
    """Return the optimiser."""
    return torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=1e-3)


def pruned(model: nn.Module, of: Task, entry: type[GroupFisher], seed: int, budget: str) -> tuple[Plan, int]:
    """Prune a network in place while it trains; return the plan and how many steps that took."""
    generator, steps = torch.Generator().manual_seed(seed), 0
    torch.manual_seed(seed)
    optimizer = made(model.train(), LOWER * RATE)
    graph = cutback.trace(model, of.train.tensors[0][:2])
    with entry(graph, budget=budget, optimizers=optimizer, interval=INTERVAL, removed=REMOVED) as method:
        while not method.finished:
            for images, targets in batches(of.train, torch.randperm(len(of.train), generator=generator)):
                optimizer.zero_grad()
                of.loss(model.train()(images), targets).backward()
                method.after_backward()
                method.before_step()
                nn.utils.clip_grad_norm_(model.parameters(), CLIP)
                optimizer.step()
                method.after_step()
                steps += 1
                if method.finished:
                    break
    plan = method.plan()
    if plan is None:
        raise AssertionError("nothing was pruned")
    return plan, steps


def parts(plan: Plan) -> dict[str, str]:
    """Return for each part of the network how many of its units stay."""
    of = {"backbone": ("stem", "layer"), "pyramid": ("pyramid",), "head": ("classify", "locate")}
    found: dict[str, str] = {}
    for part, starts in of.items():
        groups = [group for group in plan.groups if group.name.startswith(starts)]
        found[part] = f"{sum(len(g.kept) for g in groups)} of {sum(g.total for g in groups)}"
    return found


def main() -> int:
    """Train, prune, fine-tune, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--epochs", type=int, default=8, help="of training, and half as many of fine-tuning")
    parser.add_argument("--budget", default="macs=50%")
    options = parser.parse_args()
    torch.set_num_threads(1)
    of, start = task(), time.process_time()
    torch.manual_seed(0)
    dense = build("retinanet")
    train(dense, of, options.epochs, RATE, seed=0)
    picture, whole = of.test.tensors[0][:1], cutback.measure.macs(dense, of.test.tensors[0][:1])
    rows = [("dense", whole, cutback.measure.params(dense), "", precision(dense, of, of.test))]
    held: dict[str, str] = {}
    for name, entry in (("group-fisher", GroupFisher), ("by chance", ByChance)):
        model = copy.deepcopy(dense)
        plan, steps = pruned(model, of, entry, 1, options.budget)
        before = precision(model, of, of.validation)
        sys.stderr.write(f"{name}: {steps} steps, validation mAP {before:.3f}\n")
        train(model, of, options.epochs // 2, RATE / 2, seed=2)
        figures = cutback.measure.macs(model, picture), cutback.measure.params(model)
        rows.append((name, *figures, f"{before:.3f} after {steps} steps", precision(model, of, of.test)))
        held = held or parts(plan)
    lost = rows[0][4] - rows[1][4]
    lines = ["# A detector pruned as a whole", "", (__doc__ or "").partition("\n\n")[2], machine()]
    lines += [
        f"Training canvases: {len(of.train)}; processor time {(time.process_time() - start) / 60:.0f} minutes.",
        "",
    ]
    lines += ["| network | MACs | parameters | mAP before fine-tuning | mAP |", "|---|---:|---:|---:|---:|"]
    lines += [f"| {n} | {m:,} ({m / whole:.1%}) | {p:,} | {b} | {found:.3f} |" for n, m, p, b, found in rows]
    lines += ["", "Units that `group-fisher` has left: " + "; ".join(f"{part} {units}" for part, units in held.items())]
    lines += [
        "",
        f"- {'met' if lost <= LOSS else 'MISSED'}: {100 * lost:.1f} points lost, at most {100 * LOSS:.0f}",
        "",
    ]
    text = "\n".join(lines)
    PAGE.write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    return 0 if lost <= LOSS else 1


if __name__ == "__main__":
    sys.exit(main())
