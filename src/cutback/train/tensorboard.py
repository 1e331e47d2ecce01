"""Figures of a run for TensorBoard, where that is installed."""

from pathlib import Path
from typing import Any

from cutback.train.launch import MissingExtra


def event_writer(folder: Path, first: int) -> Any:  # noqa: ANN401 (an optional library's class)
    """Return a writer of events.

    Args:
        folder: where to.
        first: steps from this one on that are there already are about to be written again.

    Raises:
        MissingExtra: tensorboard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 (optional, and slow to import)
    except ImportError as error:
        raise MissingExtra(
            f"--tensorboard needs tensorboard ({error}); install it with: pip install 'cutback[train]'"
        ) from error
    return SummaryWriter(str(folder), purge_step=first)
