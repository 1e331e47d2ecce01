"""The promises of a method's interface, each as a check that raises ``ContractBroken`` where it is not kept."""

import copy
import dataclasses
import inspect
import io
import json
import re
from collections.abc import Callable, Mapping
from functools import reduce
from importlib import resources
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from cutback import measure
from cutback.api import apply, plan, trace
from cutback.errors import (
    ArchitectureMismatch,
    BudgetUnreachable,
    ContractBroken,
    CutbackError,
    InvalidBudget,
    UnknownName,
    UserMistake,
)
from cutback.graph.architecture import hash_of
from cutback.methods import describe, make_method, methods
from cutback.methods.about import BudgetKind, Need
from cutback.planning.cost import CostModel
from cutback.planning.plan import Plan
from cutback.surgery.verify import prove
from cutback.testing.case import MethodCase
from cutback.testing.residue import differences, same, traces_in
from cutback.testing.training import Checkpoint, Training

SECTIONS = ("Paper", "Steps", "Defaults", "Deviations", "How to run", "Numbers obtained")
"""What the ``README.md`` of a method's folder has as second-level headings."""


def require(kept: object, broken: str) -> None:
    """Raise where a promise is not kept.

    Raises:
        ContractBroken: ``kept`` is false.
    """
    if not kept:
        raise ContractBroken(broken)


class Recorded:
    """One whole run of a method on its case, watched.

    Args:
        name: the method's.
        case: what it is tried on.

    Attributes:
        before: what there was in model, optimiser and process before the method was attached.
        after: what there was when it had gone.
        checkpoints: one at the end of each step, by its number; 0 is right after attaching.
        cuts: the plans it cut by.
        figures: MACs of the model before its first cut and after each one.
        aliased: whether what ``state_dict`` returned changed as the method went on.
        training: the loop at its end.
    """

    def __init__(self, name: str, case: MethodCase) -> None:
        self.name, self.case = name, case
        self.training = Training(name, case)
        self.checkpoints: dict[int, Checkpoint] = {}
        self.cuts: list[Plan] = []
        self.figures = [self.cost()]
        states: list[tuple[Mapping[str, Any], Mapping[str, Any]]] = []
        self._watch_cuts()
        self.before = traces_in(self.training.model, self.training.optimizer)

        def noted(training: Training) -> None:
            state = training.method.state_dict()
            states.append((state, copy.deepcopy(state)))
            self.checkpoints[training.number] = training.checkpoint()

        self.training.run(case.steps, noted)
        self.after = traces_in(self.training.model, self.training.optimizer)
        self.aliased = not all(same(state, kept) for state, kept in states)

    def cost(self) -> dict[str, int]:
        """Return MACs and parameters of the network as it is."""
        inputs = self.case.batch(0)[0][:1]
        return {"macs": measure.macs(self.training.model, inputs), "params": measure.params(self.training.model)}

    def _watch_cuts(self) -> None:
        """Note each cut, and see that it does what its plan says, proven."""
        method, cut = self.training.method, self.training.method.cut

        def watched(made: Plan, *, prove: bool = True) -> None:
            require(prove, "it cuts without the proof; leave prove as it is")
            expected = apply(dataclasses.replace(method.graph, wrappers=()), made, prove=False).state_dict()
            cut(made)
            require(same(dict(self.training.model.state_dict()), dict(expected)), "a cut left other weights than kept")
            self.cuts.append(made)
            self.figures.append(self.cost())

        method.cut = watched  # type: ignore[method-assign]


def check_metadata(run: Recorded) -> None:
    """Paper, summary, settings and README are there and can be written as JSON."""
    found, entry = describe(run.name), methods.get(run.name)
    about = found.about
    require(about.title and about.authors and about.where, "its About lacks title, authors or where")
    require(1980 < about.year < 2100, f"its About says year {about.year}")
    require(about.budget in get_args(BudgetKind), f"its About has no such budget kind: {about.budget!r}")
    known = set(get_args(Need)) & set(inspect.signature(entry).parameters)
    require(set(about.needs) <= known, f"its About needs something unknown: {about.needs}")
    require(re.fullmatch(r"[A-Z].{10,100}\.", found.summary), f"its docstring begins with {found.summary!r}")
    kinds = {type(setting.default) for setting in found.settings}
    require(kinds <= {bool, int, float, str, type(None)}, f"settings have defaults of types {kinds}")
    written = {setting.name: setting.default for setting in found.settings}
    require(set(run.case.settings) <= set(written), f"the case sets what is no setting: {set(run.case.settings)}")
    require(json.loads(json.dumps(written)) == written, "settings cannot be written as JSON")
    folder = resources.files(entry.__module__.rpartition(".")[0])
    page = folder.joinpath("README.md")
    require(page.is_file(), f"there is no README.md beside {entry.__module__}")
    titles = re.findall(r"^## (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    missing = [title for title in SECTIONS if title not in titles]
    require(not missing, f"its README.md lacks the sections {missing}")


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
        _require_tree(checkpoint.method, f"state_dict after step {number}")
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


def check_proof(run: Recorded) -> None:
    """Its plan leads from the dense network to the model as it is, and the model can be traced, proven and cut on."""
    about, final = methods.get(run.name).about, run.training.method.plan()
    require(about.cuts == (final is not None), f"its About says cuts={about.cuts}, its plan is {final and 'one'}")
    dense = run.case.build()
    if final is None:
        require(hash_of(run.training.model) == hash_of(dense), "the model was cut, but there is no plan")
        return
    composed = reduce(Plan.then, run.cuts) if run.cuts else None
    require(_json(composed) == _json(final), "its plan is not that of the cuts it made through self.cut")
    require(final.architecture == hash_of(dense), "its plan belongs to another network than the dense one")
    require(final.result == hash_of(run.training.model), "its plan leads to another network than the model at hand")
    graph = trace(run.training.model, run.case.batch(0)[0])
    names = [group.name for group in run.training.method.graph.groups]
    require(names == [group.name for group in graph.groups], "its graph is not that of the model as it is")
    require(prove(graph, plan(graph, budget="channels=60%")).error <= 1e-5, "the final model cannot be proven")


def check_budget(run: Recorded) -> None:
    """The budget is met as its ``About`` declares."""
    about = methods.get(run.name).about
    if about.budget in ("finds_width", "none"):
        require(run.case.budget is None, f"its About says budget={about.budget!r}, but its case has a budget")
        _require_refusal(run, "a budget although it takes none", (UserMistake,), budget="macs=50%")
        return
    training = run.training
    dense = trace(run.case.build(), run.case.batch(0)[0])
    for budget in training.method.budgets:
        require(budget.quantity in ("macs", "params"), "check budgets on macs or params: they are measured here")
        whole, now = run.figures[0][budget.quantity], run.cost()[budget.quantity]
        limit = budget.limit(whole)
        require(now <= limit, f"{budget} allows {limit}, the model has {now}")
        if about.budget == "stops_below":
            require(run.figures[-2][budget.quantity] > limit, f"{budget} was met before the last cut")
        elif limit - now > whole / 100 and len(training.method.budgets) == 1:
            final = training.method.plan()
            require(final is not None, "there is no plan")
            wider = _one_unit_more(CostModel(dense), budget.quantity, final)
            fits = [group for group, cost in wider.items() if cost <= limit]
            require(not fits, f"{budget} allows {limit}, the model has {now}, and one unit more of {fits} would fit")


def check_misuse(run: Recorded) -> None:
    """Each mistake is an error of cutback's own, and leaves the model as it was."""
    about = methods.get(run.name).about
    training = Training(run.name, run.case)
    with training.method:
        _require_error("entering twice", (UserMistake,), training.method.__enter__)
    _require_error("a model for a graph", (UserMistake,), lambda: make_method(run.name, training.model))  # type: ignore[arg-type]
    _require_error(
        "an unknown setting", (UnknownName,), lambda: make_method(run.name, training.method.graph, settings={"x": "1"})
    )
    for need in about.needs:
        if inspect.signature(methods.get(run.name)).parameters[need].default is inspect.Parameter.empty:
            _require_refusal(run, f"{need}=None", (UserMistake,), **{need: None})
    final = next((c for c in run.checkpoints.values() if c.plan is not None), None)
    if final is not None:
        fresh = Training(run.name, run.case)
        mismatch = (ArchitectureMismatch,)
        _require_error("the state of another model", mismatch, lambda: fresh.method.load_state_dict(final.method))
    if run.case.budget is not None:
        for written, kinds in (("macs=150%", (InvalidBudget,)), ("macs=0.001%", (BudgetUnreachable,))):
            _require_refusal(run, f"the budget {written}", kinds, budget=written)


CHECKS: dict[str, Callable[[Recorded], None]] = {
    "metadata": check_metadata,
    "finishes": check_finishes,
    "determinism": check_determinism,
    "resume": check_resume,
    "no residue": check_no_residue,
    "proof": check_proof,
    "budget": check_budget,
    "misuse": check_misuse,
}
"""All checks by name; each takes one recorded run."""


def check_method(name: str, case: MethodCase) -> None:
    """Check all promises of a registered method but those about several processes.

    Args:
        name: the method's.
        case: what it is tried on.

    Raises:
        ContractBroken: a promise is not kept; says which.
        CutbackError: the method failed on its case.
    """
    run = Recorded(name, case)
    for promise, check in CHECKS.items():
        try:
            check(run)
        except ContractBroken as error:
            raise ContractBroken(f"method {name!r}, {promise}: {error}") from error


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


def _stops(run: Recorded) -> list[int]:
    """Return after which steps to stop: half way, and after the first cut if training goes on from there."""
    cut = next((number for number, c in run.checkpoints.items() if c.plan is not None), 0)
    return sorted({run.case.steps // 2, min(cut, run.case.steps - 1)})


def _require_same_end(run: Recorded, again: Training, how: str) -> None:
    """Compare the end of another training with that of the run."""
    pairs = {
        "model": (dict(run.training.model.state_dict()), dict(again.model.state_dict())),
        "optimiser": (run.training.optimizer.state_dict(), again.optimizer.state_dict()),
        "plan": (_json(run.training.method.plan()), _json(again.method.plan())),
        "state": (run.training.method.state_dict(), again.method.state_dict()),
        "finished": (run.training.method.finished, again.method.finished),
    }
    for what, (first, second) in pairs.items():
        require(same(first, second), f"{how}, the {what} at the end is another")


def _json(made: Plan | None) -> str | None:
    return None if made is None else made.to_json()


def _require_tree(value: object, where: str) -> None:
    """Refuse a state of other things than dicts with text keys, lists, tensors, numbers, text and ``None``."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            require(isinstance(key, str), f"{where} has the key {key!r}; keys are text")
            _require_tree(item, f"{where}[{key!r}]")
    elif isinstance(value, list):
        for number, item in enumerate(value):
            _require_tree(item, f"{where}[{number}]")
    else:
        plain = type(value) in (bool, int, float, str, type(None)) or isinstance(value, Tensor)
        require(plain, f"{where} is a {type(value).__name__}; a state holds dicts, lists, tensors, numbers and text")


def _one_unit_more(cost: CostModel, quantity: str, final: Plan) -> dict[str, int]:
    """Return what the network would cost with one more unit of each group that has lost some."""
    kept = np.array([len(group.kept) for group in final.groups], dtype=np.int64)
    found: dict[str, int] = {}
    for number, group in enumerate(final.groups):
        if len(group.kept) < group.total:
            wider = kept.copy()
            wider[number] += 1
            found[group.name] = cost.of(quantity, wider)
    return found


def _require_error(mistake: str, kinds: tuple[type[CutbackError], ...], act: Callable[[], object]) -> None:
    """See that something is refused with an error of a kind."""
    names = " or ".join(kind.__name__ for kind in kinds)
    try:
        act()
    except kinds as error:
        require(len(str(error)) > 20, f"{mistake} is refused with the message {str(error)!r}; say what to do")
        return
    except Exception as error:
        raise ContractBroken(f"{mistake} raises {type(error).__name__}, not {names}: {error}") from error
    raise ContractBroken(f"{mistake} is not refused; raise {names}")


def _require_refusal(run: Recorded, mistake: str, kinds: tuple[type[CutbackError], ...], **given: object) -> None:
    """See that a method made with something else is refused, at the latest when it is attached, and changes nothing."""
    training = Training(run.name, run.case)
    before = traces_in(training.model, training.optimizer), copy.deepcopy(dict(training.model.state_dict()))

    def attach() -> None:
        with run.case.make(run.name, training.method.graph, training.optimizer, **given):
            pass

    _require_error(mistake, kinds, attach)
    left = differences(before[0], traces_in(training.model, training.optimizer))
    require(not left, f"{mistake} is refused, but leaves: {left}")
    require(same(before[1], dict(training.model.state_dict())), f"{mistake} is refused, but has changed the model")
