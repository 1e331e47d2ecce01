"""The compactor: a square 1x1 convolution whose rows are what is pruned, and the rule its gradient follows.

X. Ding et al., "ResRep: Lossless CNN Pruning via Decoupling Remembering and Forgetting", ICCV 2021, section 3.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

_CONVOLUTIONS = {3: functional.conv1d, 4: functional.conv2d, 5: functional.conv3d}
_LEAST_NORM = 1e-12
"""A row of norm zero has no direction; its penalty is then zero."""


class Compactor(nn.Module):
    """A 1x1 convolution without bias, the identity at first.

    Args:
        channels: of the features that it mixes.
        like: a tensor on the device, and at least of the precision, that its weight is to have.

    Attributes:
        weight: ``(C, C)``; row ``j`` makes output channel ``j``.
        live: ``(C,)``; which rows still learn from the task. The gradient of the others is reset.

    Example:
        >>> compactor = Compactor(3, torch.zeros(1))
        >>> features = torch.randn(2, 3, 5, 5)
        >>> torch.equal(compactor(features), features)
        True
    """

    live: Tensor

    def __init__(self, channels: int, like: Tensor) -> None:
        super().__init__()
        kind = torch.promote_types(like.dtype, torch.float32)
        self.weight = nn.Parameter(torch.eye(channels, dtype=kind, device=like.device))
        self.register_buffer("live", torch.ones(channels, dtype=torch.bool, device=like.device))

    def forward(self, features: Tensor) -> Tensor:
        """Mix channels: ``(N, C, ...)`` with one to three dimensions behind the channels, to the same shape."""
        spatial = features.dim() - 2
        kernel = self.weight.to(features).reshape(*self.weight.shape, *[1] * spatial)
        return _CONVOLUTIONS[features.dim()](features, kernel)

    @property
    def norms(self) -> Tensor:
        """The Euclidean norm of each row, ``(C,)``: by these rows are ranked."""
        return self.weight.detach().double().norm(dim=1)

    @torch.no_grad()
    def reset_(self, strength: float) -> None:
        """Make of the task's gradient what the optimiser is given.

        Of row ``j`` that is ``m_j * dL/dQ_j + strength * Q_j / |Q_j|`` with ``m_j`` zero where the row is not live:
        what the task says is forgotten there, and the penalty, the gradient of a group Lasso, is on every row.

        Args:
            strength: of the penalty (the paper's lambda).
        """
        task = torch.zeros_like(self.weight) if self.weight.grad is None else self.weight.grad
        task = torch.where(self.live[:, None], task, 0.0)
        self.weight.grad = task + strength * self.weight / self.weight.norm(dim=1, keepdim=True).clamp_min(_LEAST_NORM)
