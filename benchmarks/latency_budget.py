"""Latency budgets in milliseconds: are they hit, and are such plans faster than plans of equal MACs?

Run ``python -m benchmarks.latency_budget`` on an idle machine. Each network gets ten targets, at batch 1 on the CPU. A
plan is made and tried until it was measured to meet its target; then it is cut and proven, and timed anew, in turns
with the dense network and with a plan for no more MACs than it has. Results go to ``benchmarks/latency_budget.md``; the
exit code is 1 where a target is missed too often.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

import cutback
from benchmarks.zoo import libraries
from benchmarks.zoo.records import machine
from cutback.measure import Latency, LatencySetting, compare_latency

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "benchmarks" / "latency_budget.md"
NETWORKS = {"ResNet-18": "resnet18", "MobileNetV2": "mobilenet_v2"}
SHARES = (0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.5, 0.4, 0.3)
REPEATS = 50
LARGEST_MISS, FEWEST_HITS, LEAST_GAIN = 0.05, 0.9, 0.1


@dataclass(frozen=True)
class Row:
    """One target.

    Attributes:
        network: what was pruned.
        target_ms: the budget, in milliseconds.
        dense: the network before.
        cut: the proven cut by latency.
        by_macs: the cut of no more MACs, planned without latency.
        macs: MACs of the cut, as a share of the dense network's.
    """

    network: str
    target_ms: float
    dense: Latency
    cut: Latency
    by_macs: Latency
    macs: float

    @property
    def reached(self) -> float:
        """What the cut took, as a share of the target."""
        return self.cut.median_ms / self.target_ms

    @property
    def hit(self) -> bool:
        """Whether that is within 5 %."""
        return abs(self.reached - 1) <= LARGEST_MISS

    @property
    def gain(self) -> float:
        """By what share the cut is faster than that of equal MACs."""
        return 1 - self.cut.median_ms / self.by_macs.median_ms


def network(name: str) -> nn.Module:
    """Build a network with random weights."""
    torch.manual_seed(0)
    return getattr(libraries.torchvision().models, name)().eval()


def rows(title: str, shares: Sequence[float], setting: LatencySetting, *, relative: bool) -> list[Row]:
    """Carry out the targets of one network, in milliseconds or relative to the dense network timed in turns."""
    model, pictures = network(NETWORKS[title]), torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    graph = cutback.trace(model, pictures)
    found = []
    for share in shares:
        dense = compare_latency({"dense": model}, pictures, repeats=REPEATS, threads=setting.threads)["dense"]
        target = round(share * dense.median_ms, 3)
        budget = f"latency={share:.0%}" if relative else f"latency={target}ms"
        plan = cutback.plan(graph, budget=budget, latency=setting)
        by_macs = cutback.plan(graph, budget=f"macs={plan.costs['macs'].after}")
        nets = {"dense": model, "cut": cutback.apply(graph, plan), "by_macs": cutback.apply(graph, by_macs)}
        taken = compare_latency(nets, pictures, repeats=REPEATS, threads=setting.threads)
        target = share * taken["dense"].median_ms if relative else target
        macs = plan.costs["macs"].after / plan.costs["macs"].before
        found.append(Row(title, target, taken["dense"], taken["cut"], taken["by_macs"], macs))
        sys.stderr.write(f"{line(found[-1])}\n")
    return found


def line(row: Row) -> str:
    """Return a row of the table."""
    cells = (
        row.network,
        f"{row.dense.median_ms:.2f}",
        f"{row.target_ms:.2f}",
        f"{row.cut.median_ms:.2f} ({row.cut.low_ms:.2f} to {row.cut.high_ms:.2f})",
        f"{row.reached:.1%}" + ("" if row.hit else " **missed**"),
        f"{row.macs:.1%}",
        f"{row.by_macs.median_ms:.2f} ({row.by_macs.low_ms:.2f} to {row.by_macs.high_ms:.2f})",
        f"{row.gain:.1%}",
    )
    return f"| {' | '.join(cells)} |"


def page(found: Sequence[Row], setting: LatencySetting) -> str:
    """Return the page."""
    where = machine()
    lines = [
        "# Latency budgets",
        "",
        "Written by `python -m benchmarks.latency_budget`. Torchvision's networks with random weights at 224, uniform",
        f"allocation, {setting.describe(torch.device('cpu'))}; {where}. Medians of {REPEATS} passes with",
        "95 % intervals; dense, cut and the cut of equal MACs took turns, after and apart from the measurements that",
        'planning makes. The cut of equal MACs is `cutback.plan(graph, budget="macs=...")`, which has no more MACs and',
        "at most 1 % of the dense MACs fewer. Both cuts are proven.",
        "",
        "| network | dense, ms | target, ms | measured, ms | of the target | MACs | equal MACs, ms | faster by |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
        *map(line, found),
        "",
        *verdicts(found),
    ]
    return "\n".join(lines) + "\n"


def verdicts(found: Sequence[Row]) -> list[str]:
    """Say for each network how many targets were hit, and what planning by latency was worth."""
    lines = []
    for title, own in by_network(found).items():
        hits, gains = sum(row.hit for row in own), sorted(row.gain for row in own)
        middle = gains[len(gains) // 2]
        lines.append(
            f"- {title}: {hits} of {len(own)} targets hit within {LARGEST_MISS:.0%}; faster than equal MACs by "
            f"{middle:.1%} in the middle, {gains[0]:.1%} to {gains[-1]:.1%}."
        )
    if not gained(found):
        lines.append(
            f"- In neither network is planning by latency {LEAST_GAIN:.0%} faster than equal MACs: on this machine a "
            "width costs nearly what its MACs cost, wherever its block of channels ends."
        )
    return lines


def by_network(found: Sequence[Row]) -> dict[str, list[Row]]:
    """Return the rows of each network."""
    return {title: [row for row in found if row.network == title] for title in dict.fromkeys(r.network for r in found)}


def gained(found: Sequence[Row]) -> bool:
    """Whether in some network the middle one of the targets ends so much faster than at equal MACs."""
    gains = [sorted(row.gain for row in own) for own in by_network(found).values()]
    return any(own[len(own) // 2] >= LEAST_GAIN for own in gains)


def main() -> int:
    """Run, record, and say whether enough targets were hit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads within an operation")
    parser.add_argument("--relative", action="store_true", help="targets in per cent, where the machine's speed drifts")
    parser.add_argument("--targets", type=int, default=len(SHARES), help="so many targets a network, for a quick look")
    parser.add_argument("--page", type=Path, default=PAGE, help="file to write")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        shares = SHARES[:: len(SHARES) // arguments.targets]
        setting = LatencySetting(threads=arguments.threads, cache=cache)
        found = [row for title in NETWORKS for row in rows(title, shares, setting, relative=arguments.relative)]
    text = page(found, setting)
    arguments.page.write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    return 0 if all(sum(r.hit for r in own) >= FEWEST_HITS * len(own) for own in by_network(found).values()) else 1


if __name__ == "__main__":
    sys.exit(main())
