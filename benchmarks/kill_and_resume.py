"""Runs of the command that are killed at random instants and resumed: do they end with the same bytes?

Run ``python -m benchmarks.kill_and_resume``; about two minutes on one thread. A small network with batch norms and
dropout is trained on the digits, pruned filter by filter by ``l1`` while it trains, and recovered by a chain. One run
is left alone. Twelve others are killed by SIGKILL, four in each of training, pruning and recovery, each at an instant
drawn at random over the length of that part, and resumed by ``cutback resume``. The exit code is 1 unless all twelve
end with the weights and the log of the first, bit for bit. The result goes to ``benchmarks/kill_and_resume.md``.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.resuming.processes import SomeTimeAfter, events, finished, killed, part_of, weights
from benchmarks.zoo.records import machine

RESULT = Path(__file__).resolve().parent / "kill_and_resume.md"
NETWORK = """
from torch import nn

def make():
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3, stride=2), nn.BatchNorm2d(12),
        nn.ReLU(), nn.Dropout(0.1), nn.Flatten(), nn.Linear(12 * 9, 10)
    )
"""
COMMAND = (
    *("prune", "net.py:make", "--data", "digits", "--budget", "macs=50%", "--train", "3", "--checkpoint-steps", "10"),
    *("--method", "l1", "--set", "schedule=filters", "--method-epochs", "3", "--ema", "0.9"),
    *("--recover", "bn,distill:2,finetune:2"),
)
PARTS = {"training": (0, ("epoch", "baseline")), "pruning": (1, ("cut", None)), "recovery": (2, ("finished", None))}
"""Of each part its number in checkpoints, and the event and training with which the log ends it."""


@dataclass(frozen=True)
class Killed:
    """A run that was killed and resumed.

    Attributes:
        part: in which part it was to be killed.
        seconds: how long after that part had begun.
        found: at which part its newest checkpoint was.
        weights: whether it ended with the same weights.
        log: whether it ended with the same log, times left out.
    """

    part: str
    seconds: float
    found: int
    weights: bool
    log: bool

    @property
    def good(self) -> bool:
        """Whether it ended alike."""
        return self.weights and self.log


def lengths(folder: Path) -> dict[str, float]:
    """Return how long each part of a run took, in seconds, by its log."""
    found, before = {}, None
    logged = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    for part, (_, (event, training)) in PARTS.items():
        ends = [
            entry["time"]
            for entry in logged
            if entry["event"] == event and (training is None or entry.get("training") == training)
        ]
        # The log begins with the first epoch's end, which stands for that of the start.
        found[part] = ends[-1] - (ends[0] if before is None else before)
        before = ends[-1]
    return found


def kill_each(
    folder: Path, command: Sequence[str], each: int, seed: int, *, first: str = "", told: Callable[[Killed], object]
) -> list[Killed]:
    """Run a command once undisturbed, then kill and resume it in each of its parts.

    Args:
        folder: where to work; holds the network's file.
        command: what follows ``cutback``, without ``--out``.
        each: how often in each part.
        seed: of the instants.
        first: module whose ``register`` is called in each process first.
        told: told after each.
    """
    finished([*command, "--out", "whole"], folder, first)
    expected, whole = weights(folder / "whole"), events(folder / "whole")
    took, chance, found = lengths(folder / "whole"), random.Random(seed), []
    for part, (number, _) in PARTS.items():
        for turn in range(each):
            run, alive, seconds = folder / f"{part}{turn}", False, 0.0
            while not alive:  # a run that has ended by then is no test
                shutil.rmtree(run, ignore_errors=True)
                seconds = chance.uniform(0, took[part])
                alive = killed([*command, "--out", run.name], folder, SomeTimeAfter(run, number, seconds), first)
            at = part_of(run)
            finished(["resume", run.name], folder, first)
            found.append(Killed(part, seconds, at, weights(run) == expected, events(run) == whole))
            told(found[-1])
    return found


def page(found: Sequence[Killed], seed: int) -> str:
    """Return the page with the results."""
    good = sum(run.good for run in found)
    lines = [
        "# Killed and resumed",
        "",
        f"Written by `python -m benchmarks.kill_and_resume --seed {seed}` on {machine()}, one thread.",
        "",
        f"`cutback {' '.join(COMMAND)}`, on a network of two convolutions with batch norms and dropout, was killed by",
        f"SIGKILL and resumed {len(found)} times; {good} ended with the same bytes as a run that was left alone.",
        "",
        "| killed in | after its start, s | newest checkpoint in part | same weights | same log |",
        "|---|---:|---:|---|---|",
        *(
            f"| {run.part} | {run.seconds:.2f} | {run.found} | "
            f"{'yes' if run.weights else 'NO'} | {'yes' if run.log else 'NO'} |"
            for run in found
        ),
    ]
    return "\n".join(lines) + "\n"


def _tell(run: Killed) -> None:
    sys.stderr.write(f"{run}\n")


def main() -> int:
    """Run, record, and say whether all ended alike."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="seed of the instants")
    parser.add_argument("--each", type=int, default=4, help="how often in each part")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "net.py").write_text(NETWORK, encoding="utf-8")
        found = kill_each(
            Path(folder), COMMAND, options.each, options.seed, told=lambda run: sys.stderr.write(f"{run}\n")
        )
    RESULT.write_text(page(found, options.seed), encoding="utf-8")
    sys.stdout.write(page(found, options.seed))
    return 0 if all(run.good for run in found) else 1


if __name__ == "__main__":
    sys.exit(main())
