"""What a training run leaves behind: one record an epoch."""

from dataclasses import dataclass

from cutback.train.evaluation import Accuracy


@dataclass(frozen=True)
class Epoch:
    """One pass over the training split.

    Attributes:
        number: counted from 1.
        train_loss: mean cross entropy over the epoch's batches, in nats, while the weights changed.
        validation: accuracy on the validation split after the epoch.
    """

    number: int
    train_loss: float
    validation: Accuracy


@dataclass(frozen=True)
class FitResult:
    """What a training run did.

    Attributes:
        start: validation accuracy before the first epoch.
        epochs: one record an epoch, in order.
        best_epoch: number of the epoch whose weights the model now has; 0 where none was better than the start.
    """

    start: Accuracy
    epochs: tuple[Epoch, ...]
    best_epoch: int

    @property
    def best(self) -> Accuracy:
        """Validation accuracy of the weights that the model now has."""
        return self.epochs[self.best_epoch - 1].validation if self.best_epoch else self.start

    @property
    def last(self) -> Accuracy:
        """Validation accuracy after the last epoch."""
        return self.epochs[-1].validation if self.epochs else self.start
