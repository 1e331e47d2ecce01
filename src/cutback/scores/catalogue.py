"""What a score is, the table of scores by name, and the checks every score's result passes."""

import cmath
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, float64

from cutback.errors import InvalidScore, UserMistake
from cutback.graph.clone import parameters_by_name
from cutback.graph.graph import Graph
from cutback.registry import Registry

Need = Literal["weights", "activations", "gradients", "labels"]
Plant = Literal["dead", "duplicate", "median"]


class Score(Protocol):
    """Rates every unit of every group of a graph.

    One whose ``reads_filters`` is true is not finite where a weight of the filters that make a group's channels is not;
    those weights are then not looked through once more.
    """

    def __call__(self, graph: Graph) -> Mapping[str, Tensor]:
        """Return a tensor ``(units,)`` for each group's name; higher means more important."""
        ...


@dataclass(frozen=True)
class About:
    """What a registered score says of itself, as its attribute ``about``; the contract tests read it.

    Attributes:
        source: author, year and place in the paper.
        needs: what it looks at. A score that needs more than ``weights`` takes as its first argument ``loader``, an
            iterable of batches ``(inputs, labels)``; one that needs ``labels`` takes as its second ``loss``, a function
            of outputs and labels.
        lowest: the units that its definition gives the lowest score: a ``dead`` one (all its parameters are zero), each
            of two ``duplicate`` ones, or one at the ``median`` of the others.
        equivariant: whether units that change places take their scores along; false for chance alone.
        batchwise: whether the definition itself depends on how the samples are put into batches.
        coupled: how it puts coupled slices together, for one that takes no ``aggregate``.
    """

    source: str
    needs: tuple[Need, ...] = ("weights",)
    lowest: tuple[Plant, ...] = ()
    equivariant: bool = True
    batchwise: bool = False
    coupled: str = ""

    @property
    def data(self) -> bool:
        """Whether it needs batches."""
        return any(need != "weights" for need in self.needs)


scores: Registry[Callable[..., Score]] = Registry("score", "cutback.scores")
"""Scores by name. An entry is a class with an ``About`` as its attribute ``about``; its docstring's first line is the
summary. One that needs weights only is called without arguments."""


@dataclass(frozen=True)
class Description:
    """A line of the list of scores.

    Attributes:
        name: what users write.
        summary: one line.
        source: author, year and place in the paper.
        needs: what it looks at.
        aggregate: how it puts coupled slices together unless told otherwise; empty where it has one way only.
        coupled: the same, or its one way in words.
    """

    name: str
    summary: str
    source: str
    needs: tuple[Need, ...]
    aggregate: str
    coupled: str


def about(name: str) -> About:
    """Return what a registered score says of itself.

    Raises:
        UnknownName: no score has that name.
    """
    return cast("About", getattr(scores.get(name), "about"))  # noqa: B009 (the registry holds callables)


def describe(name: str) -> Description:
    """Return a registered score's line of the list.

    Raises:
        UnknownName: no score has that name.

    Example:
        >>> from cutback.scores import describe
        >>> describe("l1").aggregate
        'sum'
    """
    entry, found = scores.get(name), about(name)
    summary = (inspect.getdoc(entry) or "").partition("\n")[0]
    taken = inspect.signature(entry).parameters.get("aggregate")
    aggregate = taken.default if taken else ""
    return Description(name, summary, found.source, found.needs, aggregate, aggregate or found.coupled)


def make_score(
    name: str,
    *,
    loader: object = None,
    loss: Callable[..., Tensor] | None = None,
    seed: int | None = None,
) -> Score:
    """Make a score from its name.

    Args:
        name: a registered name, or one with an aggregate behind a colon: ``"l1:leader"``.
        loader: batches ``(inputs, labels)``, for scores that need data.
        loss: of outputs and labels, for scores that need labels.
        seed: for scores that draw at random.

    Raises:
        UnknownName: no score has that name.
        UserMistake: it needs data and none is given, or it has no such aggregate.

    Example:
        >>> from cutback.scores import make_score
        >>> make_score("l1:leader")
        L1(aggregate='leader')
    """
    plain, colon, aggregate = name.partition(":")
    entry, found = scores.get(plain), about(plain)
    accepted = inspect.signature(entry).parameters
    given: list[object] = []
    if found.data:
        given = [loader, loss] if "labels" in found.needs else [loader]
        if any(argument is None for argument in given):
            raise UserMistake(f"score {plain!r} needs data; {_how_to_give_data(entry, found)}")
    options: dict[str, object] = {"aggregate": aggregate} if colon else {}
    if colon and "aggregate" not in accepted:
        raise UserMistake(f"score {plain!r} puts coupled slices together in its own way; write score={plain!r}")
    if seed is not None and "seed" in accepted:
        options["seed"] = seed
    return entry(*given, **options)


def score_groups(graph: Graph, score: str | Score | type[Score]) -> list[NDArray[np.float64]]:
    """Score a graph's groups and check the result.

    Args:
        graph: the traced model.
        score: a registered name, a score, or the class of one that needs no arguments.

    Returns:
        For each group the scores of its units, shape ``(units,)``.

    Raises:
        UserMistake: it is something else, or a score that needs data by its name alone.
        UnknownName: no score has that name.
        InvalidScore: a group has no score, one of another shape, or one that is not finite.
    """
    return prepared(graph, score)()


def prepared(graph: Graph, score: str | Score | type[Score]) -> Callable[[], list[NDArray[np.float64]]]:
    """Check what takes no time, and return what does the rest of ``score_groups``.

    Raises:
        UserMistake: the score is something else, or one that needs data by its name alone.
        UnknownName: no score has that name.
        InvalidScore: weights that the score does not look through itself are not finite.
    """
    rate = _ready(score)
    parameters = parameters_by_name(graph.model)
    read = _whole_filters(graph) if getattr(rate, "reads_filters", False) else ()
    _check_sound({name: parameter for name, parameter in parameters.items() if name not in read})
    return partial(_rated, graph, rate, score if isinstance(score, str) else type(rate).__name__)


def _rated(graph: Graph, rate: Score, label: str) -> list[NDArray[np.float64]]:
    """Score a graph's groups and check the result; ``label`` is what messages call the score."""
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
        values = given.detach().to("cpu", float64).numpy()
        if values.shape != (group.units,):
            raise InvalidScore(
                f"score {label} gave shape {values.shape} for group {group.name}; expected ({group.units},)"
            )
        if not np.isfinite(values).all():
            _check_sound(parameters_by_name(graph.model))
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
        return make_score(score)
    made: object = score
    if isinstance(score, type):
        try:
            made = score()
        except TypeError as error:
            found: object = getattr(score, "about", None)
            how = _how_to_give_data(score, found) if isinstance(found, About) and found.data else "pass an instance"
            raise UserMistake(
                f"score={score.__name__} is a class that cannot be made without arguments ({error}); {how}"
            ) from error
    if not callable(made):
        raise UserMistake(f"score={score!r} is no score; write a name such as score='l1', or pass a score")
    return cast("Score", made)


def _how_to_give_data(entry: Callable[..., Score], found: About) -> str:
    """Say how a score that needs data is made."""
    place = "cutback.scores" if entry.__module__.startswith("cutback.scores.") else entry.__module__
    call = f"{place}.{entry.__name__}({'loader, loss' if 'labels' in found.needs else 'loader'})"
    loss = ", and loss(outputs, labels) returns a scalar tensor" if "labels" in found.needs else ""
    return f"pass score={call}, where loader yields batches (inputs, labels){loss}"
