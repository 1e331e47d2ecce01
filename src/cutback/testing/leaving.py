"""The promise that nothing is left behind, however a method is left."""

import torch

from cutback.testing.recorded import Recorded
from cutback.testing.require import require
from cutback.testing.residue import differences, traces_in
from cutback.testing.training import Training


def check_no_residue(run: Recorded) -> None:
    """Nothing is left in model, optimiser and process: at the end, on leaving early, and after exceptions."""
    left = differences(run.before, run.after)
    require(not left, f"when it had finished: {left}")
    for place, broken in (("half way", None), ("in forward", "forward"), ("before the step", "step")):
        training = Training(run.name, run.case)
        before = traces_in(training.model, training.optimizer)
        try:
            with training.method:
                while training.number < run.case.steps // 2 and not training.method.finished:
                    training.step(training.method)
                if broken:
                    _break_off(training, broken)
        except _Stopped:
            pass
        training.optimizer.zero_grad()
        left = differences(before, traces_in(training.model, training.optimizer))
        require(not left, f"left {place}: {left}")


class _Stopped(Exception):
    """What breaks a loop off."""


def _break_off(training: Training, where: str) -> None:
    """Raise in the midst of a step."""
    inputs, labels = training.case.batch(700)
    module = next(child for child in training.model.modules() if not list(child.children()))

    def fail(*_: object) -> None:
        raise _Stopped

    if where == "forward":
        handle = module.register_forward_hook(fail)
        try:
            training.wrapped(inputs)
        finally:
            handle.remove()
    loss = torch.nn.functional.cross_entropy(training.wrapped(inputs), labels)
    (loss + training.method.penalty()).backward()
    training.method.after_backward()
    raise _Stopped
