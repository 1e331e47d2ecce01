"""Thousands of random networks, cut and proven: ``python -m benchmarks.zoo.random_suite``, part of ``make zoo``.

Networks are drawn by hypothesis from the blocks of ``tests/graph/blocks``, a shard of them from each seed, so that
every run judges the same ones. Each is cut to a drawn share, proven, wrongly cut on purpose (which the proof must
notice), and run. The record says what became of them, and gives all that is needed to build again those that were not
proven.
"""

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings

from benchmarks.zoo.records import conditions
from benchmarks.zoo.workers import Failure, run
from tests.graph.blocks import BLOCKS
from tests.graph.judging import PROVEN, SILENT, Verdict, judge
from tests.graph.random_networks import Spec, specs

ROOT = Path(__file__).resolve().parent.parent.parent
NETWORKS, SHARD = 5000, 50
MOST_REFUSED = 0.02


@dataclass
class Found:
    """What became of the networks of some shards.

    Attributes:
        outcomes: how many networks met each outcome.
        operators: how many of those that were not proven name each operator.
        blocks: how many of those that were not proven hold each block.
        unproven: these networks and the reasons.
        failed: shards that did not end, and why.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    operators: Counter[str] = field(default_factory=Counter)
    blocks: Counter[str] = field(default_factory=Counter)
    unproven: list[tuple[str, str]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def note(self, spec: Spec, verdict: Verdict) -> None:
        """Count one network."""
        self.outcomes[verdict.outcome] += 1
        if verdict.outcome != PROVEN:
            self.operators.update(verdict.operators or ("(none named)",))
            self.blocks.update(set(spec.names))
            self.unproven.append((repr(spec), f"{verdict.outcome}: {verdict.reason[:500]}"))

    def add(self, other: "Found") -> None:
        """Take in another shard."""
        for name in ("outcomes", "operators", "blocks"):
            getattr(self, name).update(getattr(other, name))
        self.unproven += other.unproven

    @property
    def judged(self) -> int:
        """How many networks were judged."""
        return self.outcomes.total()

    @property
    def good(self) -> bool:
        """Whether nothing is silently wrong, few enough are refused and every shard ended."""
        refused = self.judged - self.outcomes[PROVEN]
        return not self.outcomes[SILENT] and refused <= MOST_REFUSED * self.judged and not self.failed


def shard(number: int) -> Found:
    """Judge the networks of one shard, the same ones for the same number."""
    judged: dict[Spec, Verdict] = {}

    @seed(number)
    @settings(
        max_examples=SHARD,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(specs)
    def one(spec: Spec) -> None:
        if spec not in judged:
            judged[spec] = judge(spec, plant=True)

    one()
    found = Found()
    for spec, verdict in judged.items():
        found.note(spec, verdict)
    return found


def record(found: Found, seconds: float) -> dict[str, object]:
    """Return what is written down."""
    return {
        "conditions": conditions(),
        "judged": found.judged,
        "outcomes": dict(found.outcomes.most_common()),
        "operators": dict(found.operators.most_common()),
        "blocks": dict(found.blocks.most_common()),
        "blocks drawn from": len(BLOCKS),
        "shards that did not end": found.failed,
        "unproven": [{"network": network, "why": why} for network, why in found.unproven],
        "seconds": round(seconds),
    }


def judge_all(shards: Iterable[int], *, jobs: int, seconds: float) -> Found:
    """Judge shards in worker processes."""
    found, shards = Found(), list(shards)
    for done, (number, answer) in enumerate(run(shard, shards, jobs=jobs, seconds=seconds, gigabytes=6), start=1):
        if isinstance(answer, Failure):
            found.failed.append(f"shard {number}: {answer.reason}")
        else:
            found.add(answer)
        sys.stdout.write(f"[{done}/{len(shards)}] {dict(found.outcomes)} {found.failed[-1:] or ''}\n")
        sys.stdout.flush()
    return found


def main(words: list[str]) -> int:
    """Run what the command line asks for; the exit code is 1 where anything is silently wrong or too much refused."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo.random_suite", description="Cut random networks.")
    parser.add_argument("--networks", type=int, default=NETWORKS, help="how many to judge, at least")
    parser.add_argument("--jobs", type=int, default=2, help="shards at once")
    parser.add_argument("--limit-seconds", type=float, default=1800, help="for each shard")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "zoo_random.json", help="the record")
    options = parser.parse_args(words)
    started = time.perf_counter()
    # A few networks are drawn twice: the extra shards make up for them.
    shards = range(-(-options.networks * 21 // (20 * SHARD)))
    found = judge_all(shards, jobs=options.jobs, seconds=options.limit_seconds)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    staged = options.out.with_suffix(".tmp")
    staged.write_text(json.dumps(record(found, time.perf_counter() - started), indent=1) + "\n", encoding="utf-8")
    staged.replace(options.out)
    sys.stdout.write(f"{found.judged} random networks: {dict(found.outcomes)}; {options.out}\n")
    return 0 if found.good else 1


if __name__ == "__main__":
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    sys.exit(main(sys.argv[1:]))
