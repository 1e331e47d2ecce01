"""What scores of gradients cost a batch: collecting beside a plain training step.

Run ``python -m benchmarks.score_cost`` on an idle machine. ResNet-20 on batches of 64, on one thread. While a score is
collected, plain steps (forward and backward, in train mode) are timed in turns with its batches; medians go to
``benchmarks/score_cost.md``. What is done once (copying and capturing the network) is not in them. Scores with second
derivatives are shown for comparison. The exit code is 1 where the bound is missed.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import median

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

import cutback
from benchmarks.gate_cost import seconds, step
from benchmarks.zoo.records import machine
from cutback.models import build
from cutback.scores import SNIP, Fisher, GraSP, GroupFisher, Taylor, TaylorExample, TaylorSecond, TaylorWeight

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "benchmarks" / "score_cost.md"
MOST = 1.25
FIRST = {
    "fisher": Fisher,
    "group-fisher": GroupFisher,
    "taylor": Taylor,
    "taylor-example": TaylorExample,
    "taylor-weight": TaylorWeight,
    "snip": SNIP,
}
SECOND = {
    "grasp": GraSP,
    "taylor-second (1 probe)": lambda loader, loss, **mode: TaylorSecond(loader, loss, probes=1, **mode),
}


class Turns:
    """A loader whose every batch is followed by a plain step, and that notes what either costs.

    Args:
        images: of each batch.
        labels: of each batch.
        repeats: how many batches count; one more comes first.
        plain: runs a plain step.

    Attributes:
        batches: seconds of each batch.
        steps: seconds of each plain step.
    """

    def __init__(self, images: Tensor, labels: Tensor, repeats: int, plain: Callable[[], None]) -> None:
        self._batch, self._repeats, self._plain = (images, labels), repeats, plain
        self.batches: list[float] = []
        self.steps: list[float] = []

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batch again and again."""
        yield self._batch  # captures the network
        for _ in range(self._repeats):
            self.steps.append(seconds(self._plain))
            start = time.process_time()
            yield self._batch
            self.batches.append(time.process_time() - start)


def measure(batch: int, repeats: int, *, training: bool) -> dict[str, tuple[float, float]]:
    """Return for each score the median seconds of a batch, over all its passes, and of the plain steps in between."""
    torch.manual_seed(0)
    model, other = build("resnet20"), build("resnet20").train()
    images, labels = torch.randn(batch, 3, 32, 32), torch.randint(0, 10, (batch,))
    graph = cutback.trace(model, images[:2])
    found: dict[str, tuple[float, float]] = {}
    for name, score in {**FIRST, **SECOND}.items():
        turns = Turns(images, labels, repeats, lambda: step(other, images, labels))
        score(turns, cross_entropy, training=training)(graph)
        passes = [median(turns.batches[start : start + repeats]) for start in range(0, len(turns.batches), repeats)]
        found[name] = sum(passes), median(turns.steps)
    return found


def page(found: Mapping[str, Mapping[str, tuple[float, float]]], batch: int) -> tuple[str, bool]:
    """Return the page, and whether the bound is met, given what was measured in each mode."""
    lines = ["# The cost of scores of gradients", "", (__doc__ or "").partition("\n\n")[2], machine(), ""]
    lines += [f"| ResNet-20, batch {batch} | mode | ms a batch | ms a plain step | ratio |", "|---|---|---:|---:|---:|"]
    worst = 0.0
    for mode, times in found.items():
        for name, (own, plain) in times.items():
            lines.append(f"| {name} | {mode} | {1000 * own:.0f} | {1000 * plain:.0f} | {own / plain:.2f} |")
            worst = max(worst, own / plain) if name in FIRST else worst
    met = worst <= MOST
    lines += ["", f"- {'met' if met else 'MISSED'}: first-order scores cost at most {MOST:g} times a plain step", ""]
    return "\n".join(lines), met


def main() -> int:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = {mode: measure(options.batch, options.repeats, training=mode == "train") for mode in ("eval", "train")}
    text, met = page(found, options.batch)
    PAGE.write_text(text)
    sys.stdout.write(text)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
