"""Runs that are killed and resumed end with the same bytes; what cannot be resumed is said clearly."""

import json
import random
from pathlib import Path

import pytest

from tests.cli import killing
from tests.cli.helpers import write
from tests.train import iterative

ITERATIVE = (
    *("prune", "net.py:make", "--budget", "macs=60%", "--train", "2", "--batch-size", "64", "--checkpoint-steps", "3"),
    *("--method", iterative.NAME, "--method-epochs", "2", "--recover", "bn,distill:1,finetune:1", "--ema", "0.9"),
)
PARTS = {"baseline": 0, "prune": 1, "recovery": 3}


@pytest.fixture
def folder(tmp_path) -> Path:
    write(tmp_path / "net.py", killing.NETWORK)
    return tmp_path


def stage_of(run: Path) -> tuple[int, bool]:
    """Return the part at which a run is by its newest checkpoint, and whether it is within a training."""
    newest = max((run / "checkpoints").iterdir())
    state = json.loads((newest / "tree.json").read_text())["tree"]["dict"]
    found = dict(state)
    return found["stage"], found["training"] is not None


@pytest.mark.slow
def test_runs_killed_in_every_part_end_with_the_same_bytes(folder) -> None:
    chance = random.Random(0)
    assert killing.finished([*ITERATIVE, "--out", "whole"], folder) == 0, (folder / "out.txt").read_text()
    expected = killing.weights(folder / "whole")
    for part, stage in PARTS.items():
        run, wait = folder / part, chance.uniform(0, 0.3)
        seen = []

        def reached(run=run, stage=stage, wait=wait, seen=seen) -> bool:
            if not seen and (run / "checkpoints").is_dir() and any((run / "checkpoints").iterdir()):
                try:
                    if stage_of(run)[0] >= stage:
                        seen.append(killing.after(wait))
                except (OSError, IndexError, ValueError):  # it is being written
                    return False
            return bool(seen) and seen[0]()

        assert killing.killed([*ITERATIVE, "--out", part], folder, reached)
        assert not (run / "model.safetensors").exists()
        assert stage_of(run)[0] >= stage
        assert killing.finished(["resume", part], folder) == 0, (folder / "out.txt").read_text()
        assert killing.weights(run) == expected
        assert killing.events(run) == killing.events(folder / "whole")
        assert (run / "plan.json").read_bytes() == (folder / "whole" / "plan.json").read_bytes()
