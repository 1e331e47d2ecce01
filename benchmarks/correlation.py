"""How well scores foretell what the loss does without a unit: rank correlation with an oracle.

Run ``python -m benchmarks.correlation``; minutes on one thread. For each seed a network of four convolutions (16, 32,
32 and 64 filters, each with batch norm and ReLU) learns the noisy digits of scikit-learn, and is frozen. The oracle is
the squared change of the loss without the unit, in eval mode, averaged over 20 batches of 64; scores see the same
batches (network and training: ``benchmarks/digits_protocol.py``). Results for all 144 units together go to
``benchmarks/correlation.md``; the exit code is 1 where a bound is missed.

The experiment is that of P. Molchanov et al., "Importance Estimation for Neural Network Pruning", CVPR 2019, at the
scale of minutes. "Taylor, averaged first" squares the mean of all batches' gradients, the wrong way round: near a
minimum they cancel.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import pearsonr, spearmanr
from torch import Tensor
from torch.nn.functional import cross_entropy

import cutback
from benchmarks.digits_protocol import trained
from benchmarks.zoo.records import machine
from cutback import scores
from cutback.gates import Restarts
from cutback.graph.graph import Graph
from cutback.graph.inputs import Inputs
from cutback.scores.oracle import losses_without

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "benchmarks" / "correlation.md"
NOISE = 0.5
LEAST, GAP, MOST = 0.90, 0.15, 0.35
AVERAGED, CONTROLS = "taylor, averaged first", ("l2", "bn-scale", "random")
Loader = Sequence[tuple[Tensor, Tensor]]
SCORES: dict[str, Callable[[Loader, int], scores.Score]] = {
    "taylor": lambda loader, _: scores.Taylor(loader, cross_entropy),
    "taylor-second": lambda loader, _: scores.TaylorSecond(loader[:5], cross_entropy, probes=1000),
    "taylor-example": lambda loader, _: scores.TaylorExample(loader, cross_entropy),
    "taylor-weight": lambda loader, _: scores.TaylorWeight(loader, cross_entropy),
    "fisher": lambda loader, _: scores.Fisher(loader, cross_entropy),
    "group-fisher": lambda loader, _: scores.GroupFisher(loader, cross_entropy),
    "snip": lambda loader, _: scores.SNIP(loader, cross_entropy),
    "grasp": lambda loader, _: scores.GraSP(loader, cross_entropy),
    AVERAGED: lambda loader, _: scores.Taylor([_merged(loader)], cross_entropy),
    "l2": lambda _, __: scores.L2(),
    "bn-scale": lambda _, __: scores.NormScale(),
    "random": lambda _, seed: scores.Random(seed),
}
Found = dict[str, tuple[float, float]]


def oracle(graph: Graph, loader: Loader) -> NDArray[np.float64]:
    """Return for each unit the mean over batches of the squared change of the loss without it."""
    restarts = Restarts(graph)
    total = {group.name: torch.zeros(group.units, dtype=torch.float64) for group in graph.groups}
    for images, labels in loader:
        run = restarts.on(Inputs.of(images))
        before = cross_entropy(run.plain(), labels).item()  # type: ignore[arg-type]
        for name in run.order:
            units = torch.arange(len(total[name]))
            total[name] += (losses_without(run, name, units, len(units), cross_entropy, labels) - before).square()
    return np.concatenate([(total[group.name] / len(loader)).numpy() for group in graph.groups])


def correlations(seed: int, epochs: int = 6, batches: int = 20, names: Sequence[str] = tuple(SCORES)) -> Found:
    """Return for each score its rank correlation with the oracle and that of the logarithms."""
    model, data = trained(seed, epochs, noise=NOISE)
    loader = data.batches()[:batches]
    graph = cutback.trace(model, loader[0][0][:2])
    truth = oracle(graph, loader)
    found: Found = {}
    for name in names:
        rated = np.concatenate(scores.score_groups(graph, SCORES[name](loader, seed)))
        found[name] = float(spearmanr(rated, truth)[0]), _of_logarithms(rated, truth)
    return found


def _of_logarithms(rated: NDArray[np.float64], truth: NDArray[np.float64]) -> float:
    """Return Pearson's correlation of the logarithms; that of sizes where a score has signs."""
    both = [np.log(np.maximum(np.abs(values), np.finfo(np.float64).tiny)) for values in (rated, truth)]
    return float(pearsonr(*both)[0])


def _merged(loader: Loader) -> tuple[Tensor, Tensor]:
    """Return all batches as one."""
    images, labels = zip(*loader, strict=True)
    return torch.cat(images), torch.cat(labels)


def bounds(found: Sequence[Mapping[str, tuple[float, float]]]) -> dict[str, bool]:
    """Return what was to be reached in every seed, and whether it was."""
    return {
        f"taylor at least {LEAST:.2f} in both": all(min(seed["taylor"]) >= LEAST for seed in found),
        f"averaged first lower by at least {GAP:.2f}": all(
            seed["taylor"][0] - seed[AVERAGED][0] >= GAP for seed in found
        ),
        f"{', '.join(CONTROLS)} at most {MOST:.2f} in size": all(
            abs(seed[name][0]) <= MOST for seed in found for name in CONTROLS
        ),
    }


def page(found: Sequence[Found]) -> tuple[str, bool]:
    """Return the page, and whether the bounds are met."""
    reached = bounds(found)
    lines = ["# Scores and the oracle", "", (__doc__ or "").partition("\n\n")[2], machine(), ""]
    lines += [f"| score (seeds: {len(found)}) | Spearman | Pearson of logarithms |", "|---|---|---|"]
    for name in SCORES:
        columns = (" / ".join(f"{seed[name][column]:.3f}" for seed in found) for column in (0, 1))
        lines.append(f"| {name} | {' | '.join(columns)} |")
    lines += ["", *(f"- {'met' if met else 'MISSED'}: {bound}" for bound, met in reached.items()), ""]
    return "\n".join(lines), all(reached.values())


def main() -> int:
    """Run, record, and compare with the bounds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    text, met = page([correlations(seed) for seed in range(options.seeds)])
    PAGE.write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
