"""The figure by which networks are compared, and whether network, data and task fit each other at all."""

import torch
from torch import nn

from cutback.errors import CutbackError, DataError
from cutback.graph.clone import independent_copy, random_state_kept, set_training
from cutback.train.batches import batches
from cutback.train.data import Data
from cutback.train.evaluation import check_model
from cutback.train.task import CLASSIFICATION, Task

AT_ONCE = 256
"""Pictures in a batch of an evaluation."""


def figure_of(model: nn.Module, data: Data, task: Task, device: torch.device, *, split: str = "validation") -> float:
    """Return a task's figure of a network on a split; the modes of its modules and all random states stay as found.

    Args:
        model: the network, which is moved to ``device``.
        data: the data.
        task: what the network is for.
        device: where to compute.
        split: ``train``, ``validation`` or ``test``.

    Raises:
        DataError: the split is empty or cannot be read, or the network does not fit it.
        TaskError: the user's metric fails.
    """
    modes = set_training(model.to(device), False)
    try:
        with random_state_kept(), torch.no_grad():
            return task.metric(model, batches(getattr(data, split), AT_ONCE, device))
    finally:
        set_training(model, modes)


def check_fits(model: nn.Module, data: Data, task: Task, *, device: torch.device | str = "cpu") -> None:
    """Run two training pictures through a network, and for a task of the user's own through its objective.

    Args:
        model: the network, which is moved to ``device``; nothing of it changes.
        data: the data.
        task: what the network is for.
        device: where to compute.

    Raises:
        DataError: the network does not accept the pictures, or has fewer outputs than there are classes.
        TaskError: the user's loss fails on what it returns.
    """
    if task.name == CLASSIFICATION:
        check_model(model, data, device=device)
        return
    place = torch.device(device)
    inputs, targets = next(batches(data.train, 2, place))
    copied = independent_copy(model.to(place)).train()
    try:
        with random_state_kept():
            task.objective(copied, inputs, targets).backward()
    except CutbackError:
        raise
    except Exception as error:  # The user's own code raises anything.
        reason = " ".join(str(error).split())
        raise DataError(
            f"the model does not train on {data.name!r} for task {task.name!r} ({type(error).__name__}: {reason}); "
            "correct the one that is wrong"
        ) from error
