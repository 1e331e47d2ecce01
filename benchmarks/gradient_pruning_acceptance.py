"""Does training lose nothing by pruned activation gradients, and what would be skipped? An experiment of minutes.

Run ``python -m benchmarks.gradient_pruning_acceptance``; some minutes on one thread. Two parts:

- *Gratings*: four directions, amplitude 0.4, in unit noise (`benchmarks/gratings.py`, 12x12x3, 2,000 pictures to
  learn, 1,000 others), three 3x3 convolutions of 16 filters, with and without batch norm, SGD 0.05, momentum 0.9,
  batches of 64, 12 epochs.
  Plain, pruned at 0.9 and 0.99, and with small gradients simply cut at 0.99, which is biased.
- *Digits*: the network of ``digits_protocol`` and ResNet-20, 15 epochs, plain and pruned at 0.9, for several seeds.

Accuracy on pictures that were not learnt, at the end; zeros are the share of gradient entries with which convolutions'
backward products are skipped, by MACs, over the whole run; the ideal speed-up is of these products alone. Nothing is
measured in seconds here, see ``benchmarks/gradient_pruning.py``. The exit code is 1 where a bound is missed.
"""

import argparse
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from statistics import mean, median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import cutback
from benchmarks.digits_protocol import accuracy, digits, network, sgd, train
from benchmarks.gratings import gratings
from benchmarks.zoo.records import machine
from cutback.methods import GradientPruning
from cutback.models import build

PICTURES, TEST, BATCH, EPOCHS = 2000, 1000, 64, 12
RATE, MOMENTUM = 0.05, 0.9
DIGITS_EPOCHS, DECAY = 15, 5e-4
NEAR, WORSE, DIGITS_NEAR = 1.0, 3.0, 0.5
"""Bounds in points: of the normed network on gratings, of cutting at 0.99 below it, and of the mean on digits."""
Run = tuple[type[GradientPruning] | None, float]


class Cutting(GradientPruning):
    """The control that sets all small gradients to zero, and is biased."""

    @staticmethod
    def _rule(gradient: Tensor, threshold: Tensor, draws: Tensor) -> Tensor:  # noqa: ARG004 (nothing is left to chance)
        return torch.where(gradient.abs() < threshold, 0, gradient)


RUNS: dict[str, Run] = {
    "plain": (None, 0.0),
    "0.9": (GradientPruning, 0.9),
    "0.99": (GradientPruning, 0.99),
    "cut at 0.99": (Cutting, 0.99),
}


@dataclass(frozen=True)
class Found:
    """What a training has given.

    Attributes:
        accuracy: on other pictures, in per cent.
        zeros: share of the backward products' MACs with a zero gradient entry; ``nan`` for a plain run.
        ratios: thresholds used by those that the gradients ask for, pass by pass.
    """

    accuracy: float
    zeros: float
    ratios: tuple[float, ...] = ()


def stripes(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return gratings of four directions."""
    return gratings(count, seed=seed, channels=3, angles=4, frequencies=(1.2,), amplitude=0.4, noise=1.0)


def small(*, norm: bool) -> nn.Sequential:
    """Return three convolutions of 16 filters, with or without batch norm."""
    layers: list[nn.Module] = []
    for channels in (3, 16, 16):
        layers += [nn.Conv2d(channels, 16, 3, padding=1, bias=not norm)]
        layers += [nn.BatchNorm2d(16), nn.ReLU()] if norm else [nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4))


def on_gratings(run: Run, *, norm: bool, seed: int, epochs: int = EPOCHS, count: int = PICTURES) -> Found:
    """Train on gratings."""
    kind, rate = run
    learnt, other = stripes(count, 2 * seed), stripes(TEST, 2 * seed + 1)
    torch.manual_seed(seed)
    model, generator = small(norm=norm).train(), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(model.parameters(), RATE, MOMENTUM)
    steps = epochs * -(-count // BATCH)
    method = None if kind is None else kind(cutback.trace(model, learnt[0][:2]), steps=steps, rate=rate, seed=seed)
    ratios: list[float] = []
    with method or nullcontext():
        for chosen in (part for _ in range(epochs) for part in torch.randperm(count, generator=generator).split(BATCH)):
            optimizer.zero_grad()
            cross_entropy(model(learnt[0][chosen]), learnt[1][chosen]).backward()
            if method is not None:
                method.after_backward()
                method.before_step()
                ratios += [value for name, value in _records(method).items() if name.startswith("threshold ratio")]
            optimizer.step()
            if method is not None:
                method.after_step()
    with torch.no_grad():
        right = float((model.eval()(other[0]).argmax(1) == other[1]).double().mean())
    return Found(100 * right, float("nan") if method is None else _zeros(method), tuple(ratios))


def on_digits(name: str, rate: float | None, seed: int, epochs: int = DIGITS_EPOCHS) -> Found:
    """Train on digits.

    Args:
        name: ``four convolutions`` or ``resnet20``.
        rate: of pruning; ``None`` for a plain run.
        seed: of pictures, weights and draws.
        epochs: passes over what is learnt.
    """
    data = digits(seed)
    model = network() if name == "four convolutions" else build("resnet20", in_channels=1)
    optimizer = sgd(model, DECAY)
    if rate is None:
        train(model, data, optimizer, epochs=epochs, seed=seed)
        return Found(accuracy(model, data), float("nan"))
    graph = cutback.trace(model, data.pictures[:2])
    with GradientPruning(graph, steps=epochs * len(data.batches()), rate=rate, seed=seed) as method:
        train(model, data, optimizer, epochs=epochs, seed=seed, method=method)
    return Found(accuracy(model, data), _zeros(method))


def _records(method: GradientPruning) -> dict[str, Any]:
    return dict(method.records())


def _zeros(method: GradientPruning) -> float:
    return 1 - _records(method)["density"]


def gratings_table(seeds: int) -> tuple[list[str], list[tuple[bool, str]]]:
    """Return the table of gratings, and what is required of it."""
    lines = [
        "| blocks | gradients | accuracy | of each seed | zeros | ideal speed-up |",
        "|---|---|---:|---|---:|---:|",
    ]
    found: dict[tuple[bool, str], list[Found]] = {}
    for norm in (True, False):
        for how, run in RUNS.items():
            found[norm, how] = [on_gratings(run, norm=norm, seed=seed) for seed in range(seeds)]
            lines.append(f"| {'Conv-BN-ReLU' if norm else 'Conv-ReLU'} | {how} {_row(found[norm, how])}")
            sys.stderr.write(f"{lines[-1]}\n")
    means = {key: mean(each.accuracy for each in runs) for key, runs in found.items()}
    least = means[True, "plain"] - NEAR
    early = [ratio for each in found[True, "0.9"] for ratio in each.ratios[: len(each.ratios) // 2]]
    middle = median(early)
    checks = [
        (means[True, how] >= least, f"with norms {how} is within {NEAR:g} point of plain: {means[True, how]:.1f} %")
        for how in ("0.9", "0.99")
    ]
    gap = means[True, "0.99"] - means[True, "cut at 0.99"]
    checks.append((gap >= WORSE, f"cutting at 0.99 is at least {WORSE:g} points worse: {gap:.1f}"))
    checks.append((0.9 <= middle <= 1.1, f"half way the median threshold is 0.9 to 1.1 of the own one: {middle:.2f}"))
    return lines, checks


def digits_table(name: str, seeds: int) -> tuple[list[str], list[tuple[bool, str]]]:
    """Return the table of a network on digits, and what is required of it."""
    lines = [
        "| network | gradients | accuracy | of each seed | zeros | ideal speed-up |",
        "|---|---|---:|---|---:|---:|",
    ]
    found: dict[str, list[Found]] = {}
    for how, rate in (("plain", None), ("0.9", 0.9)):
        found[how] = [on_digits(name, rate, seed) for seed in range(seeds)]
        lines.append(f"| {name} | {how} {_row(found[how])}")
        sys.stderr.write(f"{lines[-1]}\n")
    plain, pruned = (mean(each.accuracy for each in found[how]) for how in ("plain", "0.9"))
    text = f"{name} is within {DIGITS_NEAR:g} points of plain: {pruned - plain:+.2f}"
    return lines, [(pruned >= plain - DIGITS_NEAR, text)]


def _row(found: list[Found]) -> str:
    """Return the columns of several seeds."""
    each = ", ".join(f"{run.accuracy:.1f}" for run in found)
    zeros = mean(run.zeros for run in found)
    more = "| | |" if zeros != zeros else f"| {zeros:.3f} | {1 / (1 - zeros):.2f} |"  # noqa: PLR0124 (not a number)
    return f"| {mean(run.accuracy for run in found):.2f} | {each} {more}"


PARTS: dict[str, Callable[[int], tuple[list[str], list[tuple[bool, str]]]]] = {
    "gratings": gratings_table,
    "digits": partial(digits_table, "four convolutions"),
    "resnet20": partial(digits_table, "resnet20"),
}


def main() -> int:
    """Run the experiment, and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3, help="so many of them")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    report, checks = [machine(), ""], []
    for part in options.parts:
        lines, found = PARTS[part](options.seeds)
        report += [*lines, ""]
        checks += found
    report += [f"- {'met' if met else 'MISSED'}: {text}" for met, text in checks]
    sys.stdout.write("\n".join([*report, ""]))
    return 0 if all(met for met, _ in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
