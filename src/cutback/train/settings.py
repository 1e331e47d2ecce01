"""The settings of a training run, and the optimiser and learning rates they stand for."""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from cutback.errors import UserMistake
from cutback.registry import near_misses

OptimizerName = Literal["sgd", "adamw"]
ScheduleName = Literal["cosine", "step", "one-cycle", "constant"]
Precision = Literal["no", "bf16", "fp16"]
Keep = Literal["best", "last"]

RISING = {"cosine": 0.15, "step": 0.0, "one-cycle": 0.3, "constant": 0.0}
"""Share of the run in which the learning rate rises, where nothing else is said."""
FALLS_AT, FALLS_BY = (0.5, 0.75), 0.1
"""The step schedule divides the learning rate by ten after half and after three quarters of the run (He 2016)."""
LOW, LOWEST = 1 / 25, 1e-4
"""One-cycle starts at 1/25 of the highest learning rate and ends at 1/10,000 of that start."""


@dataclass(frozen=True)
class TrainSettings:
    """How a network is trained.

    Attributes:
        epochs: passes over the training split.
        seed: seed of the order, the augmentation and the model's own randomness.
        batch_size: pictures in one step of the optimiser, over all processes and micro-batches together.
        learning_rate: the highest.
        optimizer: ``sgd`` with Nesterov momentum, or ``adamw``.
        momentum: of SGD.
        weight_decay: on all parameters.
        schedule: ``cosine`` falls to 0; ``step`` divides by ten after half and after three quarters of the run;
            ``one-cycle`` rises and falls on cosines (Smith 2018, learning rate only); ``constant`` stays.
        warm_up: share of the run in which the learning rate rises (linearly, but for one-cycle); ``None`` for the
            schedule's own: cosine 0.15, one-cycle 0.3, else 0.
        clip: highest norm of all gradients together; ``None`` for no bound.
        accumulate: micro-batches that each process computes one after the other for one step.
        average: decay of an exponential moving average of the weights, which is then what is evaluated and kept;
            ``None`` for none. After ``n`` steps the decay is ``(1 + n) / (10 + n)`` if that is lower.
        precision: ``no`` for float32, or ``bf16``, ``fp16`` where autocast permits.
        channels_last: keep pictures and filters in that order of memory.
        label_smoothing: share of each target that is spread over all classes.
        patience: stop after so many epochs without a better one on the validation split; ``None`` for never.
        keep: the weights of the ``best`` epoch on the validation split, or of the ``last``.
        checkpoint_steps: steps between two checkpoints; one more is made after every epoch.
    """

    epochs: int = 20
    seed: int = 0
    batch_size: int = 64
    learning_rate: float = 0.05
    optimizer: OptimizerName = "sgd"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: ScheduleName = "cosine"
    warm_up: float | None = None
    clip: float | None = None
    accumulate: int = 1
    average: float | None = None
    precision: Precision = "no"
    channels_last: bool = False
    label_smoothing: float = 0.0
    patience: int | None = None
    keep: Keep = "best"
    checkpoint_steps: int = 500

    def __post_init__(self) -> None:
        """Refuse settings that are out of range.

        Raises:
            UserMistake: names the setting.
        """
        if self.epochs < 0 or self.batch_size < 1 or not 0 < self.learning_rate < math.inf:
            raise UserMistake(
                f"training needs epochs >= 0, a batch size >= 1 and a learning rate > 0, "
                f"not {self.epochs}, {self.batch_size} and {self.learning_rate:g}"
            )
        kinds = (
            ("optimizer", OptimizerName),
            ("schedule", ScheduleName),
            ("precision", Precision),
            ("keep", Keep),
        )
        for name, kind in kinds:
            given, known = getattr(self, name), list(get_args(kind))
            if given not in known:
                raise UserMistake(f"{name} is {given!r}; {near_misses(str(given), known)}")
        ranges: tuple[tuple[str, float, float], ...] = (
            ("momentum", 0, 1),
            ("weight_decay", 0, math.inf),
            ("warm_up", 0, 1),
            ("average", 0, 1),
            ("label_smoothing", 0, 1),
        )
        for name, low, high in ranges:
            share = getattr(self, name)
            if share is not None and not low <= share < high:
                raise UserMistake(f"{name} must be at least {low:g} and below {high:g}, not {share:g}")
        if self.clip is not None and not self.clip > 0:
            raise UserMistake(f"clip must be above 0, not {self.clip:g}")
        for name, low in (("accumulate", 1), ("patience", 1), ("checkpoint_steps", 1)):
            count = getattr(self, name)
            if count is not None and count < low:
                raise UserMistake(f"{name} must be at least {low}, not {count}")

    def to_document(self) -> dict[str, Any]:
        """Return the settings as a dict for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "TrainSettings":
        """Read what ``to_document`` returned.

        Raises:
            UserMistake: there is a setting of another name, or one is out of range.

        Example:
            >>> from cutback.train import TrainSettings
            >>> settings = TrainSettings(epochs=3, schedule="step")
            >>> TrainSettings.from_document(settings.to_document()) == settings
            True
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for name in document:
            if name not in known:
                raise UserMistake(f"training has no setting called {name!r}; {near_misses(name, known)}")
        return cls(**document)

    def make_optimizer(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        """Return the optimiser of these parameters."""
        if self.optimizer == "adamw":
            return AdamW(parameters, self.learning_rate, weight_decay=self.weight_decay)
        return SGD(
            parameters,
            self.learning_rate,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            nesterov=self.momentum > 0,
        )

    def rate(self, step: int, steps: int) -> float:
        """Return the learning rate of a step, relative to the highest.

        Args:
            step: how many steps were taken before.
            steps: how many there are in all.
        """
        share = RISING[self.schedule] if self.warm_up is None else self.warm_up
        rising = max(1, round(share * steps)) if share else 0
        if step < rising:
            if self.schedule == "one-cycle":
                return LOW + (1 - LOW) * (1 - math.cos(math.pi * step / rising)) / 2
            return (step + 1) / rising
        falling = (step - rising) / max(1, steps - rising)
        if self.schedule == "cosine":
            return (1 + math.cos(math.pi * falling)) / 2
        if self.schedule == "one-cycle":
            return LOW * LOWEST + (1 - LOW * LOWEST) * (1 + math.cos(math.pi * falling)) / 2
        if self.schedule == "step":
            return FALLS_BY ** sum(step >= at * steps for at in FALLS_AT)
        return 1.0


class Schedule:
    """Sets the learning rate of every parameter group step by step, also of groups that are added on the way.

    Args:
        optimizer: the optimiser.
        settings: the settings.
        steps: steps of the whole run.
    """

    def __init__(self, optimizer: Optimizer, settings: TrainSettings, steps: int) -> None:
        self._optimizer, self._settings, self._steps = optimizer, settings, steps
        self.taken = 0

    def set(self) -> float:
        """Set the learning rates of the step to come; return the relative one."""
        factor = self._settings.rate(self.taken, self._steps)
        for group in self._optimizer.param_groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor
        return factor

    def advance(self) -> None:
        """Take note of a step."""
        self.taken += 1
