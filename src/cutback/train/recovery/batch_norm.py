"""``bn``: batch norms' running statistics, estimated anew on the cut network."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from cutback.errors import CutbackError, DataError
from cutback.graph.clone import modules_by_path, random_state_kept, set_training
from cutback.train.recovery.step import Outcome, Repair, Situation, recovery_steps

UNUSED = "no forward pass in eval mode has used it"


@recovery_steps.register("bn")
@dataclass(frozen=True)
class BatchNormStatistics(Repair):
    """Estimate batch norms' running statistics anew (Wu and Johnson 2021, 'Rethinking Batch in BatchNorm', section 3).

    Only batch norms that keep statistics run in train mode, so that each normalises with its batch, as in training. The
    new statistics are those of all values of the calibration batches together, by equation 3 of the paper: mean
    ``E[m]`` and variance ``E[v + m**2] - E[m]**2`` over the batches' means ``m`` and variances ``v``, weighted by the
    batches' sizes; the variance is made unbiased, as PyTorch's running variance is. Statistics from before have no part
    in it. A single picture behind larger batches is left out: batch norms cannot train on it.
    """

    def apply(self, situation: Situation) -> Outcome:
        """Estimate the statistics in one pass over the calibration batches.

        Raises:
            DataError: there is no batch, or the network does not run on one.
        """
        model, moments = situation.model, dict[str, _Moments]()
        norms = {path: norm for path, norm in modules_by_path(model).items() if _keeps_statistics(norm)}
        if not norms:
            return Outcome(notes=("the network has no batch norm that keeps statistics",))
        handles, modes = [], set_training(model, False)
        try:
            for path, norm in norms.items():
                moments[path] = _Moments()
                handles.append(norm.register_forward_pre_hook(moments[path].note))
                norm.train()
                norm.track_running_stats = False  # what it keeps stays as it is until all batches were seen
            _run(model, situation)
        finally:
            for handle in handles:
                handle.remove()
            for norm in norms.values():
                norm.track_running_stats = True
            set_training(model, modes)
        for path, norm in norms.items():
            moments[path].write(norm)
        unused = tuple((path, UNUSED) for path, found in moments.items() if not found.batches)
        return Outcome(tuple(path for path, found in moments.items() if found.batches), unused)


def _keeps_statistics(module: nn.Module) -> bool:
    return isinstance(module, BatchNorm) and module.track_running_stats and module.running_mean is not None


def _run(model: nn.Module, situation: Situation) -> None:
    """Run the calibration batches through the network."""
    batch = 0
    with torch.no_grad(), random_state_kept():
        for batch, (inputs, _) in enumerate(situation.batches, 1):
            if batch > 1 and isinstance(inputs, Tensor) and len(inputs) == 1:
                continue
            try:
                model(inputs)
            except CutbackError:
                raise
            except Exception as error:
                reason = " ".join(str(error).split())
                raise DataError(
                    f"the network does not run on calibration batch {batch} ({type(error).__name__}: {reason}); its "
                    "batch norms are as they were"
                ) from error
    if not batch:
        raise DataError("there are no calibration batches; give the training split at least one picture")


@dataclass(eq=False)
class _Moments:
    """Mean and variance of the values that came into a batch norm, by channel (C,).

    Attributes:
        batches: how many batches came.
        count: how many values of each channel.
        mean: their mean, float64.
        squares: sum of their squared distances from the mean, float64.
    """

    batches: int = 0
    count: int = 0
    mean: Tensor = field(default_factory=lambda: torch.zeros(()))
    squares: Tensor = field(default_factory=lambda: torch.zeros(()))

    def note(self, _module: nn.Module, arguments: tuple[Any, ...]) -> None:
        """Take note of a batch (N, C, ...) by the parallel formula of Chan, Golub and LeVeque (1979)."""
        values = arguments[0].detach()
        dimensions = [dimension for dimension in range(values.dim()) if dimension != 1]
        variance, mean = (found.double() for found in torch.var_mean(values, dimensions, correction=0))
        count = values.numel() // values.shape[1]
        total, distance = self.count + count, mean - self.mean.to(mean)
        self.squares = self.squares.to(mean) + variance * count + distance**2 * (self.count * count / total)
        self.mean = self.mean.to(mean) + distance * (count / total)
        self.batches, self.count = self.batches + 1, total

    def write(self, norm: BatchNorm) -> None:
        """Give a batch norm these statistics."""
        if self.batches:
            norm.running_mean.copy_(self.mean)
            norm.running_var.copy_(self.squares / max(1, self.count - 1))
            norm.num_batches_tracked.fill_(self.batches)
