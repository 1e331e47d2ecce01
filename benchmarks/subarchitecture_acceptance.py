"""Are architectures learned apart from weights worth anything when they are trained again? An experiment of minutes.

Run ``python -m benchmarks.subarchitecture_acceptance``; some minutes on one thread. Four parts:

- *Planted inputs* (``planted_inputs``): six of 32 inputs matter. Does the search find them, do controls keep all, and
  what is the choice worth on another task with 60 samples?
- *Gratings*: three convolutions of 12 channels (strides 1, 2, 1, with batch norm), four directions, amplitude 0.5, in
  unit noise; the search for half and for a quarter of the MACs, and the architecture trained from scratch.
- *Another task*: the network of ``digits_protocol``. The architecture (a quarter of the MACs) is learned on the digits
  0 to 4, then trained from scratch on 5, 10, 20 and 50 pictures of each digit from 5 to 9. Beside it the whole network,
  the same share of every layer, random shares, and what the L1 norms of the trained network leave.
- *Accuracy against MACs*: the architecture learned on all digits, down to one channel a layer, trained from scratch,
  beside the same share of every layer.

Channels of a layer are alike before training, so that it is the widths of layers alone that an architecture settles
here: a random mask with as many channels in each layer is the same architecture.
The exit code is 1 where a bound is missed.
"""

import argparse
import copy
import sys
from collections.abc import Callable, Mapping
from functools import partial
from statistics import mean, pstdev

import torch
from torch import Tensor, nn

import cutback
from benchmarks.digits_protocol import Digits, accuracy, digits, network, sgd, train
from benchmarks.gratings import gratings
from benchmarks.planted_inputs import random_mask, relevant, search, teacher, transferred
from benchmarks.zoo.records import machine
from cutback import measure
from cutback.graph.graph import Graph
from cutback.methods import Subarchitecture
from cutback.surgery.initialise import start_anew

SEARCH_EPOCHS, CYCLES, TRAIN_EPOCHS, DECAY = 10, 10, 10, 5e-4
SHOTS, FEW_STEPS, SHARE = (5, 10, 20, 50), 100, "macs=25%"
CURVE = ("50%", "25%", "10%", "5%", "2%")
Check = tuple[bool, str]


def planted(seeds: int, transfers: int) -> tuple[list[str], list[Check]]:
    """Return what the search finds of planted inputs."""
    exact, missed, extra, gaps = 0, 0, 0, []
    scores: dict[str, list[float]] = {"whole": [], "extracted": [], "random": []}
    for seed in range(seeds):
        inputs = relevant(seed)
        found = search(teacher(inputs, seed)(4000, seed), seed)
        truth = torch.zeros_like(found.kept)
        truth[inputs] = True
        exact += bool((found.kept == truth).all())
        missed += int((truth & ~found.kept).sum())
        extra += int((found.kept & ~truth).sum())
        gaps.append(found.gap)
        if seed < transfers:
            masks = {
                "whole": torch.ones_like(truth),
                "extracted": found.kept,
                "random": random_mask(int(found.kept.sum()), 50 + seed),
            }
            for name, mask in masks.items():
                scores[name].append(100 * transferred(mask, teacher(inputs, 500 + seed), seed))
    data = teacher(relevant(0), 0)(4000, 0)
    unpriced = int(search(data, 0, price=0.0).kept.sum())
    frozen = int(search(data, 0, cold=0.02, warm=0.02).kept.sum())
    whole, own, chance = (mean(scores[name]) for name in ("whole", "extracted", "random"))
    lines = ["| planted inputs | |", "|---|---:|"]
    lines += [f"| seeds with exactly the six that matter | {exact} of {seeds} |"]
    lines += [f"| inputs missed, inputs too many, all seeds | {missed}, {extra} |"]
    lines += [f"| largest change of the loss by rounding the mask | {max(gaps):.4f} |"]
    lines += [f"| inputs that stay without a price, with one cold temperature | {unpriced}, {frozen} |"]
    lines += [f"| another task, accuracy of the whole, {transfers} seeds | {whole:.1f} % |"]
    lines += [f"| of the extracted | {own:.1f} % |", f"| of as many inputs by chance | {chance:.1f} % |"]
    return lines, [
        (exact >= 0.8 * seeds and not extra, "planted inputs are found in 8 of 10 seeds, and never one too many"),
        (max(gaps) <= 0.02, "rounding the mask moves the loss by at most 0.02"),
        (unpriced == frozen == 32, "both controls keep all"),
        (own >= whole + 8, f"on another task 8 points above the whole: {own - whole:+.1f}"),
        (own >= chance + 20, f"on another task 20 points above a random choice: {own - chance:+.1f}"),
    ]


def gratings_network() -> nn.Sequential:
    """Return three convolutions of 12 channels for gratings."""
    layers: list[nn.Module] = []
    for channels, stride in ((3, 1), (12, 2), (12, 1)):
        layers += [nn.Conv2d(channels, 12, 3, stride, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 4))


def stripes(seed: int) -> Digits:
    """Return 2,000 gratings of four directions to learn and 1,000 others."""
    learnt, other = (
        gratings(count, seed=2 * seed + offset, channels=3, angles=4, frequencies=(1.2,), amplitude=0.5, noise=1.0)
        for offset, count in enumerate((2000, 1000))
    )
    torch.manual_seed(seed)
    return Digits(*learnt, *other)


def searched(model: nn.Module, data: Digits, budget: str, seed: int, *, epochs: int, floor: float) -> nn.Module:
    """Let a network become the architecture that a search finds, with new weights, and return it."""
    optimizer = sgd(model, DECAY)
    graph = cutback.trace(model.train(), data.pictures[:2])
    steps = epochs * len(data.batches())
    method = Subarchitecture(
        graph, steps=steps, cycles=CYCLES, budget=budget, optimizers=optimizer, floor=floor, patience=0, seed=seed
    )
    with method:
        train(model, data, optimizer, epochs=epochs, seed=seed, shift=0, milestones=(), method=method)
    return model


def retrained(model: nn.Module, data: Digits, seed: int, epochs: int = TRAIN_EPOCHS) -> float:
    """Train a network from scratch; return its accuracy on other pictures, in per cent."""
    start_anew(model, seed=1000 + seed)
    train(model, data, sgd(model, DECAY), epochs=epochs, seed=seed, shift=0)
    return accuracy(model, data)


def widths(model: nn.Module) -> list[int]:
    """Return how many channels each convolution makes."""
    return [layer.out_channels for layer in model.modules() if isinstance(layer, nn.Conv2d)]


def on_gratings(seeds: int) -> tuple[list[str], list[Check]]:
    """Return what architectures for gratings are worth."""
    lines = ["| MACs | left | widths | accuracy | whole network |", "|---|---:|---|---:|---:|"]
    checks: list[Check] = []
    for share in (50, 25):
        for seed in range(seeds):
            data = stripes(seed)
            picture = data.pictures[:1]
            whole = gratings_network()
            dense, full = measure.macs(whole, picture), retrained(whole, data, seed, 12)
            small = searched(gratings_network(), data, f"macs={share}%", seed, epochs=20, floor=0.125)
            left, own = measure.macs(small, picture) / dense, retrained(small, data, seed, 12)
            lines.append(f"| {share} % | {left:.3f} | {widths(small)} | {own:.1f} | {full:.1f} |")
            sys.stderr.write(f"{lines[-1]}\n")
            near = share / 100 - 0.06 <= left <= share / 100 and min(widths(small)) >= 2
            checks.append((near, f"gratings, {share} %, seed {seed}: MACs within 6 % below it, no layer under 2"))
            checks.append((own >= full - 3, f"gratings, {share} %, seed {seed}: within 3 points: {own - full:+.1f}"))
    return lines, checks


def half(data: Digits, classes: range, shots: int | None = None) -> Digits:
    """Return the pictures of some digits, so many of each to learn from, all of them by default."""
    learnt = [(data.labels == number).nonzero().flatten()[:shots] for number in classes]
    tested = torch.cat([(data.test_labels == number).nonzero().flatten() for number in classes])
    chosen = torch.cat(learnt)
    return Digits(data.pictures[chosen], data.labels[chosen], data.test_pictures[tested], data.test_labels[tested])


def random_shares(seed: int) -> Callable[[Graph], Mapping[str, Tensor]]:
    """Return a score that leaves each layer a random share."""

    def score(graph: Graph) -> Mapping[str, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        return {
            group.name: torch.rand((), generator=generator) + torch.rand(group.units, generator=generator)
            for group in graph.groups
        }

    return score


def architectures(data: Digits, seed: int) -> dict[str, nn.Module]:
    """Return the architectures that are compared, all but the whole one at a quarter of the MACs.

    Args:
        data: the digits that they are learned on.
        seed: of everything.
    """
    torch.manual_seed(seed)
    whole = network()
    found: dict[str, nn.Module] = {"whole": whole}
    found["extracted"] = searched(network(), data, SHARE, seed, epochs=2 * SEARCH_EPOCHS, floor=0.125)
    trained = copy.deepcopy(whole)
    train(trained, data, sgd(trained, DECAY), epochs=TRAIN_EPOCHS, seed=seed, shift=0)
    graph = cutback.trace(trained, data.pictures[:2])
    found["same share"] = cutback.apply(graph, cutback.plan(graph, budget=SHARE))
    scored = cutback.plan(graph, score=random_shares(seed), budget=SHARE, allocate="global-raw", max_removed=0.875)
    found["random shares"] = cutback.apply(graph, scored)
    found["L1"] = cutback.apply(graph, cutback.plan(graph, score="l1", budget=SHARE, allocate="global"))
    found["L1, its weights"] = copy.deepcopy(found["L1"])
    return found


def few_shots(model: nn.Module, data: Digits, seed: int, *, inherited: bool) -> float:
    """Train a copy of a network on few pictures; return its accuracy on others, in per cent."""
    model = copy.deepcopy(model)
    if not inherited:
        start_anew(model, seed=1000 + seed)
    epochs = -(-FEW_STEPS // len(data.batches()))
    train(model, data, sgd(model, DECAY), epochs=epochs, seed=seed)
    return accuracy(model, data)


def on_another_task(seeds: int) -> tuple[list[str], list[Check]]:
    """Return the table of architectures learned on one half of the digits and trained on the other."""
    found: dict[tuple[str, int], list[float]] = {}
    shares: dict[str, list[float]] = {}
    for seed in range(seeds):
        data = digits(seed)
        dense = measure.macs(network(), data.pictures[:1])
        for name, model in architectures(half(data, range(5)), seed).items():
            shares.setdefault(name, []).append(measure.macs(model, data.pictures[:1]) / dense)
            for shots in SHOTS:
                few = half(data, range(5, 10), shots)
                right = few_shots(model, few, seed, inherited=name == "L1, its weights")
                found.setdefault((name, shots), []).append(right)
        sys.stderr.write(f"another task: seed {seed} is done\n")
    lines = [
        f"| architecture | MACs left | {' | '.join(f'{shots} a digit' for shots in SHOTS)} |",
        f"|---|---:|{'---:|' * len(SHOTS)}",
    ]
    for name, left in shares.items():
        cells = " | ".join(f"{mean(found[name, n]):.1f} ± {pstdev(found[name, n]):.1f}" for n in SHOTS)
        lines.append(f"| {name} | {mean(left):.3f} | {cells} |")
    share = mean(shares["extracted"])
    return lines, [(0.24 <= share <= 0.25, f"digits: within 1 % below a quarter of the MACs: {share:.3f}")]


def curve(seeds: int) -> tuple[list[str], list[Check]]:
    """Return the curve of accuracy against MACs, down to one channel a layer."""
    data = digits(0)
    picture = data.pictures[:1]
    thin = network()
    graph = cutback.trace(thin, data.pictures[:2])
    cutback.apply_(graph, cutback.plan(graph, keep=dict.fromkeys([group.name for group in graph.groups], 1)))
    lowest, dense = measure.macs(thin, picture), measure.macs(network(), picture)
    lines = ["| MACs at most | left | widths | extracted | same share of each layer |", "|---|---:|---|---:|---:|"]
    full = [retrained(network(), digits(seed), seed) for seed in range(seeds)]
    lines.append(f"| 100 % | 1.000 | {widths(network())} | {mean(full):.1f} | {mean(full):.1f} |")
    found: list[int] = []
    for share in (*CURVE, str(lowest)):
        own, even, left = [], [], []
        for seed in range(seeds):
            data = digits(seed)
            small = searched(network(), data, f"macs={share}", seed, epochs=SEARCH_EPOCHS, floor=0.0)
            own.append(retrained(small, data, seed))
            left.append(measure.macs(small, picture) / dense)
            other = network()
            graph = cutback.trace(other, data.pictures[:2])
            cutback.apply_(graph, cutback.plan(graph, budget=f"macs={share}"))
            even.append(retrained(other, data, seed))
            found = widths(small)
        name = share.replace("%", " %") if "%" in share else f"{lowest:,}"
        lines.append(f"| {name} | {mean(left):.4f} | {found} | {mean(own):.1f} | {mean(even):.1f} |")
        sys.stderr.write(f"{lines[-1]}\n")
    return lines, [(found == [1, 1, 1, 1], f"the curve ends with one channel a layer: {found}")]


PARTS: dict[str, Callable[[], tuple[list[str], list[Check]]]] = {
    "planted": partial(planted, 10, 6),
    "gratings": partial(on_gratings, 2),
    "digits": partial(on_another_task, 2),
    "curve": partial(curve, 1),
}
"""The parts, with how many seeds each has."""


def main() -> int:
    """Run the experiment, and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    report, checks = [machine(), ""], []
    for part in options.parts:
        lines, found = PARTS[part]()
        report += [*lines, ""]
        checks += found
    report += [f"- {'met' if met else 'MISSED'}: {text}" for met, text in checks]
    sys.stdout.write("\n".join([*report, ""]))
    return 0 if all(met for met, _ in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
