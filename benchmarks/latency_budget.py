"""Latency budgets: are they hit, and are such plans faster than plans of equal MACs?

Run ``python -m benchmarks.latency_budget`` on an idle machine; a quarter of an hour. Each network gets ten targets, at
batch 1 on the CPU: shares of what the dense network takes in the same turns, as the speed of machines drifts
(``--milliseconds``: milliseconds, by what the dense network took just before). A plan is made and tried until it was
measured to meet its target; then it is cut and proven, and timed anew, in turns with the dense network and with a plan
for no more MACs than it has. Results go to ``benchmarks/latency_budget.md``; the exit code is 1 where a target is
missed too often.
"""

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from torch import nn

import cutback
from benchmarks.zoo import libraries
from benchmarks.zoo.records import machine
from cutback.measure import Latency, LatencySetting, compare_latency
from cutback.measure.latency_table import LatencyTable
from cutback.measure.layer_calls import layer_calls
from cutback.measure.layer_times import fine_widths, wanted_widths

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "benchmarks" / "latency_budget.md"
NETWORKS = {"ResNet-18": "resnet18", "MobileNetV2": "mobilenet_v2"}
SHARES = (0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.5, 0.4, 0.3)
PICTURES = (1, 3, 224, 224)
REPEATS, BLOCK = 50, 16
LARGEST_MISS, FEWEST_HITS, LEAST_GAIN = 0.05, 0.9, 0.1


@dataclass(frozen=True)
class Row:
    """One target.

    Attributes:
        network: what was pruned.
        budget: as it was written.
        target_ms: the same in milliseconds.
        dense: the network before.
        cut: the proven cut by latency.
        by_macs: the cut of no more MACs, planned without latency.
        macs: MACs of the cut, as a share of the dense network's.
    """

    network: str
    budget: str
    target_ms: float
    dense: Latency
    cut: Latency
    by_macs: Latency
    macs: float

    @property
    def reached(self) -> float:
        """What the cut took, as a share of the target: the median over turns of what it took of the dense network."""
        return self.cut.of_first * self.dense.median_ms / self.target_ms

    @property
    def hit(self) -> bool:
        """Whether that is within 5 %."""
        return abs(self.reached - 1) <= LARGEST_MISS

    @property
    def gain(self) -> float:
        """By what share the cut is faster than that of equal MACs."""
        return 1 - self.cut.of_first / self.by_macs.of_first


def network(name: str) -> nn.Module:
    """Build a network with random weights."""
    torch.manual_seed(0)
    return getattr(libraries.torchvision().models, name)().eval()


def rows(title: str, shares: Sequence[float], setting: LatencySetting, *, milliseconds: bool) -> list[Row]:
    """Carry out the targets of one network."""
    model, pictures = network(NETWORKS[title]), torch.randn(PICTURES, generator=torch.Generator().manual_seed(0))
    graph = cutback.trace(model, pictures)
    found = []
    for share in shares:
        budget = f"latency={share:.0%}"
        if milliseconds:
            dense = compare_latency({"dense": model}, pictures, repeats=REPEATS, threads=setting.threads)["dense"]
            budget = f"latency={share * dense.median_ms:.3f}ms"
        plan = cutback.plan(graph, budget=budget, latency=setting)
        by_macs = cutback.plan(graph, budget=f"macs={plan.costs['macs'].after}")
        nets = {"dense": model, "cut": cutback.apply(graph, plan), "by_macs": cutback.apply(graph, by_macs)}
        taken = compare_latency(nets, pictures, repeats=REPEATS, threads=setting.threads)
        target = float(budget[len("latency=") : -2]) if milliseconds else share * taken["dense"].median_ms
        macs = plan.costs["macs"].after / plan.costs["macs"].before
        found.append(Row(title, budget, target, taken["dense"], taken["cut"], taken["by_macs"], macs))
        sys.stderr.write(f"{line(found[-1])}\n")
    return found


def stairs(title: str, setting: LatencySetting) -> float:
    """Return how much of what a block of channels takes its first channel takes; 1 / 16 where time follows MACs.

    Of the convolutions of a network, by the table that planning has measured: the increase from a multiple of 16
    output channels to one channel more, over that to the next multiple, all added up.
    """
    graph = cutback.trace(network(NETWORKS[title]), torch.zeros(PICTURES))
    calls = [call for call in layer_calls(graph, setting.batch) if len(call.axes) == 2]
    table = LatencyTable(setting, torch.device("cpu"))
    table.measure((call, wanted_widths(call)) for call in calls)
    first = whole = 0.0
    for call in calls:
        inputs, outputs = call.dense
        for width in range(BLOCK, outputs - BLOCK + 1, BLOCK):
            if {width, width + 1, width + BLOCK} <= set(fine_widths(call.axes[1])):
                low, more, high = (table.time(call, (inputs, w)) for w in (width, width + 1, width + BLOCK))
                first, whole = first + more - low, whole + high - low
    return first / whole


def line(row: Row) -> str:
    """Return a row of the table."""
    cells = (
        row.network,
        row.budget.removeprefix("latency="),
        f"{row.dense.median_ms:.2f}",
        f"{row.target_ms:.2f}",
        f"{row.cut.median_ms:.2f} ({row.cut.low_ms:.2f} to {row.cut.high_ms:.2f})",
        f"{row.reached:.1%}" + ("" if row.hit else " **missed**"),
        f"{row.macs:.1%}",
        f"{row.by_macs.median_ms:.2f} ({row.by_macs.low_ms:.2f} to {row.by_macs.high_ms:.2f})",
        f"{row.gain:.1%}",
    )
    return f"| {' | '.join(cells)} |"


def page(found: Sequence[Row], setting: LatencySetting, steps: Mapping[str, float]) -> str:
    """Return the page, given the stairs of each network."""
    where = machine()
    lines = [
        "# Latency budgets",
        "",
        "Written by `python -m benchmarks.latency_budget`. Torchvision's networks with random weights at 224, uniform",
        f"allocation, {setting.describe(torch.device('cpu'))}; {where}. Medians of {REPEATS} passes with",
        "95 % intervals; dense, cut and the cut of equal MACs took turns, after and apart from the measurements that",
        "planning makes. Shares of the target and gains are medians over turns of what one took beside the other: this",
        "machine changes its speed now and then. The cut of equal MACs is",
        '`cutback.plan(graph, budget="macs=...")`, which has no more MACs and at most 1 % of the dense MACs fewer.',
        "Both cuts are proven.",
        "",
        "| network | budget | dense, ms | target, ms | measured, ms | of it | MACs | equal MACs, ms | faster by |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
        *map(line, found),
        "",
        *verdicts(found, steps),
    ]
    return "\n".join(lines) + "\n"


def verdicts(found: Sequence[Row], steps: Mapping[str, float]) -> list[str]:
    """Say for each network how many targets were hit, and what planning by latency was worth."""
    lines = []
    for title, own in by_network(found).items():
        hits, gains = sum(row.hit for row in own), sorted(row.gain for row in own)
        lines.append(
            f"- {title}: {hits} of {len(own)} targets hit within {LARGEST_MISS:.0%}; faster than equal MACs by "
            f"{median(gains):.1%} in the middle, {gains[0]:.1%} to {gains[-1]:.1%}."
        )
    shares = " and ".join(f"{share:.0%} in {title}" for title, share in steps.items())
    lines.append(
        f"- What this machine does: of the time that {BLOCK} more output channels of a convolution take, the first one "
        f"takes {shares} ({1 / BLOCK:.0%} where time follows MACs). A plan by MACs leaves part of such a block unused "
        "in each layer, which weighs the less the wider layers are."
    )
    if not gained(found):
        lines.append(f"- So in neither network is planning by latency {LEAST_GAIN:.0%} faster in the middle.")
    return lines


def by_network(found: Sequence[Row]) -> dict[str, list[Row]]:
    """Return the rows of each network."""
    return {title: [row for row in found if row.network == title] for title in dict.fromkeys(r.network for r in found)}


def gained(found: Sequence[Row]) -> bool:
    """Whether in some network the middle one of the targets ends so much faster than at equal MACs."""
    return any(median(row.gain for row in own) >= LEAST_GAIN for own in by_network(found).values())


def main() -> int:
    """Run, record, and say whether enough targets were hit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads within an operation")
    parser.add_argument("--milliseconds", action="store_true", help="targets in ms, where speed does not drift")
    parser.add_argument("--targets", type=int, default=len(SHARES), help="so many targets a network, for a quick look")
    parser.add_argument("--page", type=Path, default=PAGE, help="file to write")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        shares = SHARES[:: len(SHARES) // arguments.targets]
        setting = LatencySetting(threads=arguments.threads, cache=cache)
        milliseconds = arguments.milliseconds
        found = [row for title in NETWORKS for row in rows(title, shares, setting, milliseconds=milliseconds)]
        text = page(found, setting, {title: stairs(title, setting) for title in NETWORKS})
    arguments.page.write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    return 0 if all(sum(r.hit for r in own) >= FEWEST_HITS * len(own) for own in by_network(found).values()) else 1


if __name__ == "__main__":
    sys.exit(main())
