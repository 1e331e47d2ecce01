"""What a network's answer is worth, picture by picture (Tang 2023; sheet of the log-odds: see the README)."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

CAP = 13.8
"""Highest log-odds: a probability of 1 - 1e-6."""


def log_probability(logits: Tensor, labels: Tensor) -> Tensor:
    """Return ``log P(true class)`` of each picture, (N,), given logits (N, classes) and labels (N,)."""
    return log_softmax(logits.double(), 1).gather(1, labels[:, None])[:, 0]


def log_odds(logits: Tensor, labels: Tensor) -> Tensor:
    """Return ``log P - log(1 - P)`` of the true class of each picture, at most ``CAP``, (N,)."""
    values = logits.double()
    true = values.gather(1, labels[:, None])[:, 0]
    others = values.scatter(1, labels[:, None], float("-inf"))
    return (true - torch.logsumexp(others, 1)).clamp(max=CAP)


WORTHS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {"log-probability": log_probability, "log-odds": log_odds}
"""The published worth, and the one that interactions are compared in."""
