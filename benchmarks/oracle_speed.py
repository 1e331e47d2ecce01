"""How long the exact leave-one-out score takes beside a plain loop over whole forward passes.

Run ``python -m benchmarks.oracle_speed`` on an idle machine. Both rate the same units of the same network on the same
pictures, on one thread, a batch in turn; the plain loop runs at the batch size at which it is fastest. Multiply-
accumulates (MACs) are counted by PyTorch's own counter. The result goes to ``benchmarks/oracle_speed.md``; the exit
code is 1 where a bound is missed.
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
BATCHES = (8, 16, 32, 64, 128)
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


def ours(restarts: Restarts, units: Units, images: Tensor, labels: Tensor, together: int) -> list[float]:
    """Return the loss without each unit, restarted and batched."""
    run, found = restarts.on(images), {}
    sizes = {group.name: group.units for group in restarts.graph.groups}
    for name in run.order:
        parts = units.get(name, torch.empty(0, dtype=torch.int64)).split(max(1, together // len(images)))
        found[name] = [
            float(loss)
            for part in parts
            if len(part)
            for loss in losses_without(run, name, part, sizes[name], cross_entropy, labels)
        ]
    return [loss for group in restarts.graph.groups for loss in found[group.name]]


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


def compare(network: str, model: nn.Module, batches: Sequence[tuple[Tensor, Tensor]], every: int) -> Comparison:
    """Rate every n-th unit of each group both ways."""
    model.eval()
    graph = cutback.trace(model, batches[0][0][:2])
    units = {group.name: torch.arange(0, group.units, every) for group in graph.groups}
    restarts = Restarts(graph)
    batch = best_batch(graph, *batches[0])
    one = (batches[0][0][:1], batches[0][1][:1])
    ours(restarts, units, *one, 1)  # captures the network and finds where its samples lie, once for all batches
    macs = counted(lambda: plainly(graph, units, *one, 1)), counted(lambda: ours(restarts, units, *one, 1))
    seconds, difference = [0.0, 0.0], 0.0
    for images, labels in batches:
        ways = (
            lambda: plainly(graph, units, images, labels, batch),  # noqa: B023 (called in this round)
            lambda: ours(restarts, units, images, labels, TOGETHER),  # noqa: B023
        )
        spent, losses = zip(*(timed(way) for way in ways), strict=True)
        seconds = [before + now for before, now in zip(seconds, spent, strict=True)]
        difference = max(difference, *(abs(a - b) / abs(a) for a, b in zip(*losses, strict=True)))
    rated = sum(map(len, units.values()))
    return Comparison(network, rated, batch, (seconds[0], seconds[1]), macs, difference)


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
    lines += ["| network | units | batch of the loop | loop, s | ours, s | times faster | times fewer MACs |"]
    lines += ["|---|---|---|---|---|---|---|"]
    lines += [
        f"| {each.network} | {each.units} | {each.batch} | {each.seconds[0]:.1f} | {each.seconds[1]:.1f} "
        f"| {each.faster:.2f} | {each.fewer:.2f} |"
        for each in found
    ]
    lines += ["", *(f"- {'met' if met else 'MISSED'}: {text}" for text, met in bounds.items()), ""]
    return "\n".join(lines), all(bounds.values())


def main() -> int:
    """Compare both networks, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, default=32, help="pictures in a batch")
    parser.add_argument("--batches", type=int, default=2, help="batches")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    batches = [
        (torch.randn(options.images, 3, 32, 32), torch.randint(0, 10, (options.images,)))
        for _ in range(options.batches)
    ]
    resnet = build("resnet20")
    if WEIGHTS.exists():
        resnet.load_state_dict(load_file(WEIGHTS))
    found = [compare("ResNet-20", resnet, batches, 1), compare("VGG-16", build("vgg16"), batches[:1], 32)]
    text, met = page(found)
    PAGE.write_text(text)
    sys.stdout.write(text)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
