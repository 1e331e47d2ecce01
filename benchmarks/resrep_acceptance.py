"""Do rows that are reset fall to nothing while the rest learns, and does folding then cost nothing?

Run ``python -m benchmarks.resrep_acceptance``; some minutes on one thread. A residual network of three blocks (8, 16
and 16 channels) learns ten classes of gratings in noise (`benchmarks/gratings.py`, 12x12 pixels, 2,000 pictures, 400
steps). `resrep` then takes it to 55 % of its MACs, with a compactor behind each block's first convolution: 3,000 steps
of 64 pictures, SGD at 0.02 that falls to zero by a cosine, penalty 1.5e-3, two rows more every 20 steps from step 100.

Four runs (1,500 steps, penalty 3e-3) show what the parts are there for: without resetting, even with ten times the
penalty, no row falls to nothing; nor does one at a constant learning rate, or with the momentum of the rest.

The digits of `benchmarks/digits_protocol.py` and its chain of four convolutions, trained for 25 epochs, are another
data set and network: the same settings, none chosen for it, to half the MACs.

Results go to ``benchmarks/resrep_acceptance.md``; the exit code is 1 where a bound is missed.
"""

import argparse
import copy
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import cutback
from benchmarks import digits_protocol
from benchmarks.gratings import gratings
from benchmarks.group_fisher_acceptance import Block
from benchmarks.zoo.records import machine
from cutback.methods import ResRep
from cutback.planning.cost import CostModel

PAGE = Path(__file__).resolve().parent / "resrep_acceptance.md"
PICTURES, TEST, BATCH = 2000, 1000, 64
BASE_STEPS, BASE_RATE, RATE = 400, 0.1, 0.02
STEPS, CONTROL_STEPS, TARGET = 3000, 1500, 0.55
SETTINGS = {"before_masks": 100, "interval": 20, "added": 2, "strength": 1.5e-3}
CONTROL_STRENGTH = 3e-3
Set = tuple[Tensor, Tensor]


class Net(nn.Module):
    """A stem of 8 channels, blocks of 8, 16 and 16, and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.blocks = nn.Sequential(Block(8, 8), Block(8, 16), Block(16, 16))
        self.head = nn.Linear(16, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, 10)."""
        return self.head(self.blocks(self.stem(images)).mean((2, 3)))


def sgd(model: nn.Module, rate: float) -> torch.optim.SGD:
    """Return SGD with weight decay on convolutions and linear weights alone, and biases at twice the rate."""
    decayed = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    scales = [module.weight for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    held = {id(parameter) for parameter in (*decayed, *scales)}
    biases = [parameter for parameter in model.parameters() if id(parameter) not in held]
    groups = [
        {"params": decayed, "weight_decay": 1e-4, "base": rate},
        {"params": scales, "weight_decay": 0.0, "base": rate},
        {"params": biases, "weight_decay": 0.0, "base": 2 * rate},
    ]
    return torch.optim.SGD(groups, lr=rate, momentum=0.9)


def train(
    model: nn.Module,
    data: Set,
    optimizer: torch.optim.Optimizer,
    steps: int,
    *,
    seed: int,
    method: ResRep | None = None,
    constant: bool = False,
) -> nn.Module:
    """Train a network in place on random batches; return it in eval mode.

    Args:
        model: the network.
        data: pictures and classes.
        optimizer: with its rate at the start as ``base`` in each group.
        steps: how many.
        seed: of the batches.
        method: called as the loop goes on.
        constant: let the rate be constant; it falls to zero by a cosine otherwise.
    """
    generator = torch.Generator().manual_seed(seed)
    model.train()
    for number in range(steps):
        share = 1.0 if constant else (1 + math.cos(math.pi * number / steps)) / 2
        for group in optimizer.param_groups:
            group["lr"] = group["base"] * share
        index = torch.randint(len(data[0]), (BATCH,), generator=generator)
        optimizer.zero_grad()
        cross_entropy(model(data[0][index]), data[1][index]).backward()
        if method is not None:
            method.before_step()
        optimizer.step()
        if method is not None:
            method.after_step()
    return model.eval()


def trained(seed: int, data: Set, steps: int = BASE_STEPS) -> nn.Module:
    """Return a network that has learnt the pictures."""
    torch.manual_seed(seed)
    model = Net()
    return train(model, data, sgd(model, BASE_RATE), steps, seed=seed)


def accuracy(model: nn.Module, data: Set) -> float:
    """Return the share of pictures that are told right."""
    return float((logits(model, data).argmax(1) == data[1]).double().mean())


def logits(model: nn.Module, data: Set) -> Tensor:
    """Return what a network says of pictures, in eval mode, ``(N, 10)``."""
    with torch.no_grad():
        return model.eval()(data[0])


@dataclass(frozen=True)
class Outcome:
    """What a run with `resrep` came to.

    Attributes:
        model: the converted network.
        reset: the largest norm of a row that is reset at the end.
        live: the smallest of the others.
        widths: how many rows of each compactor are not reset.
        kept: how many channels of each stay.
        share: MACs left.
        row: the largest share of MACs that one row more would bring.
        before: what the network with compactors said of the test pictures, ``(N, 10)``.
    """

    model: nn.Module
    reset: float
    live: float
    widths: tuple[int, ...]
    kept: tuple[int, ...]
    share: float
    row: float
    before: Tensor


def pruned(
    model: nn.Module,
    seed: int,
    data: Set,
    test: Set,
    steps: int = STEPS,
    **settings: Any,  # noqa: ANN401 (of the method)
) -> Outcome:
    """Prune a copy of a network, and return what came of it."""
    model = copy.deepcopy(model).train()
    optimizer, graph = sgd(model, RATE), cutback.trace(model, data[0][:2])
    given = {"budget": f"macs={TARGET:.0%}", **SETTINGS, **settings}
    method = ResRep(graph, steps=steps + 1, optimizers=optimizer, **given)  # one more, in which nothing moves
    with method:
        train(model, data, optimizer, steps, seed=seed + 100, method=method)
        held, before = method._insertion, logits(model, test)  # noqa: SLF001 (what is measured)
        assert held is not None  # noqa: S101 (it stands in the model)
        pairs = list(zip(held.norms, held.live, strict=True))
        names = [target.name for target in held.targets]
        method.after_step()
    plan = method.plan()
    assert plan is not None  # noqa: S101 (it has finished)
    cost, widths = CostModel(graph), np.array([len(group.kept) for group in plan.groups])
    places = [[group.name for group in plan.groups].index(name) for name in names]
    more = [cost.of("macs", widths + np.eye(len(widths), dtype=np.int64)[place]) for place in places]
    macs = plan.costs["macs"]
    return Outcome(
        model,
        reset=max(float(norms[~live].max(initial=0.0)) for norms, live in pairs),
        live=min(float(norms[live].min()) for norms, live in pairs),
        widths=tuple(int(live.sum()) for _, live in pairs),
        kept=tuple(int(widths[place]) for place in places),
        share=macs.after / macs.before,
        row=(max(more) - macs.after) / macs.before,
        before=before,
    )


def smallest(
    model: nn.Module,
    seed: int,
    data: Set,
    steps: int = CONTROL_STEPS,
    *,
    constant: bool = False,
    **settings: Any,  # noqa: ANN401 (of the method)
) -> float:
    """Return the smallest norm of a row after training with compactors, which are not converted."""
    model = copy.deepcopy(model).train()
    optimizer, graph = sgd(model, RATE), cutback.trace(model, data[0][:2])
    given = {"budget": f"macs={TARGET:.0%}", **SETTINGS, "strength": CONTROL_STRENGTH, **settings}
    with ResRep(graph, steps=steps + 1, optimizers=optimizer, **given) as method:
        train(model, data, optimizer, steps, seed=seed + 100, method=method, constant=constant)
        held = method._insertion  # noqa: SLF001 (what is measured)
        assert held is not None  # noqa: S101 (it stands in the model)
        return min(float(norms.min()) for norms in held.norms)


NEVER: dict[str, Any] = {"before_masks": CONTROL_STEPS + 1}
CONTROLS: dict[str, tuple[dict[str, Any], float]] = {
    "no resetting": (NEVER, 1e-3),
    "no resetting, ten times the penalty": ({**NEVER, "strength": 10 * CONTROL_STRENGTH}, 1e-3),
    "constant learning rate": ({"constant": True}, 1e-5),
    "momentum 0.9": ({"momentum": 0.9}, 0.1),
}
"""Runs without one part of the method: how, and the norm below which no row may have fallen."""

Check = tuple[bool, str]


def checks_of(outcome: Outcome, test: Set, base: float) -> list[Check]:
    """Return whether each bound is met, in words."""
    after = logits(outcome.model, test)
    same = int((after.argmax(1) == outcome.before.argmax(1)).sum())
    moved, right = float((after - outcome.before).abs().max()), float((after.argmax(1) == test[1]).double().mean())
    return [
        (outcome.reset < 1e-5, f"the largest row that is reset is {outcome.reset:.1e}, below 1e-5"),
        (outcome.live > 1e-2, f"the smallest of the others is {outcome.live:.2g}, above 1e-2"),
        (outcome.kept == outcome.widths, f"widths {list(outcome.kept)} are those of the masks {list(outcome.widths)}"),
        (
            TARGET - outcome.row < outcome.share <= TARGET,
            f"{outcome.share:.3f} of the MACs are left: at most {TARGET} and less than a row below it",
        ),
        (same == len(after), f"{same} of {len(after)} predictions are those before folding"),
        (moved <= 1e-3, f"no output has moved by more than {moved:.1e}, at most 1e-3"),
        (abs(right - base) <= 0.015, f"accuracy is {right:.3f}, within 1.5 points of {base:.3f} before"),
    ]


def page(
    checks: Sequence[tuple[int, Sequence[Check]]],
    controls: Mapping[str, float],
    rows: Sequence[tuple[str, int, float, float, float, Sequence[int]]],
) -> tuple[str, bool]:
    """Return the page, and whether all bounds are met.

    Args:
        checks: for each seed.
        controls: the smallest norm of each control.
        rows: data, seed, accuracy before and after, share of MACs, widths.
    """
    lines = ["# ResRep: the small-scale experiment", "", (__doc__ or "").partition("\n\n")[2], machine(), ""]
    lines += ["| data | seed | accuracy before | after | MACs left | widths |", "|---|---:|---:|---:|---:|---|"]
    lines += [
        f"| {data} | {seed} | {before:.3f} | {after:.3f} | {share:.3f} | {', '.join(map(str, widths))} |"
        for data, seed, before, after, share, widths in rows
    ]
    met = True
    for seed, found in checks:
        lines += ["", f"Seed {seed}:", "", *(f"- {'met' if good else 'MISSED'}: {text}" for good, text in found)]
        met = met and all(good for good, _ in found)
    lines += ["", "Without a part of the method:", ""]
    for how, norm in controls.items():
        _, bound = CONTROLS[how]
        lines.append(
            f"- {'met' if norm >= bound else 'MISSED'}: {how}: no row below {bound:g}; the smallest is {norm:.1e}"
        )
        met = met and norm >= bound
    return "\n".join([*lines, ""]), met


def main() -> int:
    """Run the experiment, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    torch.set_num_threads(1)
    train_set, test = gratings(PICTURES, seed=0), gratings(TEST, seed=1)
    checks, rows = [], []
    for seed in options.seeds:
        model = trained(seed, train_set)
        outcome = pruned(model, seed, train_set, test)
        base = accuracy(model, test)
        checks.append((seed, checks_of(outcome, test, base)))
        rows.append(("gratings", seed, base, accuracy(outcome.model, test), outcome.share, outcome.kept))
        sys.stderr.write(f"{rows[-1]}: {checks[-1]}\n")
    for seed in options.seeds:
        chain, data = digits_protocol.trained(seed, 25)
        learnt, unseen = (data.pictures, data.labels), (data.test_pictures, data.test_labels)
        outcome = pruned(chain, seed, learnt, unseen, budget="macs=50%")
        before, after = accuracy(chain, unseen), accuracy(outcome.model, unseen)
        rows.append(("digits", seed, before, after, outcome.share, outcome.kept))
        sys.stderr.write(f"{rows[-1]}\n")
    model = trained(options.seeds[0], train_set)
    controls = {}
    for how, (settings, _) in CONTROLS.items():
        controls[how] = smallest(model, options.seeds[0], train_set, **settings)
        sys.stderr.write(f"{how}: {controls[how]:.1e}\n")
    text, met = page(checks, controls, rows)
    PAGE.write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
