"""A plain training loop: SGD with momentum, warm-up and cosine decay, keeping the best epoch."""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from cutback.errors import CutbackError, UserMistake
from cutback.graph.clone import random_state_kept, set_training
from cutback.train.batches import Batch, TrainingBatches
from cutback.train.data import Data
from cutback.train.evaluation import check_labels, check_model, evaluate, logits
from cutback.train.progress import Progress
from cutback.train.records import Epoch, FitResult
from cutback.train.seeds import seed_everything

WARM_UP = 0.15


class TrainingDiverged(CutbackError):
    """The training loss became infinite or not a number."""


def fit(
    model: nn.Module,
    data: Data,
    *,
    epochs: int,
    seed: int,
    learning_rate: float = 0.05,
    batch_size: int = 64,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> FitResult:
    """Train a classifier in place and leave it with its best weights by validation accuracy (ties: by loss).

    SGD with Nesterov momentum on the cross entropy; the learning rate rises linearly over the first 15 % of the steps
    and falls to 0 on a cosine. The weights at the start count as epoch 0. However the run ends, the model holds the
    best weights so far and its modules' modes are as found.

    Args:
        model: maps pictures (N, C, H, W) to outputs (N, num_classes); it is moved to ``device``.
        data: trained on ``train``, chosen on ``validation``; ``test`` is not read.
        epochs: passes over the training split; 0 only evaluates.
        seed: seed of the order, the augmentation and the model's own randomness. The same seed gives the same weights
            on the CPU. The global random states are as before when it returns.
        learning_rate: highest learning rate.
        batch_size: pictures in a batch; a last batch of one is skipped, as batch norms cannot train on it.
        momentum: of SGD.
        weight_decay: of SGD, on all parameters.
        device: where to train.
        progress: told after every step.

    Returns:
        The record of the run.

    Raises:
        UserMistake: a setting is out of range, or the model has nothing to train.
        DataError: model and data do not fit.
        TrainingDiverged: the loss is no longer finite.
    """
    parameters = [parameter for parameter in model.to(device).parameters() if parameter.requires_grad]
    _check_settings(epochs, learning_rate, batch_size, parameters)
    optimizer = torch.optim.SGD(
        parameters, learning_rate, momentum=momentum, weight_decay=weight_decay, nesterov=momentum > 0
    )
    batches = TrainingBatches(data, batch_size, torch.device(device), seed)
    steps = len(batches)
    schedule = _schedule(optimizer, steps * epochs)
    records: list[Epoch] = []
    with random_state_kept():
        seed_everything(seed)
        check_model(model, data, device=device)
        start = evaluate(model, data.validation, device=device)
        best_epoch, best, best_weights = 0, start, copy.deepcopy(model.state_dict())
        modes = set_training(model, True)
        try:
            for number in range(1, epochs + 1):
                text = f"epoch {number}/{epochs}, validation {(records[-1].validation if records else start).top1:.1%}"
                report = _Steps(progress, (number - 1) * steps, steps * epochs, text) if progress else None
                loss = _train_epoch(model, batches.epoch(number), schedule, report)
                if not math.isfinite(loss):
                    raise TrainingDiverged(
                        f"the training loss became {loss} in epoch {number}; "
                        f"lower the learning rate (now {learning_rate:g}, try {learning_rate / 10:g})"
                    )
                accuracy = evaluate(model, data.validation, device=device)
                records.append(Epoch(number, loss, accuracy))
                if (accuracy.top1, -accuracy.loss) > (best.top1, -best.loss):
                    best_epoch, best, best_weights = number, accuracy, copy.deepcopy(model.state_dict())
        finally:
            model.load_state_dict(best_weights)
            set_training(model, modes)
    return FitResult(start, tuple(records), best_epoch)


@dataclass(frozen=True)
class _Steps:
    """Progress of one epoch within the whole run."""

    progress: Progress
    before: int
    total: int
    text: str

    def __call__(self, done: int) -> None:
        self.progress(self.before + done, self.total, self.text)


def _check_settings(epochs: int, learning_rate: float, batch_size: int, parameters: list[nn.Parameter]) -> None:
    if epochs < 0 or batch_size < 1 or not learning_rate > 0:
        raise UserMistake(
            f"training needs epochs >= 0, a batch size >= 1 and a learning rate > 0, "
            f"not {epochs}, {batch_size} and {learning_rate:g}"
        )
    if not parameters:
        raise UserMistake("the model has no parameters that require a gradient; nothing can be trained")


def _schedule(optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LambdaLR:
    """Rise linearly over the first steps, then fall to 0 on a cosine."""
    rising = max(1, round(WARM_UP * steps))

    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / rising
        return (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising))) / 2

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def _train_epoch(
    model: nn.Module,
    batches: Iterator[Batch],
    schedule: torch.optim.lr_scheduler.LambdaLR,
    report: _Steps | None,
) -> float:
    """Train for one epoch and return the mean loss."""
    optimizer = schedule.optimizer
    device = optimizer.param_groups[0]["params"][0].device
    total, count = torch.zeros((), dtype=torch.float64, device=device), 0
    for step, (images, labels) in enumerate(batches, 1):
        outputs = logits(model(images))
        check_labels(outputs, labels)
        loss = functional.cross_entropy(outputs, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.detach().double() * len(labels)
        count += len(labels)
        schedule.step()
        if report:
            report(step)
    return total.item() / max(count, 1)
