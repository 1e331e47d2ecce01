"""How long the exact leave-one-out score takes beside a plain loop over whole forward passes.

Run ``python -m benchmarks.oracle_speed`` on an idle machine; minutes. Both rate the same units of the same network on
the same pictures, on one thread; the plain loop runs at the batch size from 8 to 64 at which it is fastest, ours
always at 32. Multiply-accumulates (MACs) are counted by PyTorch's own counter. The difference is the largest one of
losses, relative to the loss. The result goes to ``benchmarks/oracle_speed.md``; the exit code is 1 where a bound is
missed.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

import cutback
from benchmarks.zoo.records import machine
from cutback.gates import Restarts
from cutback.graph.clone import state_tensors
from cutback.graph.graph import Graph, Group
from cutback.models import build
from cutback.scores.oracle import losses_without

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "benchmarks" / "oracle_speed.md"
WEIGHTS = ROOT.parent / "shared" / "data" / "cifar10_resnet_jpeg" / "resnet20.safetensors"
FEWER_MACS, FASTER, CLOSE = 2.0, 2.0, 1e-6
BATCHES = (8, 16, 32, 64)
TOGETHER = 32
Units = dict[str, Tensor]


@dataclass
class Comparison:
    """What both gave for one network.

    Attributes:
        network: its name.
        units: how many units were rated.
        batch: the plain loop's batch size.
        seconds: of the plain loop and of ours.
        macs: of the plain loop and of ours, for one picture.
        difference: the largest difference of losses, relative to the loss.
    """

    network: str
    units: int
    batch: int
    seconds: tuple[float, float]
    macs: tuple[int, int]
    difference: float

    @property
    def faster(self) -> float:
        """How many times faster ours is."""
        return self.seconds[0] / self.seconds[1]

    @property
    def fewer(self) -> float:
        """How many times fewer MACs it takes."""
        return self.macs[0] / self.macs[1]


def columns(graph: Graph, group: Group, unit: int) -> Iterator[tuple[Tensor, tuple[object, ...]]]:
    """Yield the weights that consume a unit, and where."""
    states = state_tensors(graph.model)
    for slot, indices in group.slices.items():
        if slot.consumes or slot.role == "column":
            yield states[slot.state], (*[slice(None)] * slot.dimension, torch.from_numpy(indices[unit]))


@torch.no_grad()
def plainly(graph: Graph, units: Units, images: Tensor, labels: Tensor, batch: int) -> list[float]:
    """Return the loss without each unit: its columns are zeroed, and the whole network runs."""
    found: list[float] = []
    for group in graph.groups:
        for unit in units.get(group.name, torch.empty(0)).tolist():
            saved = [(weight, index, weight[index].clone()) for weight, index in columns(graph, group, int(unit))]
            for weight, index, _ in saved:
                weight[index] = 0
            losses = [
                float(cross_entropy(graph.model(part), wanted)) * len(part)
                for part, wanted in zip(images.split(batch), labels.split(batch), strict=True)
            ]
            for weight, index, values in saved:
                weight[index] = values
            found.append(sum(losses) / len(images))
    return found


def ours(restarts: Restarts, units: Units, images: Tensor, labels: Tensor) -> list[float]:
    """Return the loss without each unit, restarted and batched."""
    sizes = {group.name: group.units for group in restarts.graph.groups}
    total = {name: torch.zeros(len(numbers), dtype=torch.float64) for name, numbers in units.items()}
    for part, wanted in zip(images.split(TOGETHER), labels.split(TOGETHER), strict=True):
        run = restarts.on(part)
        for name in run.order:
            split = units[name].split(TOGETHER // len(part))
            losses = [losses_without(run, name, each, sizes[name], cross_entropy, wanted) for each in split]
            total[name] += torch.cat(losses) * len(part)
    return [loss for group in restarts.graph.groups for loss in (total[group.name] / len(images)).tolist()]


def counted(function: Callable[[], object]) -> int:
    """Return the MACs of a call."""
    with FlopCounterMode(display=False) as counter:
        function()
    return counter.get_total_flops() // 2


def timed(function: Callable[[], list[float]]) -> tuple[float, list[float]]:
    """Return the seconds of processor time a call takes, and its result."""
    start = time.process_time()
    result = function()
    return time.process_time() - start, result


def best_batch(graph: Graph, images: Tensor, labels: Tensor) -> int:
    """Return the batch size at which the plain loop is fastest."""
    first = graph.groups[0].name
    few = {first: torch.arange(2)}
    sizes = [size for size in BATCHES if size <= len(images)]
    return min(sizes, key=lambda size: min(timed(lambda: plainly(graph, few, images, labels, size))[0] for _ in "ab"))


def compare(network: str, model: nn.Module, images: Tensor, labels: Tensor, every: int) -> Comparison:
    """Rate every n-th unit of each group both ways."""
    model.eval()
    graph = cutback.trace(model, images[:2])
    units = {group.name: torch.arange(0, group.units, every) for group in graph.groups}
    restarts, batch = Restarts(graph), best_batch(graph, images, labels)
    one = images[:1], labels[:1]
    ours(restarts, units, *one)  # finds where samples lie, once for all batches
    macs = counted(lambda: plainly(graph, units, *one, 1)), counted(lambda: ours(restarts, units, *one))
    ours(restarts, {name: numbers[:1] for name, numbers in units.items()}, images[:TOGETHER], labels[:TOGETHER])
    theirs, losses = timed(lambda: plainly(graph, units, images, labels, batch))
    own, found = timed(lambda: ours(restarts, units, images, labels))
    difference = max(abs(a - b) / abs(a) for a, b in zip(losses, found, strict=True))
    return Comparison(network, len(found), batch, (theirs, own), macs, difference)


def page(found: Sequence[Comparison]) -> tuple[str, bool]:
    """Return the page, and whether all bounds are met."""
    first = found[0]
    bounds = {
        f"{first.network}: at least {FEWER_MACS:g} times fewer MACs": first.fewer >= FEWER_MACS,
        f"{first.network}: at least {FASTER:g} times faster": first.faster >= FASTER,
        f"the same losses to {CLOSE:g}": all(each.difference <= CLOSE for each in found),
    }
    lines = [
        "# The exact leave-one-out score beside a plain loop",
        "",
        (__doc__ or "").partition("\n\n")[2],
        machine(),
        "",
    ]
    lines += [
        "| network | units | batch of the loop | loop, s | ours, s | times faster | times fewer MACs | difference |"
    ]
    lines += ["|---|---|---|---|---|---|---|---|"]
    lines += [
        f"| {each.network} | {each.units} | {each.batch} | {each.seconds[0]:.1f} | {each.seconds[1]:.1f} "
        f"| {each.faster:.2f} | {each.fewer:.2f} | {each.difference:.0e} |"
        for each in found
    ]
    lines += ["", *(f"- {'met' if met else 'MISSED'}: {text}" for text, met in bounds.items()), ""]
    return "\n".join(lines), all(bounds.values())


def main() -> int:
    """Compare both networks, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, default=max(BATCHES), help="pictures")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    images, labels = torch.randn(options.images, 3, 32, 32), torch.randint(0, 10, (options.images,))
    resnet = build("resnet20")
    if WEIGHTS.exists():
        resnet.load_state_dict(load_file(WEIGHTS))
    found = [compare("ResNet-20", resnet, images, labels, 1), compare("VGG-16", build("vgg16"), images, labels, 16)]
    text, met = page(found)
    PAGE.write_text(text)
    sys.stdout.write(text)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
