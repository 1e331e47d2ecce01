"""Network Slimming at the scale of minutes: do scales fall apart into two heaps, and is the lower one free to go?

The digits of ``digits_protocol``, He's weights, scales that begin at 0.5, 20 epochs, weight decay 1e-4. The strength of
the penalty is given by how far it pulls an unused scale in all (see ``cutback.methods.slimming.pull``). Each trained
network is then cut, without any training after it, at one global threshold and at random.

Run as a script it writes the table of ``src/cutback/methods/slimming/README.md``: ``--seeds 0 1``.
"""

import argparse
import copy
import sys
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import cutback
from benchmarks.digits_protocol import Digits, accuracy, digits, network, sgd, train
from cutback.methods import Slimming
from cutback.scores import Random
from cutback.surgery.initialise import initialise

DECAY, START = 1e-4, 0.5
TITLES = (
    *("seed", "pull", "< 0.01", "0.01 to 0.05", "largest", "uncut", "50 % cut", "50 % at random", "70 % cut"),
    *("widths at 70 %", "params, MACs, memory at 50 %"),
)
EPOCHS, STRENGTHS = 20, (0.0, 0.003, 0.01, 0.03)


@dataclass(frozen=True)
class Outcome:
    """A network that was trained sparsely, and what it was trained on.

    Attributes:
        model: the network, uncut, in eval mode.
        data: the digits.
        pulled: how far the penalty has pulled.
    """

    model: nn.Sequential
    data: Digits
    pulled: float

    @property
    def scales(self) -> Tensor:
        """All absolute scales."""
        norms = [module for module in self.model if isinstance(module, nn.BatchNorm2d)]
        return torch.cat([norm.weight.detach().abs() for norm in norms])

    def share(self, low: float, high: float) -> float:
        """Return which share of the scales lies in ``[low, high)``."""
        return float(((self.scales >= low) & (self.scales < high)).double().mean())

    @property
    def dense(self) -> float:
        """Accuracy of the uncut network, in per cent."""
        return accuracy(self.model, self.data)

    def slimmed(self, removed: float, rule: str = "rank") -> nn.Sequential:
        """Return a copy with a share of its channels cut by one threshold, not trained any further."""
        model = copy.deepcopy(self.model)
        graph = cutback.trace(model, self.data.pictures[:2])
        with Slimming(graph, steps=1, budget=f"channels={1 - removed:.0%}", sparsity=0.0, rule=rule) as method:
            method.after_step()
        return model.eval()

    def at_random(self, removed: float, seed: int) -> nn.Sequential:
        """Return a copy with as large a share of each layer's channels cut at random."""
        model = copy.deepcopy(self.model)
        graph = cutback.trace(model, self.data.pictures[:2])
        cutback.apply_(graph, cutback.plan(graph, score=Random(seed), budget=f"channels={1 - removed:.0%}"))
        return model.eval()


def sparsely_trained(seed: int, strength: float, epochs: int = EPOCHS) -> Outcome:
    """Train a network from scratch with the penalty.

    Args:
        seed: of the split, the weights and the order.
        strength: of the penalty.
        epochs: passes over what is learnt.
    """
    data, model = digits(seed), network()
    initialise(model)
    optimizer = sgd(model, DECAY)
    graph = cutback.trace(model, data.pictures[:2])
    steps = epochs * len(data.batches())
    method = Slimming(
        graph, steps=steps + 1, budget="channels=50%", optimizers=optimizer, sparsity=strength, initial_scale=START
    )
    with method:  # one step more than there are, so that it does not cut
        train(model, data, optimizer, epochs=epochs, seed=seed, method=method)
    pulled = method.records()["pull"]
    assert isinstance(pulled, float)  # noqa: S101 (so it is recorded)
    return Outcome(model, data, pulled)


def widths(model: nn.Module) -> list[int]:
    """Return how many filters each convolution has."""
    return [module.out_channels for module in model.modules() if isinstance(module, nn.Conv2d)]


def costs(outcome: Outcome) -> str:
    """Return parameters, MACs and run-time memory (64 pictures, model and activations) at 50 %, as shares."""
    pictures = outcome.data.test_pictures[:64]

    def measured(model: nn.Module) -> tuple[int, int, int]:
        found = cutback.measure
        return found.params(model), found.macs(model, pictures[:1]), found.run_time_memory(model, pictures).peak

    pairs = zip(measured(outcome.slimmed(0.5)), measured(outcome.model), strict=True)
    return ", ".join(f"{after / before:.0%}" for after, before in pairs)


def row(outcome: Outcome, seed: int) -> str:
    """Return a line of the table."""
    figures = [
        f"{seed} | {outcome.pulled:.2f}",
        f"{outcome.share(0, 0.01):.2f}",
        f"{outcome.share(0.01, 0.05):.2f}",
        f"{outcome.scales.max():.2f}",
        f"{outcome.dense:.1f}",
        f"{accuracy(outcome.slimmed(0.5), outcome.data):.1f}",
        f"{accuracy(outcome.at_random(0.5, seed), outcome.data):.1f}",
        f"{accuracy(outcome.slimmed(0.7), outcome.data):.1f}",
        ", ".join(map(str, widths(outcome.slimmed(0.7)))),
        costs(outcome),
    ]
    return f"| {' | '.join(figures)} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--strengths", type=float, nargs="+", default=list(STRENGTHS))
    given = parser.parse_args()
    torch.set_num_threads(1)
    sys.stdout.write(f"| {' | '.join(TITLES)} |\n|{'---|' * len(TITLES)}\n")
    for strength in given.strengths:
        for seed in given.seeds:
            sys.stdout.write(row(sparsely_trained(seed, strength, given.epochs), seed) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
