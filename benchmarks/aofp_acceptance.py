"""Does AOFP find what the oracle would, and how wide must a network be? An experiment of minutes.

Run ``python -m benchmarks.aofp_acceptance``; several minutes on one thread. Three convolutions of 16, 32 and 32 filters
with batch norm and ReLU, the second with stride 2, pooling and a linear layer learn ten classes of gratings in noise
(`benchmarks/gratings.py`, 12x12 pixels, 2,000 pictures). Searches run on these pictures in eval mode, in batches of 32.

*Rescaled* networks compute the same: each filter is multiplied by a random factor, its batch norm's mean and variance
along with it, so that the magnitude of weights means nothing. Then:

1. the damage of each filter alone, at the next layer, against what the loss rises by without it;
2. mean damages of random halves of eight filters of the third layer against those of all 70 halves, 40 seeds;
3. the same picks in rescaled networks, whose magnitudes pick otherwise;
4. the quarter that the search picks against the oracle's quarter;
5. what the loss rises by when all of that quarter is gone;
6. planted dead filters;
7. whole runs (halves of 60 steps, SGD 0.01) to half of the MACs at three thresholds, then 300 steps of fine-tuning;
8. the same budget by the exact oracle, all units rated once and greedily, and what either has cost.

Results go to ``benchmarks/aofp_acceptance.md``; the exit code is 1 where a bound is missed.
"""

import argparse
import copy
import itertools
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from statistics import mean, median
from typing import Self

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import cutback
from benchmarks.gratings import gratings
from benchmarks.group_fisher_acceptance import accuracy, batches
from benchmarks.zoo.records import machine
from cutback import scores
from cutback.gates import Gates
from cutback.methods import AOFP, OraclePruning
from cutback.methods.aofp.damage import Damages
from cutback.methods.aofp.layers import searchable
from cutback.methods.aofp.search import Search

PAGE = Path(__file__).resolve().parent / "aofp_acceptance.md"
LAYERS = ("0", "3", "6")
WIDTHS = {"0": 16, "3": 32, "6": 32}
PICTURES, TEST, BATCH, TRIED = 2000, 1000, 32, 500
STEPS, TUNED, HALF, LOOP_HALF = 500, 300, 1000, 60
SEEDS, RESCALED, INVARIANT = 3, 15, 4
Set = tuple[Tensor, Tensor]
Picks = dict[str, set[int]]


@dataclass
class Found:
    """What has been found, in lines for the page, and which bounds are met."""

    lines: list[str] = field(default_factory=list)
    bounds: list[tuple[bool, str]] = field(default_factory=list)

    def table(self, title: str, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Add a table."""
        self.lines += ["", f"## {title}", "", f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
        self.lines += [f"| {' | '.join(_shown(cell) for cell in row)} |" for row in rows]

    def bound(self, *, met: bool, text: str) -> None:
        """Note a bound."""
        self.bounds.append((met, text))
        sys.stderr.write(f"{'met' if met else 'MISSED'}: {text}\n")


def _shown(cell: object) -> str:
    return f"{cell:.3f}" if isinstance(cell, float) else f"{cell:,}" if isinstance(cell, int) else str(cell)


def network() -> nn.Sequential:
    """Return the network, untrained."""
    layers: list[nn.Module] = []
    for before, width, stride in ((1, 16, 1), (16, 32, 2), (32, 32, 1)):
        layers += [nn.Conv2d(before, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))


def trained(seed: int, data: Set, steps: int = STEPS) -> nn.Sequential:
    """Return a network that has learnt the pictures, in eval mode."""
    torch.manual_seed(seed)
    model = network()
    tune(model, data, steps, 0.05, seed)
    return model.eval()


def tune(model: nn.Module, data: Set, steps: int, rate: float, seed: int) -> None:
    """Train a network in place: SGD with momentum 0.9, a learning rate that falls to zero as a cosine."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    model.train()
    for _ in range(steps):
        images, labels = batches(data, generator)
        optimizer.zero_grad()
        cross_entropy(model(images), labels).backward()
        optimizer.step()
        schedule.step()


@torch.no_grad()
def rescaled(model: nn.Sequential, seed: int) -> nn.Sequential:
    """Return a network that computes the same with filters of other magnitudes."""
    model, generator = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    for convolution, norm in ((model[int(layer)], model[int(layer) + 1]) for layer in LAYERS):
        if not isinstance(convolution, nn.Conv2d) or not isinstance(norm, nn.BatchNorm2d):
            raise TypeError("layers are convolutions, each before its batch norm")
        factor = torch.randn(len(convolution.weight), generator=generator).exp()
        convolution.weight.mul_(factor.view(-1, 1, 1, 1))
        if norm.running_mean is not None and norm.running_var is not None:
            norm.running_mean.mul_(factor)
            norm.running_var.copy_(factor.square() * (norm.running_var + norm.eps) - norm.eps)
    return model


def loader_of(data: Set) -> list[Set]:
    """Return pictures and labels in batches of 32."""
    return list(zip(data[0].split(BATCH), data[1].split(BATCH), strict=True))


class Tried:
    """A network in eval mode whose next layers run without filters beside each pass."""

    def __init__(self, model: nn.Sequential, data: Set) -> None:
        self._model, self._batches = copy.deepcopy(model).eval(), cycle(loader_of(data))
        for parameter in self._model.parameters():
            parameter.requires_grad_(False)
        graph = cutback.trace(self._model, data[0][:2])
        self.names = {layer: group.name for layer, group in searchable(graph, ()).items()}
        self._damages = Damages(list(self.names), torch.device("cpu"))
        layers = {name: layer for layer, name in self.names.items()}
        self._gates = Gates(
            graph,
            groups=list(layers),
            reading=False,
            beside=lambda name, whole, without: self._damages.add(layers[name], whole, without),
        )

    def __enter__(self) -> Self:
        self._gates.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._gates.__exit__(None, None, None)

    def damages(self, out: Mapping[str, Tensor], alive: Mapping[str, Tensor] | None = None) -> dict[str, float]:
        """Return the damage on the next batch of the filters that are out, ``(filters,)`` of bool for each layer.

        Args:
            out: which filters are out.
            alive: which ones the pass itself has; by default all.
        """
        self._gates.mask({self.names[layer]: own.float() for layer, own in (alive or {}).items()})
        self._gates.mask_beside({self.names[layer]: (~own).float() for layer, own in out.items()})
        self._model(next(self._batches)[0])
        return {layer: damage for layer, damage in self._damages.take().items() if damage is not None}


def alone(model: nn.Sequential, data: Set) -> dict[str, list[float]]:
    """Return the damage of each filter alone, the mean over all batches."""
    count = math.ceil(len(data[0]) / BATCH)
    found: dict[str, list[float]] = {layer: [] for layer in LAYERS}
    with Tried(model, data) as tried:
        for k in range(max(WIDTHS.values())):
            out = {layer: torch.arange(width) == k for layer, width in WIDTHS.items() if k < width}
            each = [tried.damages(out) for _ in range(count)]
            for layer in out:
                found[layer].append(mean(damages[layer] for damages in each))
    return found


def rises(model: nn.Sequential, data: Set) -> dict[str, list[float]]:
    """Return what the loss rises by without each filter alone: the oracle."""
    graph = cutback.trace(model.eval(), data[0][:2])
    found = scores.Oracle(loader_of(data), cross_entropy)(graph)
    return {layer: found[group.name].tolist() for layer, group in searchable(graph, ()).items()}


def picks(model: nn.Sequential, data: Set, half: int, seed: int, down_to: Mapping[str, int]) -> Picks:
    """Search in all layers at once, and return what is left of each once that is so many filters."""
    searches = {layer: Search(WIDTHS[layer], 0) for layer in down_to}
    generator, found = torch.Generator().manual_seed(seed), Picks()
    with Tried(model, data) as tried:
        while searches:
            for _ in range(half):
                for search in searches.values():
                    search.draw(generator)
                damages = tried.damages({layer: torch.from_numpy(search.out) for layer, search in searches.items()})
                for layer, search in searches.items():
                    search.add(damages[layer])
            for layer, search in list(searches.items()):
                decision = search.decision(threshold=0.0)
                search.follow(decision)
                if len(decision.picked) <= down_to[layer]:
                    found[layer] = set(decision.picked)
                    del searches[layer]
    return found


def lowest(values: Sequence[float], count: int) -> set[int]:
    """Return the numbers of the lowest values."""
    return set(np.argsort(values, kind="stable")[:count].tolist())


def by_magnitude(model: nn.Sequential, layer: str) -> set[int]:
    """Return the quarter of a layer's filters of the lowest L1 norm."""
    weight = model[int(layer)].weight
    if not isinstance(weight, Tensor):
        raise TypeError("a convolution has a weight")
    return lowest(weight.detach().abs().sum((1, 2, 3)).tolist(), WIDTHS[layer] // 4)


@torch.no_grad()
def rise_without(model: nn.Sequential, data: Set, layer: str, gone: set[int]) -> float:
    """Return what the loss rises by when filters are gone together."""
    silent = copy.deepcopy(model).eval()
    norm = silent[int(layer) + 1]
    if not isinstance(norm, nn.BatchNorm2d):
        raise TypeError("a batch norm follows each convolution")
    norm.weight[list(gone)], norm.bias[list(gone)] = 0.0, 0.0
    return float(cross_entropy(silent(data[0]), data[1]) - cross_entropy(model.eval()(data[0]), data[1]))


def proxy(model: nn.Sequential, data: Set, found: Found) -> None:
    """1: damage at the next layer foretells the loss."""
    damages, losses, rows = alone(model, data), rises(model, data), []
    for layer in LAYERS:
        quarter = WIDTHS[layer] // 4
        rank = float(spearmanr(damages[layer], losses[layer])[0])
        overlap = len(lowest(damages[layer], quarter) & lowest(losses[layer], quarter)) / quarter
        rows.append((layer, rank, overlap))
    found.table(
        "1. A filter's damage at the next layer and what the loss rises by", ("layer", "Spearman", "quarter"), rows
    )
    found.bound(met=min(rank for _, rank, _ in rows) >= 0.7, text="Spearman of at least 0.7 in every layer")
    found.bound(met=min(own for *_, own in rows) >= 0.6, text="60 % of the bottom quarter in every layer")


def estimator(model: nn.Sequential, data: Set, found: Found, seeds: int) -> None:
    """2: random halves against all halves of eight filters."""
    layer, alive = "6", torch.zeros(32, dtype=torch.bool)
    alive[torch.randperm(32, generator=torch.Generator().manual_seed(0))[:8]] = True
    eight, table = alive.nonzero().flatten().tolist(), {}
    count = math.ceil(TRIED / BATCH)
    with Tried(model, (data[0][:TRIED], data[1][:TRIED])) as tried:
        for subset in itertools.combinations(range(8), 4):
            out = torch.zeros(32, dtype=torch.bool)
            out[[eight[k] for k in subset]] = True
            table[frozenset(subset)] = mean(tried.damages({layer: out}, {layer: alive})[layer] for _ in range(count))
    exact = [mean(t for subset, t in table.items() if k in subset) for k in range(8)]
    rows = []
    for draws, right in ((2000, 34), (8000, 38)):
        worst, agreed = 0.0, 0
        for seed in range(seeds):
            search, generator = Search(8, 0), torch.Generator().manual_seed(seed)
            for _ in range(draws):
                search.draw(generator)
                search.add(table[frozenset(np.flatnonzero(search.out).tolist())])
            worst = max(worst, *(abs(m / e - 1) for m, e in zip(search.means().tolist(), exact, strict=True)))
            agreed += set(search.decision(0.0).picked) == lowest(exact, 4)
        rows.append((draws, f"{100 * worst:.1f} %", f"{agreed} of {seeds}"))
        found.bound(met=agreed >= right * seeds / 40, text=f"{draws:,} draws pick the best four in {right} of 40 seeds")
        found.bound(met=draws > 2000 or worst <= 0.05, text=f"{draws:,} draws within 5 % of the exact mean")
    found.table(
        "2. Random halves and all 70 halves of eight filters", ("draws", "largest error", "the same four"), rows
    )


def invariance(model: nn.Sequential, data: Set, found: Found, half: int, seeds: int) -> None:
    """3: what the search picks does not depend on magnitudes."""
    down_to = {layer: width // 4 for layer, width in WIDTHS.items()}
    same = moved = 0
    for seed in range(seeds):
        other = rescaled(model, 100 + seed)
        plain, again = (picks(each, data, half, seed, down_to) for each in (model, other))
        same += sum(plain[layer] == again[layer] for layer in LAYERS)
        moved += sum(by_magnitude(model, layer) != by_magnitude(other, layer) for layer in LAYERS)
    total = 3 * seeds
    rows = [("search", f"{same} of {total}"), ("L1 norm", f"{total - moved} of {total}")]
    found.table("3. The same picks in rescaled networks", ("by", "the same"), rows)
    found.bound(met=same == total, text="rescaled networks give the same picks every time")
    found.bound(met=moved == total, text="magnitudes then pick otherwise every time")


def against_oracle(model: nn.Sequential, data: Set, found: Found, half: int, seeds: int) -> None:
    """4 and 5: the quarter that is picked, against the oracle's and that of the lowest magnitude."""
    down_to = {layer: width // 4 for layer, width in WIDTHS.items()}
    losses = rises(model, data)
    networks = [rescaled(model, seed) for seed in range(RESCALED)]
    searched = [picks(networks[seed], data, half, seed, down_to) for seed in range(seeds)]
    overlaps, joint = [], []
    for layer in LAYERS:
        oracle = lowest(losses[layer], down_to[layer])
        small = [by_magnitude(each, layer) for each in networks]
        own = mean(len(each[layer] & oracle) for each in searched) / len(oracle)
        other = mean(len(each & oracle) for each in small) / len(oracle)
        overlaps.append((layer, own, other, 0.25))
        gone = [rise_without(model, data, layer, each[layer]) for each in searched]
        chance = [rise_without(model, data, layer, each) for each in small]
        joint.append((layer, median(gone), median(chance), rise_without(model, data, layer, oracle)))
    found.table("4. Share of the oracle's quarter", ("layer", "search", "L1 norm", "chance"), overlaps)
    found.table("5. What the loss rises by without the quarter", ("layer", "search", "L1 norm", "oracle's"), joint)
    own, other = (mean(row[column] for row in overlaps) for column in (1, 2))
    found.bound(met=own >= 0.45, text=f"mean overlap with the oracle's quarter {own:.2f}, at least 0.45")
    found.bound(met=own >= 1.5 * other, text=f"{own / other:.2f} times that of the L1 norm, at least 1.5")
    found.bound(
        met=all(row[1] < row[2] for row in joint), text="less damage together than the L1 norm's, in every layer"
    )


@torch.no_grad()
def planted(model: nn.Sequential) -> tuple[nn.Sequential, set[int]]:
    """Return a copy of a network of whose second layer four filters are dead, and which."""
    model, dead = copy.deepcopy(model), {3, 11, 18, 29}
    norm = model[4]
    if not isinstance(norm, nn.BatchNorm2d):
        raise TypeError("a batch norm follows each convolution")
    norm.weight[list(dead)], norm.bias[list(dead)] = 0.0, -1.0
    return model, dead


def dead_filters(model: nn.Sequential, data: Set, found: Found, half: int, seeds: int) -> None:
    """6: planted dead filters are picked, and gone at the end of a whole run."""
    dull, dead = planted(model)
    hits = [len(picks(dull, data, half, seed, {"3": 4})["3"] & dead) for seed in range(seeds)]
    found.bound(met=mean(hits) >= 3, text=f"{mean(hits):.2f} of four planted dead filters on average, at least 3")
    _, method = pruned(dull, data, 0.05, 2000)
    plan = method.plan()
    kept = next(group.kept for group in plan.groups if group.name == "3") if plan else tuple(range(32))
    left = dead & set(kept)
    found.table("6. Planted dead filters", ("found in a search", "left in a whole run"), [(hits, len(left))])
    found.bound(met=not left, text="none of them is left in a whole run")


def pruned(
    model: nn.Sequential, data: Set, threshold: float, most: int, half: int = LOOP_HALF
) -> tuple[nn.Sequential, AOFP]:
    """Return a copy of a network after a whole run to half of its MACs, or of so many steps, and the method."""
    model, generator = copy.deepcopy(model).train(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    graph = cutback.trace(model, data[0][:2])
    method = AOFP(graph, budget="macs=50%", optimizers=optimizer, threshold=threshold, half=half, warm_up=0)
    with method:
        for _ in range(most):
            images, labels = batches(data, generator)
            optimizer.zero_grad()
            cross_entropy(model(images), labels).backward()
            method.after_backward()
            method.before_step()
            optimizer.step()
            method.after_step()
            if method.finished:
                break
    return model, method


def whole_runs(model: nn.Sequential, data: Set, test: Set, found: Found) -> None:
    """7 and 8: whole runs, and the exact oracle to the same budget."""
    picture, rows, shares, steps = data[0][:1], [], {}, {}
    dense = cutback.measure.macs(model, picture)
    whole = accuracy(model, test)
    right: dict[str, float] = {}

    def row(how: str, small: nn.Sequential, before: float, spent: int, trained_for: int) -> None:
        tune(small, data, TUNED, 0.02, 1)
        right[how] = accuracy(small, test)
        widths = "/".join(str(small[int(layer)].out_channels) for layer in LAYERS)
        shares[how] = cutback.measure.macs(small, picture) / dense
        rows.append(
            (how, trained_for, widths, f"{100 * shares[how]:.1f} %", before, right[how], f"{spent / 1e9:,.1f} G")
        )

    for threshold, most in ((0.2, 2000), (0.05, 2000), (0.01, 2500)):
        small, method = pruned(model, data, threshold, most)
        how, steps[threshold] = f"aofp, threshold {threshold}", method.state_dict()["done"]
        row(how, small, accuracy(small, test), method.scoring_macs, steps[threshold])
    few = loader_of((data[0][:TRIED], data[1][:TRIED]))
    for greedy in (False, True):
        small = copy.deepcopy(model)
        graph = cutback.trace(small, data[0][:2])
        with OraclePruning(graph, budget="macs=50%", loader=few, loss=cross_entropy, greedy=greedy) as method:
            row(f"oracle, {'greedy' if greedy else 'once'}", small, accuracy(small, test), method.macs, 0)
    found.table(
        f"7 and 8. To half of the MACs; {whole:.3f} before",
        ("how", "steps", "widths", "MACs left", "accuracy", "fine-tuned", "MACs to search"),
        rows,
    )
    middle = "aofp, threshold 0.05"
    found.bound(met=shares[middle] <= 0.5, text="a threshold of 0.05 ends at half of the MACs within 2,000 steps")
    found.bound(met=whole - right[middle] <= 0.02, text="and is fine-tuned to within 2 points of the whole network")
    found.bound(met=steps[0.2] < steps[0.05], text="a threshold of 0.2 gets there faster")
    found.bound(met=shares["aofp, threshold 0.01"] > 0.7, text="one of 0.01 is still above 70 % after 2,500 steps")


def page(found: Found) -> tuple[str, bool]:
    """Return the page, and whether all bounds are met."""
    lines = ["# Approximated oracle filter pruning: the small-scale experiment", ""]
    lines += [(__doc__ or "").partition("\n\n")[2], machine(), *found.lines, ""]
    lines += [f"- {'met' if met else 'MISSED'}: {text}" for met, text in found.bounds]
    return "\n".join([*lines, ""]), all(met for met, _ in found.bounds)


def main() -> int:
    """Run the experiment, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--half", type=int, default=HALF, help="iterations of a half in the searches, for a quick look")
    options = parser.parse_args()
    torch.set_num_threads(1)
    data, test = gratings(PICTURES, seed=0), gratings(TEST, seed=1)
    model, found = trained(0, data), Found()
    sys.stderr.write(f"trained: {accuracy(model, test):.3f}\n")
    proxy(model, data, found)
    estimator(model, data, found, 40)
    invariance(model, data, found, max(2, options.half // 10), INVARIANT)
    against_oracle(model, data, found, options.half, SEEDS)
    dead_filters(model, data, found, options.half, 4)
    whole_runs(model, data, test, found)
    text, met = page(found)
    PAGE.write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
