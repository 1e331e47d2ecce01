"""What a training run leaves behind: one record an epoch."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Epoch:
    """One pass over the training split.

    Attributes:
        number: counted from 1.
        train_loss: mean loss over the epoch's batches (for classification in nats), while the weights changed.
        validation: the task's figure on the validation split after the epoch (for classification accuracy in 0..1).
    """

    number: int
    train_loss: float
    validation: float


@dataclass(frozen=True)
class FitResult:
    """What a training run did.

    Attributes:
        start: figure on the validation split before the first epoch.
        epochs: one record an epoch, in order.
        chosen_epoch: number of the epoch whose weights the model now has; 0 for those it started with.
        stopped: why there are fewer epochs than asked for; empty where there are not.
    """

    start: float
    epochs: tuple[Epoch, ...]
    chosen_epoch: int
    stopped: str = ""

    @property
    def chosen(self) -> float:
        """Figure on the validation split of the weights that the model now has."""
        return self.epochs[self.chosen_epoch - 1].validation if self.chosen_epoch else self.start

    @property
    def last(self) -> float:
        """Figure on the validation split after the last epoch."""
        return self.epochs[-1].validation if self.epochs else self.start

    def to_document(self) -> dict[str, Any]:
        """Return the record as plain values."""
        return {**asdict(self), "epochs": [asdict(epoch) for epoch in self.epochs]}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "FitResult":
        """Read what ``to_document`` returned."""
        return cls(**{**document, "epochs": tuple(Epoch(**epoch) for epoch in document["epochs"])})
