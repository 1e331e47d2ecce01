"""How well scores foretell what the loss does without a unit: correlation with an oracle.

Run ``python -m benchmarks.correlation``; minutes on one thread. For each seed a network of four convolutions (16, 32,
32 and 64 filters, each with batch norm and ReLU) learns the noisy digits of scikit-learn, and is frozen. The oracle is
the squared change of the loss without the unit, in eval mode, averaged over 20 batches of 64; scores see the same
batches (network and training: ``benchmarks/digits_protocol.py``). Results for all 144 units together go to
``benchmarks/correlation.md``; the exit code is 1 where a bound is missed.

The experiment is that of P. Molchanov et al., "Importance Estimation for Neural Network Pruning", CVPR 2019, at the
scale of minutes. "Taylor, averaged first" squares the mean of all batches' gradients, the wrong way round: near a
minimum they cancel.

What a norm of filters says across layers is decided by how the weights are drawn. The bounds are for weights drawn as
those of the paper's ResNets are (normal, variance 2 / fan-out): the filters of the first layer, the most important
ones, then have the smallest norms. By PyTorch's own draw (uniform, variance 1 / (3 fan-in)) all filters start with one
norm, whatever their layer, so that what is left of it tells how much a filter has learnt. Both are shown.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import cutback
from benchmarks.digits_protocol import Digits, digits, network, sgd, train
from benchmarks.zoo.records import machine
from cutback import scores

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "benchmarks" / "correlation.md"
NOISE, DECAY = 0.5, 5e-4
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


def learnt(seed: int, epochs: int, *, fan_out: bool = True) -> tuple[nn.Sequential, Digits]:
    """Return a network that has learnt the noisy digits, in eval mode, and the digits.

    Args:
        seed: of all that is drawn.
        epochs: passes over what is learnt.
        fan_out: draw the weights of convolutions as the paper's networks do; else as PyTorch does.
    """
    data, model = digits(seed, NOISE), network()
    for layer in model.modules():
        if fan_out and isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return train(model, data, sgd(model, DECAY), epochs=epochs, seed=seed), data  # type: ignore[return-value]


def correlations(
    seed: int, epochs: int = 6, batches: int = 20, names: Sequence[str] = tuple(SCORES), *, fan_out: bool = True
) -> Found:
    """Return for each score its rank correlation with the oracle and that of the logarithms."""
    model, data = learnt(seed, epochs, fan_out=fan_out)
    loader = data.batches()[:batches]
    graph = cutback.trace(model, loader[0][0][:2])
    rated = {name: SCORES[name](loader, seed) for name in names}
    found = cutback.correlate(graph, rated, scores.Oracle(loader, cross_entropy, squared=True))
    return {name: (own.spearman or 0.0, own.log_pearson or 0.0) for name, own in found.overall.items()}


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


def page(found: Sequence[Found], otherwise: Sequence[Found] = ()) -> tuple[str, bool]:
    """Return the page, and whether the bounds are met.

    Args:
        found: for each seed, what the bounds are for.
        otherwise: the same for weights drawn as PyTorch draws them.
    """
    reached = bounds(found)
    lines = ["# Scores and the oracle", "", (__doc__ or "").partition("\n\n")[2], machine(), "", *_table(found)]
    lines += ["", *(f"- {'met' if met else 'MISSED'}: {bound}" for bound, met in reached.items())]
    if otherwise:
        lines += ["", "Weights drawn as PyTorch draws them:", "", *_table(otherwise)]
    return "\n".join([*lines, ""]), all(reached.values())


def _table(found: Sequence[Found]) -> list[str]:
    """Return the lines of a table, a row a score."""
    lines = [f"| score (seeds: {len(found)}) | Spearman | Pearson of logarithms |", "|---|---|---|"]
    for name in found[0]:
        columns = (" / ".join(f"{seed[name][column]:.3f}" for seed in found) for column in (0, 1))
        lines.append(f"| {name} | {' | '.join(columns)} |")
    return lines


def main() -> int:
    """Run, record, and compare with the bounds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    seeds = range(options.seeds)
    plainly = [correlations(seed, names=("taylor", *CONTROLS), fan_out=False) for seed in seeds]
    text, met = page([correlations(seed) for seed in seeds], plainly)
    PAGE.write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
