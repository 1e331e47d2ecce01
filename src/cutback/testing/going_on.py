"""Promises about runs: they end, end alike each time, and end alike after they were stopped."""

import dataclasses
import io

import torch

from cutback.methods import methods
from cutback.planning.plan import Plan
from cutback.testing.recorded import Recorded
from cutback.testing.require import require, require_tree
from cutback.testing.residue import same
from cutback.testing.training import Training


def check_finishes(run: Recorded) -> None:
    """It finishes within the case's steps, by itself; one that needs no training has finished once attached."""
    require(run.training.method.finished, f"it has not finished after {run.case.steps} steps")
    about = methods.get(run.name).about
    if not about.trained:
        require(run.checkpoints[0].finished, "its About says trained=False, but it has not finished once attached")
    for number, checkpoint in run.checkpoints.items():
        later = [other.finished for after, other in run.checkpoints.items() if after > number]
        require(not checkpoint.finished or all(later), f"it had finished after step {number} and then no longer")


def check_determinism(run: Recorded) -> None:
    """The same run again ends with the same bits."""
    again = Training(run.name, run.case)
    again.run(run.case.steps)
    _require_same_end(run, again, "run again")


def check_resume(run: Recorded) -> None:
    """A run that was stopped goes on from its state and ends with the same bits, wherever it was stopped."""
    require(not run.aliased, "what state_dict returned changed later; return copies")
    for number, checkpoint in run.checkpoints.items():
        require_tree(checkpoint.method, f"state_dict after step {number}")
    for number in _stops(run):
        start = run.checkpoints[number]
        state = io.BytesIO()
        torch.save(start.method, state)
        state.seek(0)
        start = dataclasses.replace(start, method=torch.load(state, weights_only=True))
        again = Training(run.name, run.case, start)
        require(again.method.finished == start.finished, f"finished is another after step {number} was loaded")
        again.run(run.case.steps)
        _require_same_end(run, again, f"resumed after step {number}")


def _stops(run: Recorded) -> list[int]:
    """Return after which steps to stop: half way, and after the first cut if training goes on from there."""
    cut = next((number for number, c in run.checkpoints.items() if c.plan is not None), 0)
    return sorted({run.case.steps // 2, min(cut, run.case.steps - 1)})


def _require_same_end(run: Recorded, again: Training, how: str) -> None:
    """Compare the end of another training with that of the run."""
    pairs = {
        "model": (dict(run.training.model.state_dict()), dict(again.model.state_dict())),
        "optimiser": (run.training.optimizer.state_dict(), again.optimizer.state_dict()),
        "plan": (written(run.training.method.plan()), written(again.method.plan())),
        "state": (run.training.method.state_dict(), again.method.state_dict()),
        "finished": (run.training.method.finished, again.method.finished),
    }
    for what, (first, second) in pairs.items():
        require(same(first, second), f"{how}, the {what} at the end is another")


def written(made: Plan | None) -> str | None:
    """Return a plan as text; ``None`` for none."""
    return None if made is None else made.to_json()
