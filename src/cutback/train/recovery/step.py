"""What a recovery step is, what it works on, and chains of them by name: ``bn,least-squares,distill:20``."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, get_type_hints

import torch
from torch import nn

from cutback.errors import UserMistake
from cutback.planning.plan import Plan
from cutback.registry import Registry
from cutback.train.task import Objective, Task

EXAMPLE = "--recover bn,least-squares,distill:20,finetune:10"


@dataclass(frozen=True, eq=False)
class Situation:
    """What a recovery step works on.

    Attributes:
        dense: a copy of the network as it was before the cut; steps leave its weights alone.
        model: the cut network.
        plan: the plan that leads from one to the other.
        batches: calibration batches ``(inputs, targets)`` of the training split on ``device``, the same ones each time
            they are iterated.
        task: what the network is trained for.
        device: where both networks are.
    """

    dense: nn.Module
    model: nn.Module
    plan: Plan
    batches: Iterable[tuple[Any, Any]]
    task: Task
    device: torch.device


@dataclass(frozen=True)
class Outcome:
    """What a step without training did.

    Attributes:
        done: paths of the modules that it changed.
        skipped: paths of modules that it could not treat, with the reason of each.
        notes: what else a user should know.
    """

    done: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Step:
    """One way to win back accuracy; a registered subclass is a ``Repair`` or a ``Training``."""

    trains: ClassVar[bool]


@dataclass(frozen=True)
class Repair(Step):
    """A step that changes the cut network without training."""

    trains: ClassVar[bool] = False

    def apply(self, situation: Situation) -> Outcome:
        """Change ``situation.model`` in place; labels are not looked at."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Training(Step):
    """A step that trains.

    Attributes:
        epochs: passes over the training split.
    """

    trains: ClassVar[bool] = True
    epochs: int

    def __post_init__(self) -> None:
        if self.epochs < 0:
            raise UserMistake(f"{type(self).__name__.lower()} needs epochs >= 0, not {self.epochs}; see {EXAMPLE}")

    def objective(self, situation: Situation) -> Objective:
        """Return what training minimises over one micro-batch."""
        raise NotImplementedError


recovery_steps: Registry[type[Step]] = Registry("recovery step", "cutback.train.recovery")
"""Recovery steps by name."""


def parse_recovery(text: str) -> tuple[Step, ...]:
    """Read a chain of steps; ``"none"`` and ``""`` are the empty one.

    Behind a step's name stand, each after a colon, its epochs if it trains, and its settings as ``name=value``.

    Raises:
        UnknownName: there is no such step.
        UserMistake: a step lacks its epochs, or a setting does not exist or cannot be read.

    Example:
        >>> from cutback.train.recovery import parse_recovery
        >>> [type(step).__name__ for step in parse_recovery("bn,distill:20,finetune:10")]
        ['BatchNormStatistics', 'Distill', 'Finetune']
        >>> parse_recovery("distill:20:temperature=2")[0].temperature
        2.0
    """
    if text.strip() in {"", "none"}:
        return ()
    return tuple(_step(part.strip()) for part in text.split(","))


def _step(text: str) -> Step:
    """Read one step."""
    name, *rest = (part.strip() for part in text.split(":"))
    kind = recovery_steps.get(name)
    hints = get_type_hints(kind)
    known = {field.name: hints[field.name] for field in dataclasses.fields(kind)}
    settings: dict[str, Any] = {}
    for place, part in enumerate(rest):
        setting, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals and place == 0 and kind.trains:
            setting, value = "epochs", part
        elif not equals or setting not in known:
            names = ", ".join(f"{known_name}=..." for known_name in known if known_name != "epochs") or "none"
            raise UserMistake(f"recovery step {text!r} has no setting {part!r}; it knows {names}")
        settings[setting] = _read(value, known[setting], f"{setting} of recovery step {name!r}")
    if kind.trains and "epochs" not in settings:
        raise UserMistake(f"recovery step {name!r} trains and needs its epochs; write {name}:10, as in {EXAMPLE}")
    return kind(**settings)


def _read(text: str, kind: type, what: str) -> Any:  # noqa: ANN401
    """Read the value of a setting."""
    if kind is str:
        return text
    try:
        return {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
    except (ValueError, KeyError):
        raise UserMistake(f"{what} is {text!r}; write a value of type {kind.__name__}") from None
