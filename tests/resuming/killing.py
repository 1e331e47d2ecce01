"""Runs of the command that are killed at random instants and resumed: do they end with the same bytes?

One run is left alone. Others are killed by SIGKILL in each of training, pruning and recovery, at instants drawn at
random over the length of that part, and gone on with by ``cutback resume``.
"""

import json
import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.resuming.processes import SomeTimeAfter, events, finished, killed, part_of, weights

NETWORK = """
from torch import nn

def make():
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3, stride=2), nn.BatchNorm2d(12),
        nn.ReLU(), nn.Dropout(0.1), nn.Flatten(), nn.Linear(12 * 9, 10)
    )
"""
TWELVE = (
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


def kill_each(folder: Path, command: Sequence[str], each: int, seed: int, *, first: str = "") -> list[Killed]:
    """Run a command once undisturbed, then kill and resume it in each of its parts.

    Args:
        folder: where to work; holds the network's file.
        command: what follows ``cutback``, without ``--out``.
        each: how often in each part.
        seed: of the instants.
        first: module whose ``register`` is called in each process first.
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
    return found
