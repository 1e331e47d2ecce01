"""What a score is, the table of scores by name, and the checks every score's result passes."""

import cmath
from collections.abc import Callable, Mapping
from typing import Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cutback.errors import InvalidScore, UserMistake
from cutback.graph.clone import parameters_by_name
from cutback.graph.graph import Graph, Group
from cutback.registry import Registry


class Score(Protocol):
    """Rates every unit of every group of a graph.

    One whose ``reads_filters`` is true is not finite where a weight of the filters that make a group's channels is not;
    those weights are then not looked through once more.
    """

    def __call__(self, graph: Graph) -> Mapping[str, Tensor]:
        """Return a tensor ``(units,)`` for each group's name; higher means more important."""
        ...


scores: Registry[Callable[..., Score]] = Registry("score", "cutback.scores")
"""Scores by name; an entry called without arguments gives the score as published."""


def filter_slices(group: Group, states: Mapping[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Return the filters that produce a group's channels, one pair a layer.

    Args:
        group: the group.
        states: parameters by qualified name.

    Returns:
        The weight with the sliced dimension first, shape ``(C, ...)``, and each unit's indices, ``(units, k)``.
        A group that no layer produces (a learned constant) gives the parameters that hold it.
    """
    produced = [slot for slot in group.slices if slot.role in ("filter", "depthwise")]
    held = produced or [slot for slot in group.slices if slot.role == "element"]
    return [
        (states[slot.state].detach().movedim(slot.dimension, 0), torch.from_numpy(group.slices[slot])) for slot in held
    ]


def score_groups(graph: Graph, score: str | Score | type[Score]) -> list[NDArray[np.float64]]:
    """Score a graph's groups and check the result.

    Args:
        graph: the traced model.
        score: a registered name, a score, or the class of one that needs no arguments.

    Returns:
        For each group the scores of its units, shape ``(units,)``.

    Raises:
        UserMistake: it is something else.
        UnknownName: no score has that name.
        InvalidScore: a group has no score, one of another shape, or one that is not finite.
    """
    rate = _ready(score)
    parameters = parameters_by_name(graph.model)
    read = _whole_filters(graph) if getattr(rate, "reads_filters", False) else ()
    _check_sound({name: parameter for name, parameter in parameters.items() if name not in read})
    label = score if isinstance(score, str) else type(rate).__name__
    rated: object = rate(graph)
    if not isinstance(rated, Mapping):
        raise InvalidScore(f"score {label} gave {type(rated).__name__}; return a mapping from groups to tensors")
    result: list[NDArray[np.float64]] = []
    for group in graph.groups:
        if group.name not in rated:
            raise InvalidScore(f"score {label} gave nothing for group {group.name}; return one tensor a group")
        given: object = rated[group.name]
        if not isinstance(given, Tensor):
            raise InvalidScore(f"score {label} gave {type(given).__name__} for group {group.name}; return a tensor")
        values = given.detach().to("cpu", torch.float64).numpy()
        if values.shape != (group.units,):
            raise InvalidScore(
                f"score {label} gave shape {values.shape} for group {group.name}; expected ({group.units},)"
            )
        if not np.isfinite(values).all():
            _check_sound(parameters)
            raise InvalidScore(f"score {label} of group {group.name} is not finite; check the score")
        result.append(values)
    return result


def _whole_filters(graph: Graph) -> set[str]:
    """Return the weights of which every filter is a unit's: a score that reads them is finite only if they are."""
    roles = ("filter", "depthwise")
    return {slot.state for slot, owners in graph.slots.items() if slot.role in roles and -1 not in owners.sizes}


def _check_sound(parameters: Mapping[str, Tensor]) -> None:
    """Refuse weights that are not numbers."""
    for name, parameter in parameters.items():
        values = parameter.detach()
        # The sum of sound values is finite, except where it overflows: one pass, no copy.
        if not cmath.isfinite(values.sum().item()) and not bool(values.isfinite().all()):
            raise InvalidScore(f"{name} holds NaN or infinity; load sound weights")


def _ready(score: str | Score | type[Score]) -> Score:
    """Return a score that can be called with a graph."""
    if isinstance(score, str):
        return scores.get(score)()
    made: object = score
    if isinstance(score, type):
        try:
            made = score()
        except TypeError as error:
            raise UserMistake(
                f"score={score.__name__} is a class that cannot be made without arguments ({error}); pass an instance"
            ) from error
    if not callable(made):
        raise UserMistake(f"score={score!r} is no score; write a name such as score='l1', or pass a score")
    return cast("Score", made)
