"""The course of the scores: means over minibatches, smoothed from one removal to the next."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from cutback.errors import InvalidScore, UserMistake
from cutback.graph.graph import Graph
from cutback.planning.plan import Plan
from cutback.scores.gradient import joined


class Importance:
    """``c_t``, the mean over minibatches of what each says, and ``a_t = rho a_{t-1} + (1 - rho) c_t``, ``a_1 = c_1``.

    Args:
        momentum: ``rho``.

    Attributes:
        count: how many minibatches have counted since the last removal.
    """

    def __init__(self, momentum: float) -> None:
        self._momentum = momentum
        self.count = 0
        self._samples = 0
        self._total: Tensor | None = None
        self._smoothed: Tensor | None = None

    def add(self, samples: int, values: Tensor, *, scaled: bool) -> None:
        """Add a minibatch. One of fewer samples than the first does not count: the square of a mean depends on them.

        Args:
            samples: how many it has.
            values: what it says of each unit, ``(units,)``.
            scaled: whether the loss was scaled: then what is not finite was scaled too far, and does not count.

        Raises:
            UserMistake: it has more samples than the first, or the loss has reached no gate.
            InvalidScore: it says something that is not a number.
        """
        total = float(values.sum())
        if not math.isfinite(total):
            if scaled:
                return
            raise InvalidScore(
                "the derivative of the loss by a gate is not finite: training has diverged; lower the learning rate"
            )
        if not total:
            raise UserMistake(
                "no gradient has reached the gates: the derivative of the loss by each of them is zero; compute the "
                "loss from the outputs of this model and from labels, and call backward() inside the with block"
            )
        self._samples = self._samples or samples
        if samples > self._samples:
            raise UserMistake(
                f"a minibatch of {samples} samples follows others of {self._samples}; squared derivatives of means "
                "over so different numbers cannot be averaged: let all be of one size, except for smaller last ones"
            )
        if samples == self._samples:
            self._total = values if self._total is None else self._total + values
            self.count += 1

    def closed(self, found: Tensor | None = None) -> Tensor:
        """Return the smoothed scores ``(units,)`` and begin the next mean.

        Args:
            found: the scores of this removal, where they are no means over minibatches.
        """
        mean = self._total / self.count if found is None and self._total is not None else found
        if mean is None:
            raise AssertionError("no minibatch has counted")
        before = self._smoothed
        self._smoothed = mean if before is None else self._momentum * before + (1 - self._momentum) * mean
        self._total, self.count = None, 0
        return self._smoothed

    def follow(self, plan: Plan, graph: Graph) -> None:
        """Keep the scores of the units that a cut has left.

        Args:
            plan: the cut; its groups are those that the scores are of.
            graph: the trace of the cut model. A group that is down to one unit is none any more.
        """
        if self._smoothed is None:
            return
        before = self._smoothed.split([group.total for group in plan.groups])
        left = [(group.layers, values[list(group.kept)]) for group, values in zip(plan.groups, before, strict=True)]
        found: dict[str, Tensor] = {}
        for group in graph.groups:
            wanted = (group.layers, group.units)
            like = next((n for n, (layers, own) in enumerate(left) if (layers, len(own)) == wanted), None)
            found[group.name] = before[0].new_zeros(group.units) if like is None else left.pop(like)[1]
        self._smoothed = joined(found, graph)

    def state_dict(self) -> dict[str, Any]:
        """Return all that is needed to go on."""
        tensors = {"total": self._total, "smoothed": self._smoothed}
        kept = {name: None if tensor is None else tensor.cpu().clone() for name, tensor in tensors.items()}
        return {"count": self.count, "samples": self._samples, **kept}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Take up a state from before."""
        self.count, self._samples = int(state["count"]), int(state["samples"])
        self._total, self._smoothed = (
            None if state[name] is None else state[name].to(device).clone() for name in ("total", "smoothed")
        )
