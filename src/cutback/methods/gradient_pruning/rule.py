"""The rule: small gradients become zero or the threshold, by chance, so that nothing is lost on average.

X. Ye et al., "Accelerating CNN Training by Pruning Activation Gradients", ECCV 2020. Gradients are taken for normal; a
threshold of ``k`` standard deviations has a share ``p`` of them below it.
"""

import math
from statistics import NormalDist

import torch
from torch import Tensor

SAMPLED = 4096
"""So many entries that are not zero settle a calibrated threshold."""
_HALVINGS = 50
_NORMAL = NormalDist()


def deviations(rate: float) -> float:
    """Return ``k``: a share ``rate`` of a normal distribution lies within so many standard deviations of its mean.

    Example:
        >>> round(deviations(0.9), 4)
        1.6449
    """
    return _NORMAL.inv_cdf((1 + rate) / 2)


def normal_zeros(rate: float) -> float:
    """Return the share of zeros that normal gradients have after pruning: less than ``rate``, as some are raised.

    It is ``z(k) = 2 Phi(k) - 1 - (2 / k) (phi(0) - phi(k))``.

    Args:
        rate: the share that lies below the threshold.

    Example:
        >>> [round(normal_zeros(rate), 4) for rate in (0.5, 0.9, 0.99)]
        [0.2593, 0.5403, 0.6915]
    """
    k = deviations(rate)
    return 2 * _NORMAL.cdf(k) - 1 - 2 / k * (_NORMAL.pdf(0) - _NORMAL.pdf(k))


def pruned(gradient: Tensor, threshold: Tensor, draws: Tensor) -> Tensor:
    """Return a gradient whose entries below a threshold are zero or at the threshold: the latter at ``|g| / t``.

    Whatever the threshold, the mean over all draws is the gradient itself.

    Args:
        gradient: any shape.
        threshold: a scalar, or one that is broadcast to it.
        draws: uniform in 0..1, of the gradient's shape.

    Example:
        >>> gradient = torch.tensor([0.5, -0.5, -3.0])
        >>> pruned(gradient, torch.tensor(2.0), torch.tensor([0.2, 0.3, 0.9]))
        tensor([ 2.,  0., -3.])
    """
    limit = threshold.to(gradient.dtype)  # the value that entries are raised to is the one they are drawn by
    sizes = gradient.abs()
    raised = torch.where(sizes > draws * limit, limit.copysign(gradient), 0)
    return torch.where(sizes < limit, raised, gradient)


def spread(gradient: Tensor, estimate: str, channel: int | None = None) -> Tensor:
    """Return the standard deviation of the entries that are not zero, a scalar, or one for each channel.

    Args:
        gradient: any shape.
        estimate: ``mean-absolute``: ``sqrt(pi / 2)`` times the mean absolute value, which is that of a normal
            distribution about zero. ``standard-deviation``: of the entries as they are.
        channel: the dimension that has its own figure for each index; ``None`` for one of all entries.
    """
    values = gradient.float() if gradient.dtype in (torch.float16, torch.bfloat16) else gradient
    over = [d for d in range(values.dim()) if d != channel]
    count = (values != 0).sum(over, keepdim=channel is not None).clamp_min(1)
    if estimate == "mean-absolute":
        return values.abs().sum(over, keepdim=channel is not None) / count * math.sqrt(math.pi / 2)
    mean = values.sum(over, keepdim=channel is not None) / count
    return (values.square().sum(over, keepdim=channel is not None) / count - mean.square()).clamp_min(0).sqrt()


def calibrated(gradient: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Return the threshold with which a share of the entries that are not zero becomes zero, whatever their law.

    It solves ``mean(max(0, 1 - |g| / t)) = share`` by bisection on a sample. A scalar; 0 where all entries are zero.

    Args:
        gradient: any shape.
        share: of zeros, at least 0 and below 1.
        generator: draws the sample, where there are more than 4,096 entries.
    """
    sizes = gradient.abs().flatten()
    sizes = sizes[sizes > 0].double()
    if not len(sizes):
        return gradient.new_zeros(())
    if len(sizes) > SAMPLED:
        sizes = sizes[torch.randint(len(sizes), (SAMPLED,), generator=generator, device=sizes.device)]
    low, high = torch.zeros_like(sizes[0]), sizes.mean() / (1 - share)  # with which at least the share becomes zero
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        enough = (1 - sizes / middle).clamp_min(0).mean() >= share
        low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)
    return high
