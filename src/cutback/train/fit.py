"""Training in one call."""

import contextlib
import dataclasses
from typing import Any

import torch
from torch import nn

from cutback.errors import UserMistake
from cutback.train.data import Data
from cutback.train.judging import check_fits
from cutback.train.launch import Launch, launched
from cutback.train.loop import Loop, MethodMaker, Watch
from cutback.train.progress import Progress
from cutback.train.records import FitResult
from cutback.train.settings import TrainSettings
from cutback.train.task import CLASSIFICATION, Objective, Task, classification


def fit(
    model: nn.Module,
    data: Data,
    settings: TrainSettings | None = None,
    *,
    device: torch.device | str = "cpu",
    task: Task | None = None,
    objective: Objective | None = None,
    make_method: MethodMaker | None = None,
    progress: Progress | None = None,
    launch: Launch | None = None,
    **options: Any,  # noqa: ANN401 (fields of the settings)
) -> FitResult:
    """Train a network in place and leave it with its best weights on the validation split (of equal ones the latest).

    The weights at the start count as epoch 0. However the run ends, the model holds the best weights so far and its
    modules' modes are as found. The same seed gives the same weights on the CPU; the global random states are as before
    when it returns.

    Args:
        model: maps pictures (N, C, H, W) to outputs, for classification (N, num_classes); it is moved to ``device``.
        data: trained on ``train``, chosen on ``validation``; ``test`` is not read.
        settings: how it is trained.
        device: where to train.
        task: what it is trained for; classification by default.
        objective: what is minimised over a micro-batch, ``None`` for the task's own.
        make_method: makes a method to run in the loop from the ``Loop``.
        progress: told after every step.
        launch: what ``launched`` yields, for several runs in the same processes; else one is made for this run.
        **options: fields of the settings, instead of those given.

    Returns:
        The record of the run.

    Raises:
        UserMistake: a setting is out of range, or the model has nothing to train.
        MissingExtra: accelerate is not installed.
        DataError: model and data do not fit.
        TrainingDiverged: the loss is no longer finite.

    Example:
        >>> import torch
        >>> from cutback.train import Data, fit
        >>> images, labels = torch.randn(40, 3, 8, 8), torch.randint(2, (40,))
        >>> split = torch.utils.data.TensorDataset(images, labels)
        >>> data = Data("noise", split, split, split, num_classes=2, input_shape=(3, 8, 8))
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 8), torch.nn.Flatten(), torch.nn.Linear(4, 2))
        >>> result = fit(net, data, epochs=2, learning_rate=0.01)
        >>> len(result.epochs)
        2
    """
    settings = dataclasses.replace(settings or TrainSettings(), **options)
    if task is None:
        task = classification(settings.label_smoothing)
    elif settings.label_smoothing and task.name != CLASSIFICATION:
        raise UserMistake("label smoothing is for classification; write it into the loss of your task")
    with contextlib.nullcontext(launch) if launch else launched(device, settings.precision) as place:
        check_fits(model, data, task, device=place.device)
        loop = Loop(
            model,
            data,
            settings,
            launch=place,
            task=task,
            objective=objective,
            make_method=make_method,
            watch=Watch(progress),
        )
        return loop.run()
