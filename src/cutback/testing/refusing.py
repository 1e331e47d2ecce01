"""Promises about mistakes: each is an error of cutback's own and changes nothing."""

import copy
import inspect

from cutback.errors import (
    ArchitectureMismatch,
    BudgetUnreachable,
    CutbackError,
    InvalidBudget,
    UnknownName,
    UserMistake,
)
from cutback.methods import make_method, methods
from cutback.testing.recorded import Recorded
from cutback.testing.require import require, require_error
from cutback.testing.residue import differences, same, traces_in
from cutback.testing.training import Training


def check_misuse(run: Recorded) -> None:
    """Each mistake is an error of cutback's own, and leaves the model as it was."""
    about = methods.get(run.name).about
    training = Training(run.name, run.case)
    with training.method:
        require_error("entering twice", (UserMistake,), training.method.__enter__)
    require_error("a model for a graph", (UserMistake,), lambda: make_method(run.name, training.model))  # type: ignore[arg-type]
    require_error(
        "an unknown setting", (UnknownName,), lambda: make_method(run.name, training.method.graph, settings={"x": "1"})
    )
    for need in about.needs:
        if inspect.signature(methods.get(run.name)).parameters[need].default is inspect.Parameter.empty:
            require_refusal(run, f"{need}=None", (UserMistake,), **{need: None})
    final = next((c for c in run.checkpoints.values() if c.plan is not None), None)
    if final is not None:
        fresh = Training(run.name, run.case)
        mismatch = (ArchitectureMismatch,)
        require_error("the state of another model", mismatch, lambda: fresh.method.load_state_dict(final.method))
    if run.case.budget is not None:
        for written, kinds in (("macs=150%", (InvalidBudget,)), ("macs=0.001%", (BudgetUnreachable,))):
            require_refusal(run, f"the budget {written}", kinds, budget=written)


def require_refusal(run: Recorded, mistake: str, kinds: tuple[type[CutbackError], ...], **given: object) -> None:
    """See that a method made with something else is refused, at the latest when it is attached, and changes nothing."""
    training = Training(run.name, run.case)
    before = traces_in(training.model, training.optimizer), copy.deepcopy(dict(training.model.state_dict()))

    def attach() -> None:
        with run.case.make(run.name, training.method.graph, training.optimizer, **given):
            pass

    require_error(mistake, kinds, attach)
    left = differences(before[0], traces_in(training.model, training.optimizer))
    require(not left, f"{mistake} is refused, but leaves: {left}")
    require(same(before[1], dict(training.model.state_dict())), f"{mistake} is refused, but has changed the model")
