"""The sensitivity scan: each group alone loses ever more of its units, and accuracy is measured without training.

H. Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017, section 3.2: of a group's ``C`` units the
``floor(C * (1 - ratio))`` of the highest score stay.
"""

import hashlib
import json
import math
from bisect import bisect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cutback.errors import InvalidBudget, UserMistake
from cutback.graph.clone import state_tensors
from cutback.graph.graph import Graph
from cutback.planning.assemble import plan_for
from cutback.planning.choices import choices_of
from cutback.planning.limits import Limits
from cutback.planning.plan import Plan
from cutback.planning.select import best_of
from cutback.planning.sensitivity import Sensitivity
from cutback.scores.catalogue import Score, score_groups
from cutback.trials.copies import cut_copy
from cutback.trials.found import Found
from cutback.trials.workers import each_in_processes

RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)

Evaluate = Callable[[nn.Module], float]
"""Returns the accuracy of a model, in 0..1."""
Told = Callable[[int, int, str], None]
"""Told how many of how many evaluations are done, and what is going on."""


def sensitivity(
    graph: Graph,
    evaluate: Evaluate,
    *,
    ratios: Sequence[float] = RATIOS,
    score: str | Score | type[Score] = "l1",
    processes: int = 1,
    cache: str | Path | None = None,
    label: str = "",
    told: Told | None = None,
) -> Sensitivity:
    """Measure what each group costs alone: its lowest-scored units removed, evaluated without training (Li 2016).

    The model is left as it is; copies are cut. The result names groups to skip and ratios for each group or stage, and
    is an allocation: ``cutback.plan(graph, allocate=scan, budget=...)``.

    Args:
        graph: from ``trace``.
        evaluate: returns the accuracy in 0..1 of a model in eval mode, on validation data.
        ratios: shares of a group's units that are removed; ``floor(units * (1 - ratio))`` of them stay, at least one,
            and fewer where a balance asks for it. Where it permits none of the ratios, its lowest width is tried.
        score: see ``plan``.
        processes: evaluate in so many processes, of one thread each (on the CPU, where the system can fork).
        cache: folder in which results are kept, so that a scan that was interrupted goes on; ``None`` for nowhere.
        label: says what is evaluated on and how: results are kept by it, by the model's weights and by the recorded
            forward pass, not by what ``evaluate`` does.
        told: called with how many of how many evaluations are done, and with the group.

    Raises:
        UserMistake: ratios outside 0..1, something else than accuracies, or processes that cannot be had.
        CutbackError: see ``plan``.

    Example:
        >>> import torch, cutback
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 2, 3))
        >>> graph = cutback.trace(net, torch.zeros(1, 3, 8, 8))
        >>> scan = cutback.sensitivity(graph, lambda model: model[0].out_channels / 10, ratios=(0.25, 0.5))
        >>> scan.dense, dict(scan.curves["0"])
        (0.8, {0.25: 0.6, 0.5: 0.4})
    """
    if not isinstance(graph, Graph):
        kind = type(graph).__name__
        raise UserMistake(f"sensitivity needs a graph, not {kind}; pass what cutback.trace(model, inputs) returns")
    if not ratios or not all(0 < ratio < 1 for ratio in ratios):
        raise UserMistake(f"ratios={ratios!r} must be shares between 0 and 1 that are removed, such as (0.25, 0.5)")
    if processes < 1:
        raise UserMistake(f"a scan needs at least 1 process, not {processes}")
    trials = [_Trial("", 0.0, None), *_trials(graph, ratios, score)]
    found = Found.opened(cache, graph, label)
    missing = {trial.key: trial for trial in trials if trial.key not in found.accuracies}
    evaluated = _evaluated(graph.model, evaluate, list(missing.values()), processes)
    for number, (trial, accuracy) in enumerate(evaluated, start=1):
        found.add(trial.key, accuracy)
        if told:
            told(number, len(missing), f"{trial.group or 'the whole network'}")
    curves: dict[str, dict[float, float]] = {}
    for trial in trials[1:]:
        curves.setdefault(trial.group, {})[trial.ratio] = found.accuracies[trial.key]
    return Sensitivity(found.accuracies[trials[0].key], curves, _name(score))


@dataclass(frozen=True, eq=False)
class _Trial:
    """One evaluation: a group, the share of its units that goes, and the plan; ``None`` for the whole network."""

    group: str
    ratio: float
    plan: Plan | None
    key: str = field(init=False)

    def __post_init__(self) -> None:
        kept = {
            name: [(dimension, kept.indices) for dimension, kept in dimensions.items()]
            for name, dimensions in (self.plan.slices if self.plan else {}).items()
        }
        object.__setattr__(self, "key", hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:32])


def _trials(graph: Graph, ratios: Sequence[float], score: str | Score | type[Score]) -> Iterator[_Trial]:
    """Yield the trials of each group that can shrink alone."""
    scores = score_groups(graph, score)
    for number, group in enumerate(graph.groups):
        tried = 0
        for ratio in sorted(set(ratios)):
            units = _units(graph, scores, number, max(math.floor(group.units * (1 - Fraction(repr(float(ratio))))), 1))
            if units is None:
                break  # a balance needs more of it, and more still at greater ratios
            tried += 1
            yield _Trial(group.name, ratio, plan_for(graph, units, scores=scores))
        if not tried:  # so that it has a curve: at the lowest width that its balance permits
            narrower = range(1, group.units)
            lowest = 1 + bisect(narrower, 0, key=lambda keep, at=number: _units(graph, scores, at, keep) is not None)
            units = _units(graph, scores, number, lowest) if lowest < group.units else None
            if units is not None:
                removed = 1 - len(units[group.name]) / group.units
                yield _Trial(group.name, removed, plan_for(graph, units, scores=scores))


def _units(
    graph: Graph, scores: Sequence[NDArray[np.float64]], number: int, keep: int
) -> dict[str, tuple[int, ...]] | None:
    """Return which units stay where so many of one group stay at most; ``None`` where its balance needs more."""
    try:
        choices, _ = choices_of(graph, {number: keep}, only_settled=True, share=None, limits=Limits())
    except InvalidBudget:
        return None
    levels = np.zeros(len(choices), dtype=np.int64)
    units = best_of([choice.scored_by(scores) for choice in choices], levels, len(graph.groups))
    return {group.name: stay for group, stay in zip(graph.groups, units, strict=True)}


def _name(score: object) -> str:
    """Return what a score is called in the result."""
    if isinstance(score, str):
        return score
    return score.__name__ if isinstance(score, type) else type(score).__name__


def _evaluated(
    model: nn.Module, evaluate: Evaluate, trials: Sequence[_Trial], processes: int
) -> Iterator[tuple[_Trial, float]]:
    """Yield each trial with its accuracy, as they are finished."""

    def work(trial: _Trial) -> float:
        return _accuracy(model, evaluate, trial.plan)

    if processes == 1 or len(trials) < 2:
        yield from ((trial, work(trial)) for trial in trials)
        return
    if any(tensor.is_cuda for tensor in state_tensors(model).values()):
        raise UserMistake(f"processes={processes} needs a model on the CPU; one process keeps a GPU busy")
    yield from ((trials[number], accuracy) for number, accuracy in each_in_processes(work, trials, processes))


def _accuracy(model: nn.Module, evaluate: Evaluate, plan: Plan | None) -> float:
    """Evaluate a cut copy.

    Raises:
        UserMistake: the function gave no accuracy.
    """
    given: object = evaluate(cut_copy(model, plan))
    accuracy = float(given) if isinstance(given, int | float | torch.Tensor) else math.nan
    if not 0 <= accuracy <= 1:
        raise UserMistake(f"evaluate returned {given!r}; return the accuracy of the model it is given, in 0..1")
    return accuracy
