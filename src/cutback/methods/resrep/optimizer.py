"""How compactors learn: SGD with a momentum of their own and no weight decay, at the learning rate of the rest.

They have an optimiser to themselves. As a group of the network's own they would come and go while schedules hold on to
how many groups there are (those of PyTorch refuse another number), and its other options, clipping and decay, are not
theirs.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Optimizer

from cutback.errors import UserMistake
from cutback.methods.resrep.compactor import Compactor
from cutback.scores.data import over_ranks


class CompactorOptimizer:
    """Trains compactors.

    Args:
        compactors: which.
        optimizers: the network's.
        like: a parameter of the network; the learning rate is that of its group, step by step.
        momentum: of the compactors.
        strength: of the penalty.

    Raises:
        UserMistake: no optimiser holds the parameter.
    """

    def __init__(
        self,
        compactors: Sequence[Compactor],
        optimizers: Sequence[Optimizer],
        like: Tensor,
        *,
        momentum: float,
        strength: float,
    ) -> None:
        self._optimizers, self._like = optimizers, like
        self._compactors, self._strength = compactors, strength
        self._rate()
        self._sgd = SGD([compactor.weight for compactor in compactors], lr=0.0, momentum=momentum)
        self._ready = False

    def prepare(self, scaler: torch.amp.GradScaler | None) -> None:
        """Make of the gradients that have arrived what the step takes, the same in all processes.

        Args:
            scaler: of mixed precision; a step whose gradients have overflowed is left out.

        Raises:
            UserMistake: none has arrived.
        """
        weights = [compactor.weight for compactor in self._compactors]
        if all(weight.grad is None for weight in weights):
            raise UserMistake(
                "no gradient has reached the compactors: what is trained is not the model that was traced, or a "
                "replica of it made before; train that model"
            )
        shares = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in weights]
        # All processes add theirs, and a one: divided by how many there are it is the mean, as of other gradients.
        together = over_ranks(torch.cat([*(share.flatten() for share in shares), weights[0].new_ones(1)]))
        together = together[:-1] / together[-1]
        if scaler is not None and scaler.is_enabled():
            together /= scaler.get_scale()
            self._ready = bool(together.isfinite().all())
        else:
            self._ready = True
        for compactor, own in zip(
            self._compactors, together.split([weight.numel() for weight in weights]), strict=True
        ):
            compactor.weight.grad = own.view_as(compactor.weight)
            compactor.reset_(self._strength)
        self._sgd.param_groups[0]["lr"] = self._rate()

    def _rate(self) -> float:
        """Return the learning rate as it is for this step; an optimiser that loads a state has other groups then."""
        for group in (group for optimizer in self._optimizers for group in optimizer.param_groups):
            if any(held is self._like for held in group["params"]):
                return group["lr"]
        raise UserMistake(
            "resrep trains compactors at the learning rate of the convolutions before them, which none of the "
            "optimizers that it was given holds; pass optimizers=[...] with that of the model"
        )

    def step(self) -> None:
        """Take the step that was prepared."""
        if self._ready:
            self._sgd.step()
        self._ready = False
        self.forget()

    def forget(self) -> None:
        """Forget gradients."""
        self._sgd.zero_grad(set_to_none=True)

    def state(self) -> list[dict[str, Any]]:
        """Return what is needed to go on: for each compactor its weight, its live rows and its momentum."""
        return [
            {
                "weight": compactor.weight.detach().clone(),
                "live": compactor.live.clone(),
                "momentum": None if (held := self._momentum(compactor)) is None else held.clone(),
            }
            for compactor in self._compactors
        ]

    def load(self, state: Sequence[dict[str, Any]]) -> None:
        """Take up a state; shapes must fit."""
        with torch.no_grad():
            for compactor, own in zip(self._compactors, state, strict=True):
                compactor.weight.copy_(own["weight"])
                compactor.live.copy_(own["live"])
                if own["momentum"] is not None:
                    held = own["momentum"].to(compactor.weight)
                    self._sgd.state[compactor.weight]["momentum_buffer"] = held.clone()

    def _momentum(self, compactor: Compactor) -> Tensor | None:
        return self._sgd.state.get(compactor.weight, {}).get("momentum_buffer")
