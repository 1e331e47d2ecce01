"""Does SNPFI find planted interactions, useless filters and their number, and recover? An experiment of minutes.

Run ``python -m benchmarks.snpfi_acceptance``; a few minutes on one thread.

- *Gratings*: four directions in noise (12x12 pixels, three channels, 2,000 pictures to learn, 1,000 to test); three
  convolutions of 12 filters, Adam 3e-3, 8 epochs. Eight filters with larger weights, which are hardly read, are added
  to the second layer: nothing may go before them but what alone changes the loss as little as they do (first it was
  nothing at all, which a nearly dead filter of seed 2 misses), and the width found for an epsilon of 0.02 must be at
  most 12 of 20. Twins are made of that layer's filters and one of each pair removed: recovery must be exact. Half of
  each layer is removed by the method: recovery must bring back the accuracy, and halve the difference of interactions,
  D (of 400 pairs: of the default 40, tried first, the error decided whether one layer of seed 1 met its bound).
- *Intervals*: importance of the 10 filters of a layer of that kind in all 1,024 coalitions, and in 16 orders and their
  reverses, for 100 seeds: how often the 99 % interval of each filter covers the exact value.
- *Digits* (``digits_protocol``, 20 epochs): a cut to 60 % and to 40 % of the MACs, the accuracy after removal and after
  recovery, nothing trained in between; beside it uniform L1.

Results go to ``benchmarks/snpfi_acceptance.md``; the exit code is 1 where a bound is missed.
"""

import argparse
import copy
import itertools
import sys
import time
from collections.abc import Sequence
from math import factorial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import cutback
from benchmarks.digits_protocol import Digits, accuracy, digits, network, sgd, train
from benchmarks.gratings import gratings
from benchmarks.pages import Check, page
from cutback.graph.graph import Graph
from cutback.methods import SNPFI
from cutback.methods.activations import looked_at
from cutback.methods.snpfi.calibration import calibration
from cutback.methods.snpfi.game import Arena, GroupGame
from cutback.methods.snpfi.sampling import walked
from cutback.methods.snpfi.worth import log_probability
from cutback.planning.make import plan_for
from cutback.planning.plan import Plan

PAGE = Path(__file__).resolve().parent / "snpfi_acceptance.md"
SEEDS, WIDTH, USELESS, EPSILON, TRIPLES = (0, 1, 2), 12, 8, 0.02, 400
PAIRS, TRIALS, COVERED = 16, 100, 95
Set = tuple[Tensor, Tensor]


def pictures(count: int, seed: int) -> Set:
    """Return gratings of four directions and their classes."""
    return gratings(count, seed=seed, channels=3, angles=4, frequencies=(1.2,), amplitude=0.5, noise=1.0)


def small(width: int = WIDTH) -> nn.Sequential:
    """Return three convolutions, untrained."""
    layers: list[nn.Module] = []
    for before, stride in ((3, 1), (width, 2), (width, 1)):
        layers += [nn.Conv2d(before, width, 3, stride, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 4))


def learnt(seed: int, data: Set, width: int = WIDTH, epochs: int = 8) -> nn.Sequential:
    """Return a network that has learnt the gratings, in eval mode."""
    torch.manual_seed(seed)
    model, generator = small(width), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(epochs):
        for chosen in torch.randperm(len(data[1]), generator=generator).split(64):
            optimizer.zero_grad()
            cross_entropy(model(data[0][chosen]), data[1][chosen]).backward()
            optimizer.step()
    return model.eval()


def right(model: nn.Module, data: Set) -> float:
    """Return the share of pictures that are told right, in eval mode."""
    with torch.no_grad():
        return float((model.eval()(data[0]).argmax(1) == data[1]).double().mean())


def widened(model: nn.Sequential, seed: int) -> nn.Sequential:
    """Return a copy with eight more filters in its second layer, of twice the weights' deviation, hardly read."""
    generator = torch.Generator().manual_seed(seed + 50)
    wide = small()
    second, third = model[2], model[4]
    more = 2 * second.weight.std() * torch.randn(USELESS, WIDTH, 3, 3, generator=generator)
    wide[2] = nn.Conv2d(WIDTH, WIDTH + USELESS, 3, 2, padding=1)
    wide[4] = nn.Conv2d(WIDTH + USELESS, WIDTH, 3, padding=1)
    with torch.no_grad():
        for number in (0, 8):
            wide[number].load_state_dict(model[number].state_dict())
        wide[2].weight.copy_(torch.cat([second.weight, more]))
        wide[2].bias.copy_(torch.cat([second.bias, torch.zeros(USELESS)]))
        reading = 1e-4 * torch.randn(WIDTH, USELESS, 3, 3, generator=generator)
        wide[4].weight.copy_(torch.cat([third.weight, reading], 1))
        wide[4].bias.copy_(third.bias)
    return wide.eval()


def twinned(model: nn.Sequential) -> nn.Sequential:
    """Return a copy in which each filter of the second layer has a twin of twice its size; together they are read."""
    twins = small()
    twins[2], twins[4] = nn.Conv2d(WIDTH, 2 * WIDTH, 3, 2, padding=1), nn.Conv2d(2 * WIDTH, WIDTH, 3, padding=1)
    with torch.no_grad():
        for number in (0, 8):
            twins[number].load_state_dict(model[number].state_dict())
        for name in ("weight", "bias"):
            once = getattr(model[2], name)
            getattr(twins[2], name).copy_(torch.cat([once, 2 * once]))
        twins[4].weight.copy_(torch.cat([0.3 * model[4].weight, 0.35 * model[4].weight], 1))
        twins[4].bias.copy_(model[4].bias)
    return twins.eval()


class ByHand(SNPFI):
    """The method with units chosen by hand."""

    kept: dict[str, Sequence[int]]

    def _chosen(self, players: Sequence[str]) -> Plan:  # noqa: ARG002 (the method's own signature)
        return plan_for(self.graph, self.kept)


def cut_by_hand(model: nn.Module, kept: dict[str, Sequence[int]], data: Set, *, recover: bool = True) -> ByHand:
    """Cut a network in place."""
    graph = cutback.trace(model, data[0][:2])
    method = ByHand(graph, budget="macs=50%", loader=[data], recover=recover, triples=TRIPLES)
    method.kept = kept
    with method:
        pass
    return method


def apart(method: SNPFI, group: str) -> tuple[float, float]:
    """Return how far interactions were apart before and after recovery."""
    found = method.findings()["interaction_difference"][group]
    return found["before"]["mean"], found["after"]["mean"]


def useless(model: nn.Sequential, seed: int, data: Set) -> tuple[list[str], list[Check]]:
    """Try the network with useless filters."""
    wide = widened(model, seed)
    graph = cutback.trace(wide, data[0][:2])
    method = SNPFI(graph, epsilon=EPSILON, loader=[data], ignore="0,4", seed=seed)
    found = method.play()["2"]
    first, strength, width = set(found.order[:USELESS]), float(found.strength[WIDTH]), found.leaving.width(EPSILON)
    norms = wide[2].weight.detach().abs().sum((1, 2, 3))
    planted = set(range(WIDTH, WIDTH + USELESS))
    by_norm = len(set(norms.argsort()[:USELESS].tolist()) & planted)
    changes = [alone(wide, unit, data) for unit in range(WIDTH + USELESS)]
    as_useless = {unit for unit in range(WIDTH) if changes[unit] <= max(changes[other] for other in planted)}
    checks = [
        (
            first <= planted | as_useless and strength >= 0.999,
            f"seed {seed}: the {USELESS} filters that go first are of no use, U(12) 0.999",
        ),
        (width <= WIDTH, f"seed {seed}: at most {WIDTH} of {WIDTH + USELESS} filters at epsilon {EPSILON}"),
    ]
    counts = (f"{len(first & planted)} of {USELESS}", str(len(first & as_useless)), f"{by_norm} of {USELESS}")
    return [*counts, f"{strength:.4f}", str(width)], checks


def alone(model: nn.Sequential, unit: int, data: Set) -> float:
    """Return by how much the loss changes without a filter of the second layer, up or down."""
    without = copy.deepcopy(model)
    with torch.no_grad():
        without[4].weight[:, unit] = 0
        losses = [cross_entropy(net(data[0]).double(), data[1]) for net in (model, without)]
    return float((losses[1] - losses[0]).abs())


def exact_twins(model: nn.Sequential, seed: int, data: Set) -> tuple[list[str], list[Check]]:
    """Try the network with twins."""
    twins, bare = twinned(model), twinned(model)
    dense = copy.deepcopy(twins)
    generator = torch.Generator().manual_seed(seed)
    kept = [n + WIDTH * int(torch.randint(2, (), generator=generator)) for n in range(WIDTH)]
    cut_by_hand(bare, {"2": kept}, data, recover=False)
    method = cut_by_hand(twins, {"2": kept}, data)
    with torch.no_grad():
        before, after = (float((net(data[0]) - dense(data[0])).abs().max()) for net in (bare, twins))
    far, near = apart(method, "2")
    checks = [(before > 1 and after <= 1e-3 and far > 100 * near, f"seed {seed}: twins are recovered exactly")]
    return [f"{before:.1f}", f"{after:.0e}", f"{far:.2f}", f"{near:.0e}"], checks


def halved(model: nn.Sequential, layer: int, seed: int, data: Set, test: Set) -> tuple[list[str], list[Check]]:
    """Remove half of one layer by the method, and recover."""
    whole, group = right(model, test), str(2 * layer)
    others = ",".join(str(2 * other) for other in range(3) if other != layer)
    graph = cutback.trace(copy.deepcopy(model), data[0][:2])
    order = SNPFI(graph, epsilon=0.5, loader=[data], ignore=others, seed=seed).play()[group].order
    kept = sorted(order[WIDTH // 2 :])
    bare, recovered = copy.deepcopy(model), copy.deepcopy(model)
    cut_by_hand(bare, {group: kept}, data, recover=False)
    method = cut_by_hand(recovered, {group: kept}, data)
    far, near = apart(method, group)
    removed, back = right(bare, test), right(recovered, test)
    checks = [
        (back >= whole - 0.01, f"seed {seed}, layer {layer + 1}: accuracy comes back to within a point"),
        (near < far / 2, f"seed {seed}, layer {layer + 1}: interactions are apart less than half as far"),
    ]
    return [f"{whole:.3f}", f"{removed:.3f}", f"{back:.3f}", f"{far:.2f}", f"{near:.2f}"], checks


class Table:
    """A game of ten filters whose coalitions were all tried before."""

    units = 10

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def of(self, coalitions: np.ndarray) -> np.ndarray:
        """Return the worth of coalitions, (K,)."""
        return self.values[coalitions @ (1 << np.arange(self.units))]


def all_coalitions(graph: Graph, group: str, data: Set) -> np.ndarray:
    """Return what each of the 1,024 coalitions of ten filters is worth, by the number whose bits are its members."""
    members = (np.arange(1 << 10)[:, None] >> np.arange(10)) & 1 == 1
    with looked_at(graph):
        arena = Arena(graph, [group], calibration(graph, [data], 256, 1024), 1024)
        return GroupGame(arena, group, 10, log_probability).of(members)


def exact_importance(values: np.ndarray, *, signed: bool) -> np.ndarray:
    """Return the mean (magnitude of) change by each of ten filters over all orders, coalition by coalition."""
    found = np.zeros(10)
    for unit, context in itertools.product(range(10), range(1 << 10)):
        if context >> unit & 1:
            continue
        size = context.bit_count()
        change = values[context | 1 << unit] - values[context]
        found[unit] += factorial(size) * factorial(9 - size) / factorial(10) * (change if signed else abs(change))
    return found


def coverage(values: np.ndarray) -> tuple[list[int], list[int]]:
    """Return in how many of the seeds the interval of each filter covers the exact value, of importance and Shapley."""
    exact = [exact_importance(values, signed=signed) for signed in (False, True)]
    covered = np.zeros((2, 10), dtype=int)
    for seed in range(TRIALS):
        walks = walked(Table(values), range(10), PAIRS, np.random.default_rng(seed))
        for row, (estimate, truth) in enumerate(zip((walks.importance, walks.shapley), exact, strict=True)):
            low, high = estimate.interval(0.99)
            covered[row] += (low <= truth) & (truth <= high)
    return covered[0].tolist(), covered[1].tolist()


def on_digits(model: nn.Module, data: Digits, seed: int, budget: str) -> list[str]:
    """Cut copies of a network that knows digits, by the method and by L1, and return the accuracies."""
    batches, bare, recovered, norm = data.batches(), *(copy.deepcopy(model) for _ in range(3))
    start = time.monotonic()
    with SNPFI(cutback.trace(recovered, data.pictures[:2]), budget=budget, loader=batches, seed=seed) as method:
        seconds = time.monotonic() - start
    plan = method.plan()
    if plan is None:
        raise RuntimeError("nothing was cut")
    cutback.apply_(cutback.trace(bare, data.pictures[:2]), plan)
    graph = cutback.trace(norm, data.pictures[:2])
    cutback.apply_(graph, cutback.plan(graph, score="l1", budget=budget))
    widths = ", ".join(str(len(group.kept)) for group in plan.groups)
    figures = [f"{accuracy(net, data):.1f}" for net in (model, bare, recovered, norm)]
    passes = method.findings()["passes"]
    return [budget, *figures, widths, f"{passes / 1e6:.1f} M", f"{seconds:.0f}"]


def main() -> int:
    """Run the experiment, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="so many of them, for a quick look")
    options = parser.parse_args()
    torch.set_num_threads(1)
    data, test = pictures(2000, 0), pictures(1000, 1)
    checks: list[Check] = []
    rows: dict[str, list[list[str]]] = {"useless": [], "twins": [], "halved": [], "covered": [], "digits": []}

    def note(table: str, head: Sequence[str], found: tuple[list[str], list[Check]]) -> None:
        rows[table].append([*head, *found[0]])
        checks.extend(found[1])
        sys.stderr.write(f"{table}: {rows[table][-1]}\n")

    for seed in SEEDS[: options.seeds]:
        model = learnt(seed, data)
        note("useless", [str(seed)], useless(model, seed, data))
        note("twins", [str(seed)], exact_twins(model, seed, data))
        for layer in range(3):
            note("halved", [str(seed), str(layer + 1)], halved(model, layer, seed, data, test))
        ten = learnt(seed, data, width=10)
        graph = cutback.trace(ten, data[0][:2])
        for group in ("0", "2", "4"):
            importance, shapley = coverage(all_coalitions(graph, group, data))
            met = (
                min(importance) >= COVERED,
                f"seed {seed}, layer {group}: every filter covered in {COVERED} of {TRIALS}",
            )
            note("covered", [str(seed), group], ([str(min(importance)), str(min(shapley))], [met]))
        known = digits(seed)
        net = network()
        train(net, known, sgd(net, 5e-4), epochs=20, seed=seed)
        for budget in ("macs=60%", "macs=40%"):
            note("digits", [str(seed)], (on_digits(net, known, seed, budget), []))
    tables = [
        (
            "Useless filters",
            ["seed", "planted that go first", "others of no use", "planted, lowest by L1", "U(12)", "width at 0.02"],
            rows["useless"],
        ),
        ("Twins", ["seed", "largest change of logits", "after recovery", "D", "D after"], rows["twins"]),
        (
            "Half of a layer",
            ["seed", "layer", "accuracy", "after removal", "after recovery", "D", "D after"],
            rows["halved"],
        ),
        (
            f"Intervals that cover, of {TRIALS}, for the filter with the fewest",
            ["seed", "layer", "importance", "Shapley value"],
            rows["covered"],
        ),
        (
            "Digits, accuracy in per cent, nothing trained after the cut",
            ["seed", "budget", "dense", "removed", "recovered", "L1", "widths", "passes", "seconds"],
            rows["digits"],
        ),
    ]
    text = page("SNPFI: the small-scale experiment", __doc__, tables, checks)
    PAGE.write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    return 0 if all(met for met, _ in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
