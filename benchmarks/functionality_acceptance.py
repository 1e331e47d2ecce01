"""Do pictures of what filters look for tell repeats that norms do not, and does it pay to keep every function?

Run ``python -m benchmarks.functionality_acceptance``; a few minutes on one thread.

- *Planted repeats*: a layer of 13 filters, four functions three times each in three sizes, with noise, and one
  opposite; 40 seeds for each noise. The adjusted Rand index of the clusters with the truth, as specified (the middle
  position, one beginning for all), and for what one might do instead; how often the silhouette finds five clusters; how
  many functions the survivors of clusters cover when a third stays, and the filters of the largest L1 norm (8 seeds).
- *Digits* (``digits_protocol``, 20 epochs): half the MACs go, by functionality, by L1, by chance and by chance inside
  clusters, as many filters of each layer each time. Accuracy without retraining, after 4 epochs at a tenth of the last
  learning rate, the share of functions that are left, and how far the functions of the filters that stay drift while
  they are trained again.

Results go to ``benchmarks/functionality_acceptance.md``; the exit code is 1 where a bound is missed.
"""

import argparse
import copy
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median

import numpy as np
import torch
from sklearn.metrics import adjusted_rand_score
from torch import Tensor, nn

import cutback
from benchmarks.digits_protocol import Digits, accuracy, digits, network, sgd, train
from benchmarks.pages import Check, page
from cutback.graph.graph import Graph
from cutback.methods import Functionality
from cutback.methods.activations import looked_at
from cutback.methods.functionality.ascent import Ascent
from cutback.methods.functionality.clustering import Clustering, clustered, k_means
from cutback.methods.functionality.looking import looks

PAGE = Path(__file__).resolve().parent / "functionality_acceptance.md"
SEEDS, FEW, NOISES, TRAINED = range(40), range(8), (0.0, 0.02, 0.1, 0.3), (0, 1, 2)
FUNCTIONS, SIZE, EPOCHS, RETRAINING = 4, 12, 20, 4
ORDERS = ("functionality", "l1", "random", "random-inside")


def planted(seed: int, noise: float, *, flipped: bool = True) -> tuple[nn.Sequential, list[int]]:
    """Return a network and the function of each filter of its second layer.

    Args:
        seed: of weights and order.
        noise: of copies, as a share of a function's own deviation.
        flipped: whether the opposite of the first function is there too.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    prototypes = normal(FUNCTIONS, 8, 3, 3)
    truth = [function for function in range(FUNCTIONS) for _ in range(3)]
    scales = [(function + 1) * scale for function in range(FUNCTIONS) for scale in (0.5, 1.0, 2.0)]
    weights = [
        scale * (prototypes[function] + noise * prototypes[function].std() * normal(8, 3, 3))
        for function, scale in zip(truth, scales, strict=True)
    ]
    if flipped:
        weights, truth = [*weights, -prototypes[0]], [*truth, FUNCTIONS]
    order = torch.randperm(len(truth), generator=generator).tolist()
    first, second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, len(truth), 3, padding=1, bias=False)
    with torch.no_grad():
        first.weight.copy_(0.3 * normal(8, 3, 3, 3))
        first.bias.copy_(0.1 * normal(8))
        second.weight.copy_(torch.stack([weights[place] for place in order]))
    head = [nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(len(truth), 4)]
    return nn.Sequential(first, nn.ReLU(), second, *head).eval(), [truth[place] for place in order]


def vectors_of(graph: Graph, seed: int = 0) -> np.ndarray:
    """Return what the filters of the second layer look for."""
    with looked_at(graph):
        return looks(graph, {"2": None}, Ascent(seed=seed))["2"].vectors.numpy()


def otherwise(model: nn.Sequential, *, middle: bool, shared: bool) -> np.ndarray:
    """Return the same by plain steps, on the mean over the map or from beginnings of their own.

    Args:
        model: a planted network.
        middle: maximise the middle position of the map, else the mean over it.
        shared: let all filters begin with one picture.
    """
    filters = len(model[2].weight)
    generator = torch.Generator().manual_seed(0)
    pictures = 0.05 * torch.randn(1 if shared else filters, 3, 5, 5, generator=generator)
    pictures = pictures.expand(filters, -1, -1, -1).clone()
    for _ in range(60):
        pictures.requires_grad_()
        maps = model[:3](pictures)[range(filters), range(filters)]
        value = maps[:, 2, 2] if middle else maps.mean((1, 2))
        (gradient,) = torch.autograd.grad(value.sum(), [pictures])
        step = gradient / (gradient.square().mean((1, 2, 3), keepdim=True).sqrt() + 1e-12)
        pictures = (0.999 * pictures.detach() + 0.2 * step).clamp(-2, 2)
    flat = pictures.flatten(1).double()
    flat = flat - flat.mean(1, keepdim=True)
    return (flat / flat.norm(dim=1, keepdim=True)).numpy()


def five(vectors: np.ndarray, truth: Sequence[int]) -> float:
    """Return the adjusted Rand index of five clusters with the truth."""
    return float(adjusted_rand_score(truth, k_means(vectors, 5, Clustering(), np.random.default_rng(0))))


def repeats(seeds: Sequence[int]) -> tuple[list[list[str]], list[Check]]:
    """Try the planted repeats."""
    rows: list[list[str]] = []
    checks: list[Check] = []
    for noise in NOISES:
        found: dict[str, list[float]] = {"specified": [], "found": [], "own": [], "mean": [], "both": []}
        picked = 0
        for seed in seeds:
            model, truth = planted(seed, noise)
            vectors = vectors_of(cutback.trace(model, torch.zeros(2, 3, SIZE, SIZE)))
            labels = clustered(vectors, Clustering())
            picked += int(labels.max()) == 4
            found["specified"].append(five(vectors, truth))
            found["found"].append(float(adjusted_rand_score(truth, labels)))
            found["own"].append(five(otherwise(model, middle=True, shared=False), truth))
            found["mean"].append(five(otherwise(model, middle=False, shared=True), truth))
            found["both"].append(five(otherwise(model, middle=False, shared=False), truth))
        means = {name: mean(values) for name, values in found.items()}
        rows.append([f"{noise}", *(f"{value:.2f}" for value in means.values()), f"{picked} of {len(seeds)}"])
        least = -(-7 * len(seeds) // 8)
        checks += [
            (means["found"] >= 0.9, f"noise {noise}: clusters agree with the truth, adjusted Rand index 0.9"),
            (picked >= least, f"noise {noise}: the silhouette finds five clusters for {least} of {len(seeds)} seeds"),
        ]
        if noise == 0.1:
            checks.append((means["specified"] >= 0.95, "noise 0.1: five clusters agree with the truth, 0.95"))
        if noise == 0.3:
            for other, said in (("own", "beginnings of their own"), ("mean", "the map's mean"), ("both", "both")):
                checks.append(
                    (means[other] < means["specified"], f"noise 0.3: {said}: less agreement than as specified")
                )
    return rows, checks


def covered(seeds: Sequence[int]) -> tuple[list[list[str]], list[Check]]:
    """Keep four of twelve filters, by cluster and by L1 norm, and count the functions that are left."""
    rows: list[list[str]] = []
    for order in ("functionality", "l1"):
        counts: list[int] = []
        for seed in seeds:
            model, truth = planted(seed, 0.0, flipped=False)
            pictures = torch.randn(24, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))
            graph = cutback.trace(model, pictures[:2])
            loader = [(pictures, None)]
            with Functionality(graph, alpha=1.0, loader=loader, order=order, ignore="0") as method:
                plan = method.plan()
            kept = () if plan is None else next(group.kept for group in plan.groups if group.name == "2")
            counts.append(len({truth[unit] for unit in kept}))
        rows.append([order, ", ".join(map(str, counts))])
    every = all(count == str(FUNCTIONS) for count in rows[0][1].split(", "))
    some = all(count < str(FUNCTIONS) for count in rows[1][1].split(", "))
    return rows, [(every and some, "clusters keep all four functions, the largest norms at most three")]


def on_digits(model: nn.Module, data: Digits, seed: int, order: str) -> list[float]:
    """Cut a copy of a network that knows digits, train it again, and return what there is to tell.

    Returns:
        Accuracy without retraining and after it, in per cent; share of functions left; median drift; share of MACs.
    """
    cut = copy.deepcopy(model)
    optimizer = sgd(cut, 5e-4, rate=5e-5)  # a tenth of the last rate of the training
    steps = RETRAINING * len(data.batches())
    graph = cutback.trace(cut, data.pictures[:2])
    with Functionality(
        graph, budget="macs=50%", optimizers=optimizer, loader=data.batches(), order=order, steps=steps, seed=seed
    ) as method:
        before = accuracy(cut, data)
        train(cut, data, optimizer, epochs=RETRAINING, seed=seed, milestones=(), method=method)
    found, plan = method.findings(), method.plan()
    if plan is None:
        raise RuntimeError("nothing was cut")
    layers = found["layers"].values()
    functions = sum(layer["functions"] for layer in layers)
    left = 1 - sum(layer["functions_lost"] for layer in layers) / functions
    drift = median(each for layer in found["drift"].values() for each in layer["each"])
    costs = plan.costs["macs"]
    return [before, accuracy(cut, data), left, drift, costs.after / costs.before]


def main() -> int:
    """Run the experiment, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=len(TRAINED), help="so many networks, for a quick look")
    options = parser.parse_args()
    torch.set_num_threads(1)
    agreement, checks = repeats(SEEDS)
    sys.stderr.write(f"agreement: {agreement}\n")
    functions, more = covered(FEW)
    checks += more
    sys.stderr.write(f"functions: {functions}\n")
    rows: list[list[str]] = []
    found: dict[str, list[list[float]]] = {order: [] for order in ORDERS}
    for seed in TRAINED[: options.seeds]:
        data, net = digits(seed), network()
        train(net, data, sgd(net, 5e-4), epochs=EPOCHS, seed=seed)
        for order in ORDERS:
            figures = on_digits(net, data, seed, order)
            found[order].append(figures)
            before, after, left, drift, macs = figures
            rows.append(
                [
                    *(str(seed), f"{accuracy(net, data):.1f}", order, f"{1 - macs:.1%}", f"{before:.1f}"),
                    *(f"{after:.1f}", f"{left:.2f}", f"{drift:.2f}"),
                ]
            )
            sys.stderr.write(f"digits: {rows[-1]}\n")
    means = {order: [mean(column) for column in zip(*each, strict=True)] for order, each in found.items()}
    rows += [
        ["mean", "", order, f"{1 - m[4]:.1%}", f"{m[0]:.1f}", f"{m[1]:.1f}", f"{m[2]:.2f}", f"{m[3]:.2f}"]
        for order, m in means.items()
    ]
    tables = [
        (
            f"Agreement with planted functions, adjusted Rand index, mean over {len(SEEDS)} seeds",
            ["noise", "specified, 5", "number found", "own beginnings, 5", "map mean, 5", "both, 5", "finds 5"],
            agreement,
        ),
        (
            f"Functions left of 4, when 4 of 12 filters stay, for each of {len(FEW)} seeds",
            ["kept by", "functions"],
            functions,
        ),
        (
            "Digits, accuracy in per cent",
            ["seed", "dense", "order", "MACs removed", "cut", "retrained", "functions left", "median drift"],
            rows,
        ),
    ]
    text = page("Functionality-oriented pruning: the small-scale experiment", __doc__, tables, checks)
    PAGE.write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    return 0 if all(met for met, _ in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
