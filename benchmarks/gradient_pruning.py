"""What pruned activation gradients save on a CPU: multiply-accumulates as counted, and time as measured.

Run ``python -m benchmarks.gradient_pruning`` on an idle machine; a minute or two on one thread. Two tables:

- *A training step* of ResNet-20 (batch of 64, 32x32): plain, and with ``gradient-pruning`` at 0.9 and 0.99, with and
  without its log. The zeros are those of the run, the ideal speed-up is that of the convolutions' backward products,
  and the time is of the whole step: dense kernels multiply zeros like any other number.
- *The two backward products of one convolution* (for its weight and for its input), computed by torch's own
  convolution, by dense products of the unfolded tensors, with rows of the unfolded gradient left out that are entirely
  zero (compacted), and with the gradient as a sparse matrix (CSR); all give the same. Gradients are normal noise that
  was pruned to a share of zeros; the last one of each shape has whole rows of zeros instead, as many.

Times are medians of processor time of runs in turns.
"""

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.functional import cross_entropy

import cutback
from benchmarks.zoo.records import machine
from cutback.methods import GradientPruning
from cutback.methods.gradient_pruning.rule import calibrated, pruned
from cutback.models import build

SHAPES = ((32, 16, 32), (32, 32, 16), (32, 64, 8))
"""Batch, channels and size of the features of the convolutions in ResNet-20's stages."""
ZEROS = (0.54, 0.9, 0.99)
Products = tuple[Tensor, Tensor]
"""The gradients of a convolution's weight and of its input."""


def library(x: Tensor, weight: Tensor, gradient: Tensor) -> Products:
    """Return the products as torch computes them."""
    found = torch.ops.aten.convolution_backward.default(
        gradient, x, weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [True, True, False]
    )
    return found[1], found[0]


def unfolded(x: Tensor, weight: Tensor, gradient: Tensor) -> Products:
    """Return them as dense products of unfolded tensors."""
    rows, columns, flat = _rows(gradient), _columns(x), weight.flatten(1)
    return (rows.T @ columns).view_as(weight), _folded(rows @ flat, x)


def compacted(x: Tensor, weight: Tensor, gradient: Tensor) -> Products:
    """Return them without the rows of the gradient that are entirely zero."""
    rows, columns, flat = _rows(gradient), _columns(x), weight.flatten(1)
    alive = rows.any(1).nonzero().flatten()
    few = rows[alive]
    back = torch.zeros_like(columns)
    back[alive] = few @ flat
    return (few.T @ columns[alive]).view_as(weight), _folded(back, x)


def sparse(x: Tensor, weight: Tensor, gradient: Tensor) -> Products:
    """Return them with the gradient as a sparse matrix."""
    rows, columns, flat = _rows(gradient), _columns(x), weight.flatten(1)
    return (rows.T.to_sparse_csr() @ columns).view_as(weight), _folded(rows.to_sparse_csr() @ flat, x)


WAYS: Mapping[str, Callable[[Tensor, Tensor, Tensor], Products]] = {
    "torch": library,
    "unfolded": unfolded,
    "compacted": compacted,
    "sparse": sparse,
}


def _rows(gradient: Tensor) -> Tensor:
    """Return a gradient ``(N, C, H, W)`` as ``(N * H * W, C)``."""
    return gradient.permute(0, 2, 3, 1).reshape(-1, gradient.shape[1])


def _columns(x: Tensor) -> Tensor:
    """Return what each output of a 3x3 convolution reads, ``(N * H * W, C * 9)``."""
    return functional.unfold(x, 3, padding=1).transpose(1, 2).reshape(-1, 9 * x.shape[1])


def _folded(back: Tensor, x: Tensor) -> Tensor:
    """Return the sum of what each output sends back to the inputs it has read."""
    return functional.fold(back.view(len(x), -1, back.shape[1]).transpose(1, 2), x.shape[2:], 3, padding=1)


def noise(shape: tuple[int, int, int], zeros: float, *, rows: bool) -> Products:
    """Return a convolution's input and a gradient at its output with a share of zeros.

    Args:
        shape: batch, channels and size.
        zeros: the share.
        rows: let whole rows of the unfolded gradient be zero, not single entries.
    """
    batch, channels, size = shape
    generator = torch.Generator().manual_seed(0)
    x, gradient = (torch.randn(batch, channels, size, size, generator=generator) for _ in range(2))
    draws = torch.rand(gradient.shape, generator=generator)
    if rows:
        return x, gradient * (draws[:, :1] >= zeros)
    return x, pruned(gradient, calibrated(gradient, zeros, generator), draws)


def seconds(function: Callable[[], object]) -> float:
    """Return the processor time a call takes."""
    start = time.process_time()
    function()
    return time.process_time() - start


def in_turns(ways: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Return the median processor time of each of several calls, in seconds."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats + 1):
        for name, way in ways.items():
            spent = seconds(way)
            times[name] += [spent] if turn else []  # the first one warms up
    return {name: median(spent) for name, spent in times.items()}


def step(model: nn.Module, images: Tensor, labels: Tensor, method: GradientPruning | None) -> None:
    """Run a step of SGD."""
    model.zero_grad()
    cross_entropy(model(images), labels).backward()
    if method is not None:
        method.after_backward()
        method.before_step()


def steps_table(batch: int, repeats: int) -> list[str]:
    """Return the table of training steps."""
    torch.manual_seed(0)
    images, labels = torch.randn(batch, 3, 32, 32), torch.randint(0, 10, (batch,))
    runs: dict[str, Callable[[], object]] = {}
    made: dict[str, GradientPruning | None] = {}
    for name, rate, log in (
        ("plain", None, False),
        ("0.9", 0.9, True),
        ("0.9, no log", 0.9, False),
        ("0.99", 0.99, True),
    ):
        torch.manual_seed(0)
        model = build("resnet20").train()
        method = None
        if rate is not None:
            graph = cutback.trace(model, images[:2])
            method = GradientPruning(graph, steps=repeats + 1, rate=rate, log=log, depth=0).__enter__()
        made[name] = method
        runs[name] = lambda model=model, method=method: step(model, images, labels, method)
    found = in_turns(runs, repeats)
    lines = ["| step | zeros | ideal speed-up of backward products | ms | of plain |", "|---|---:|---:|---:|---:|"]
    for name, spent in found.items():
        method = made[name]
        density = None if method is None else method.records().get("density")
        counted = "|  | " if not isinstance(density, float) else f"| {1 - density:.3f} | {1 / density:.2f} "
        lines.append(f"| {name} {counted}| {1000 * spent:.0f} | {spent / found['plain']:.2f} |")
        if method is not None:
            method.__exit__(None, None, None)
    return lines


def products_table(repeats: int) -> list[str]:
    """Return the table of the backward products of single convolutions."""
    lines = [
        f"| channels, size | zeros | rows of zeros | ideal | {' | '.join(f'{way}, ms' for way in WAYS)} |",
        f"|---|---:|---:|---:|{'---:|' * len(WAYS)}",
    ]
    for shape in SHAPES:
        weight = torch.randn(shape[1], shape[1], 3, 3, generator=torch.Generator().manual_seed(1))
        for zeros, rows in (*((share, False) for share in ZEROS), (ZEROS[1], True)):
            x, gradient = noise(shape, zeros, rows=rows)
            found = in_turns(
                {name: lambda way=way: way(x, weight, gradient) for name, way in WAYS.items()},  # noqa: B023 (run here)
                repeats,
            )
            share = 1 - float(gradient.count_nonzero()) / gradient.numel()
            empty = 1 - float(_rows(gradient).any(1).double().mean())
            times = " | ".join(f"{1000 * spent:.1f}" for spent in found.values())
            lines.append(
                f"| {shape[1]}, {shape[2]}x{shape[2]} | {share:.3f} | {empty:.3f} | {1 / (1 - share):.1f} | {times} |"
            )
    return lines


def main() -> int:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = [machine(), "", *steps_table(options.batch, options.repeats), "", *products_table(options.repeats), ""]
    sys.stdout.write("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
