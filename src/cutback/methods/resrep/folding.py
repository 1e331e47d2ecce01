"""Folding: convolution, batch norm and compactor written as one convolution and one batch norm of the same classes.

X. Ding et al., ICCV 2021, section 3.4, equations 5 to 9, but that the paper leaves a bias in the place of the norm.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn

from cutback.graph.clone import state_tensors


@dataclass(frozen=True)
class Pair:
    """A convolution and the batch norm behind it, by their modules' paths."""

    convolution: str
    norm: str


@dataclass(frozen=True, eq=False)
class Mixed:
    """What is to be folded into a pair.

    Attributes:
        pair: where.
        matrix: the compactor's weight ``(C, C)``.
        variance: of each of the compactor's outputs, ``(C,)``, as a batch norm estimates it.
    """

    pair: Pair
    matrix: Tensor
    variance: Tensor


def folded(states: Mapping[str, Tensor], mixed: Mixed, epsilon: float) -> dict[str, Tensor]:
    """Return the values, in double precision, with which the pair alone puts out what the compactor does behind it.

    With ``A = Q diag(gamma / sigma)``, ``Q (gamma (K * x + b - mu) / sigma + beta) = A K * x + A b - A mu + Q beta``.
    Every filter is a mixture of all the former ones. The batch norm becomes one of scale ``sqrt(v + epsilon)`` and
    running variance ``v``, so that it scales nothing in eval mode, and in train mode as little as ``v`` is right.

    Args:
        states: parameters and buffers of the model, by name.
        mixed: the pair, and what is folded into it.
        epsilon: that of the batch norm.
    """
    convolution, norm = mixed.pair.convolution, mixed.pair.norm
    matrix, kernel = mixed.matrix.double(), states[f"{convolution}.weight"].double()
    scale, shift = states[f"{norm}.weight"].double(), states[f"{norm}.bias"].double()
    mean, variance = states[f"{norm}.running_mean"].double(), states[f"{norm}.running_var"].double()
    through = matrix * (scale / (variance + epsilon).sqrt())
    found = {
        f"{convolution}.weight": (through @ kernel.flatten(1)).view_as(kernel),
        f"{norm}.weight": (mixed.variance.double() + epsilon).sqrt(),
        f"{norm}.bias": matrix @ shift,
        f"{norm}.running_mean": through @ mean,
        f"{norm}.running_var": mixed.variance.double(),
    }
    bias = states.get(f"{convolution}.bias")
    return found if bias is None else {**found, f"{convolution}.bias": through @ bias.double()}


@contextmanager
def folded_in(models: Sequence[nn.Module], every: Sequence[Mixed]) -> Iterator[None]:
    """Fold compactors into models for a cut that is made inside the block; if that fails, undo it.

    Args:
        models: the model and its copies, without compactors.
        every: what is folded.
    """
    before: list[tuple[Tensor, Tensor]] = []
    try:
        for model in models:
            states = {name: tensor.detach() for name, tensor in state_tensors(model).items()}
            for mixed in every:
                for name, value in folded(states, mixed, model.get_submodule(mixed.pair.norm).eps).items():
                    before.append((states[name], states[name].clone()))
                    states[name].copy_(value)
        yield
    except BaseException:
        for tensor, value in reversed(before):
            if tensor.shape == value.shape:  # not where the cut was made, and what came after it failed
                tensor.copy_(value)
        raise
