"""The two-temperature relaxation of a choice of units: a cold mask forward, the slope of a warm one backward.

N. Colombo, Y. Gao, "Differentiable Architecture Pruning for Transfer Learning", 2021, arXiv 2107.03375.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class Relaxation:
    """One number for each unit, ``theta``: above zero the unit stays, below zero it goes.

    Args:
        theta: where the numbers start, ``(units,)``.
        cold: temperature of the mask, ``sigmoid(theta / cold)``; the colder, the nearer to zeros and ones.
        warm: temperature of the slope that gradients are multiplied by, at least ``cold``.
        rate: learning rate.
        momentum: share of the last step in the next one.

    Attributes:
        theta: the numbers, ``(units,)``, within ``4 * warm`` of zero, or as far from it as the farthest one starts.
        velocity: the last step, by the learning rate, ``(units,)``.

    Example:
        >>> relaxation = Relaxation(torch.zeros(3), cold=0.05, warm=1.0, rate=0.1, momentum=0.9)
        >>> worth, price = torch.tensor([0.9, 0.1, 0.6]), 0.5
        >>> for _ in range(200):
        ...     relaxation.step(price - worth)  # of the loss sum(worth * (1 - mask)), and the price of each unit
        >>> relaxation.kept
        tensor([ True, False,  True])
    """

    def __init__(self, theta: Tensor, *, cold: float, warm: float, rate: float, momentum: float) -> None:
        self.theta, self.velocity = theta.detach().clone(), torch.zeros_like(theta)
        self._cold, self._warm, self._rate, self._momentum = cold, warm, rate, momentum
        self._bound = max([4 * warm, *theta.abs().flatten().tolist()])

    @property
    def mask(self) -> Tensor:
        """What units are multiplied by, ``(units,)``, in 0..1."""
        return torch.sigmoid(self.theta / self._cold)

    @property
    def kept(self) -> Tensor:
        """Which units stay, ``(units,)``."""
        return self.theta > 0

    def direction(self, gradient: Tensor) -> Tensor:
        """Return the two-temperature gradient by ``theta``, ``(units,)``.

        Args:
            gradient: of the loss and the price by the mask, where that is the cold one, ``(units,)``.
        """
        warm = torch.sigmoid(self.theta / self._warm)
        return gradient * warm * (1 - warm) / self._warm

    def step(self, gradient: Tensor) -> None:
        """Take a step of gradient descent with momentum, and stay within bounds.

        Args:
            gradient: see ``direction``.
        """
        self.velocity = self._momentum * self.velocity + self.direction(gradient)
        self.theta = (self.theta - self._rate * self.velocity).clamp(-self._bound, self._bound)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the numbers and the last step."""
        return {"theta": self.theta.clone(), "velocity": self.velocity.clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up numbers from before."""
        self.theta, self.velocity = (state[name].to(self.theta, copy=True) for name in ("theta", "velocity"))
