"""What it costs to read gate gradients during training: a gated step beside a plain one.

Run ``python -m benchmarks.gate_cost`` on an idle machine. A forward and a backward pass of ResNet-20 on a batch of 64,
on one thread, plain and with the gates that Fisher and Taylor scores read (and their sums), in turns; medians go to
``benchmarks/gate_cost.md``. The exit code is 1 where the bound is missed.
"""

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import cutback
from benchmarks.zoo.records import machine
from cutback.gates import Gates
from cutback.models import build

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "benchmarks" / "gate_cost.md"
MOST = 1.25
READ: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "Fisher (consumer)": ("consumer", lambda gradient: gradient.square().sum(0)),
    "Taylor (norm)": ("norm", lambda gradient: gradient.sum(0).square()),
    "Taylor (stream)": ("stream", lambda gradient: gradient.sum(0).square()),
}


def step(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    """Run a forward and a backward pass."""
    model.zero_grad()
    cross_entropy(model(images), labels).backward()


def gated_step(gates: Gates, score: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Run both inside gates, and return what a score adds up."""
    step(gates.graph.model, images, labels)
    return {group: score(gradient) for group, gradient in gates.take().items()}


def seconds(function: Callable[[], object]) -> float:
    """Return the processor time a call takes."""
    start = time.process_time()
    function()
    return time.process_time() - start


def measure(batch: int, repeats: int) -> dict[str, float]:
    """Return the median seconds of a plain step, and of one with each kind of gates."""
    torch.manual_seed(0)
    model = build("resnet20").train()
    images, labels = torch.randn(batch, 3, 32, 32), torch.randint(0, 10, (batch,))
    graph = cutback.trace(model, images[:2])
    gates = {name: Gates(graph, site) for name, (site, _) in READ.items()}
    times: dict[str, list[float]] = {"plain step": [], **{name: [] for name in READ}}
    for _ in range(repeats):
        times["plain step"].append(seconds(lambda: step(model, images, labels)))
        for name, (_, score) in READ.items():
            with gates[name]:
                model(images)  # captured once for all steps inside the gates
                times[name].append(seconds(lambda: gated_step(gates[name], score, images, labels)))  # noqa: B023
    return {name: median(spent) for name, spent in times.items()}


def page(found: Mapping[str, float], batch: int) -> tuple[str, bool]:
    """Return the page, and whether the bound is met."""
    plain = found["plain step"]
    met = all(spent <= MOST * plain for spent in found.values())
    lines = ["# The cost of reading gates", "", (__doc__ or "").partition("\n\n")[2], machine(), ""]
    lines += [f"| ResNet-20, batch {batch} | ms | of a plain step |", "|---|---|---|"]
    lines += [f"| {name} | {1000 * spent:.0f} | {spent / plain:.2f} |" for name, spent in found.items()]
    lines += ["", f"- {'met' if met else 'MISSED'}: at most {MOST:g} times a plain step", ""]
    return "\n".join(lines), met


def main() -> int:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    text, met = page(measure(options.batch, options.repeats), options.batch)
    PAGE.write_text(text)
    sys.stdout.write(text)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
