"""What scores that look at gradients share: a model to differentiate, its loss, and means over batches and processes.

All work on a copy of the model that shares the values of its parameters, so that gradients, statistics, modes and
random states of the model itself stay as they are, also after an exception. Losses are differentiated as they come:
they must average over the batch, as ``torch.nn.functional.cross_entropy`` does, for then ``N`` times what is read for
one of ``N`` samples is the derivative of that sample's own loss.

Models run in eval mode unless a score is made with ``training=True``, which normalises each batch by its own
statistics.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from cutback.errors import InvalidScore, UserMistake
from cutback.gates import Gates
from cutback.graph.clone import (
    ordinary,
    own_tensors,
    parameters_by_name,
    random_state_kept,
    set_training,
    state_tensors,
    structural_clone,
)
from cutback.graph.graph import Graph
from cutback.graph.inputs import Inputs
from cutback.scores.data import batches_of, loss_of, over_ranks, seen

Loss = Callable[[Any, Any], Tensor]
"""Of outputs and labels; a scalar, averaged over the batch."""


@dataclass(frozen=True)
class GradientScore:
    """What all scores of gradients are made with.

    Attributes:
        loader: batches ``(inputs, labels)``.
        loss: of outputs and labels; a scalar, averaged over the batch.
        training: run the model in train mode, on statistics of each batch.
    """

    loader: Iterable[object]
    loss: Loss
    training: bool = field(default=False, kw_only=True)


@contextmanager
def to_differentiate(graph: Graph, *, training: bool, learning: bool) -> Iterator[Graph]:
    """Yield the graph of a copy of its model, which shares the parameters' values and has buffers of its own.

    Args:
        graph: the traced model.
        training: its mode.
        learning: whether its parameters are differentiated by.
    """
    clone = structural_clone(graph.model)
    parameters = parameters_by_name(clone)
    values = {
        name: ordinary(state) if name in parameters else state.clone() for name, state in state_tensors(clone).items()
    }
    with random_state_kept(), torch.inference_mode(mode=False), torch.enable_grad():
        own_tensors(clone, values)
        for parameter in parameters_by_name(clone).values():
            parameter.requires_grad_(learning and parameter.is_floating_point())
        set_training(clone, training)
        yield replace(graph, model=clone)


def differentiable_loss(model: nn.Module, loss: Loss, inputs: Inputs, labels: object) -> Tensor:
    """Return the loss of a batch.

    Raises:
        UserMistake: it is no scalar, or does not depend on what the model computes.
    """
    found = loss_of(loss, model(*inputs.positional, **inputs.keyword), labels)
    if not found.requires_grad:
        raise UserMistake("loss(outputs, labels) has no gradient; compute it from the outputs, without detaching them")
    return found


def read_gates(
    score: GradientScore, graph: Graph, site: str, see: Callable[[Mapping[str, list[Tensor]]], None]
) -> None:
    """Run a model over batches and show what its gates read.

    Args:
        score: says of which batches, which loss, in which mode.
        graph: the traced model.
        site: of the gates, see ``cutback.gates``.
        see: receives for each batch, for each group and place, the derivative of the batch's loss by each sample's gate
            ``(N, units)``.

    Raises:
        UserMistake: a batch or its loss is none.
        Ungatable: a group has no place at the site.
    """
    with to_differentiate(graph, training=score.training, learning=False) as copy, Gates(copy, site) as gates:
        for inputs, labels in batches_of(copy, score.loader):
            loss = differentiable_loss(copy.model, score.loss, inputs, labels)
            torch.autograd.grad(loss, gates.roots, allow_unused=True)
            see(gates.take_apart())


def read_weights(score: GradientScore, graph: Graph, see: Callable[[int, Mapping[str, Tensor], Tensor], None]) -> None:
    """Run a model over batches, and show its parameters and the loss to differentiate by them.

    Args:
        score: says of which batches, which loss, in which mode.
        graph: the traced model.
        see: receives for each batch the number of samples, the parameters by name and the loss.

    Raises:
        UserMistake: a batch or its loss is none.
    """
    with to_differentiate(graph, training=score.training, learning=True) as copy:
        parameters = {name: p for name, p in parameters_by_name(copy.model).items() if p.requires_grad}
        for inputs, labels in batches_of(copy, score.loader):
            see(sample_count(inputs), parameters, differentiable_loss(copy.model, score.loss, inputs, labels))


def sample_count(inputs: Inputs) -> int:
    """Return how many samples a batch has: the length of its first tensor."""
    first = inputs.tensors()[0]
    return len(first) if first.dim() else 1


def places_of(graph: Graph, site: str, *, training: bool, groups: Sequence[str] | None = None) -> Mapping[str, int]:
    """Return at how many places of a site each group has gates in one mode; at least 1.

    Args:
        graph: the traced model.
        site: see ``cutback.gates``.
        training: the mode.
        groups: names of the groups that are looked at; all of them by default.
    """
    number = next((n for n, each in enumerate(graph.captures) if each.training == training), 0)
    places = Gates(graph, site, groups=groups, reading=False).places[number]
    return {group.name: max(1, sum(place.has([n]) for place in places)) for n, group in enumerate(graph.groups)}


def joined(values: Mapping[str, Tensor], graph: Graph) -> Tensor:
    """Return what there is for each group, ``(..., units)``, as one tensor, in double precision."""
    return torch.cat([values[group.name].double() for group in graph.groups], -1)


def parted(values: Tensor, graph: Graph) -> dict[str, Tensor]:
    """Return for each group its part of a tensor that holds all of them, ``(..., units)``."""
    parts = values.split([group.units for group in graph.groups], -1)
    return {group.name: part for group, part in zip(graph.groups, parts, strict=True)}


class BatchMean:
    """The mean over batches of something that is not linear in a batch's gradient, such as its square.

    Processes go in step: the gradients of their batches are averaged before anything is made of them, as if they were
    one larger batch; batches that others have no counterpart of are left out. Because what is made of them depends on
    the size of a batch, all must be of one size, except that the last may be smaller, and is left out then.

    Args:
        like: of the shape and device of a gradient.
        rate: makes something of the gradient of one step.
    """

    def __init__(self, like: Tensor, rate: Callable[[Tensor], Tensor]) -> None:
        self._zero, self._rate = torch.zeros_like(like, dtype=torch.float64), rate
        self._total = torch.zeros((), dtype=torch.float64, device=like.device)
        self._steps, self._first, self._last = 0, 0, False

    def add(self, size: int, gradient: Tensor) -> None:
        """Add a batch: how many samples it has, and its gradient.

        Raises:
            UserMistake: batches are of several sizes.
        """
        self._step(size, gradient)

    def mean(self) -> Tensor:
        """Return the mean, when this process has no more batches.

        Raises:
            UserMistake: there was no batch, or batches are of several sizes.
        """
        while self._step(0, self._zero):
            pass
        if not self._steps:
            raise UserMistake(
                "the loader gave no batch that counts; pass one that yields (inputs, labels) each time it is iterated, "
                "and to every process as many"
            )
        return self._total / self._steps

    def _step(self, size: int, gradient: Tensor) -> bool:
        """Go one step together with the other processes; say whether any of them had a batch."""
        sizes = over_ranks(torch.tensor([size, -size], device=self._zero.device), "max")
        largest, smallest = int(sizes[0]), -int(sizes[1])
        if not largest:
            return False
        self._first = self._first or largest
        if not smallest:  # some process has no more
            return True
        if self._last or largest > self._first:
            raise UserMistake(
                f"a batch of {largest} samples follows others of {self._first} or fewer; the square of a mean depends "
                "on how many it is of: let all batches be of one size, except that the last may be smaller"
            )
        if smallest < self._first:
            self._last = True
            return True
        ranks = int(over_ranks(torch.ones((), device=self._zero.device)))
        self._total = self._total + self._rate(over_ranks(gradient.double().contiguous()) / ranks)
        self._steps += 1
        return True


def differentiated(
    loss: Tensor, tensors: Sequence[Tensor], *, create_graph: bool = False, retain_graph: bool | None = None
) -> tuple[Tensor, ...]:
    """Return the derivatives of a loss by tensors, zero where it does not depend on one.

    Args:
        loss: a scalar.
        tensors: what it is differentiated by.
        create_graph: whether the derivatives are to be differentiated in turn.
        retain_graph: whether the loss is to be differentiated again; by default where ``create_graph`` is set.

    Raises:
        InvalidScore: some operator has no second derivative in PyTorch.
    """
    if not loss.requires_grad:  # a gradient that is constant has a Hessian of zeros
        return tuple(torch.zeros_like(tensor) for tensor in tensors)
    try:
        return torch.autograd.grad(
            loss,
            list(tensors),
            create_graph=create_graph,
            retain_graph=retain_graph,
            allow_unused=True,
            materialize_grads=True,
        )
    except RuntimeError as error:
        if "is not implemented" not in str(error):
            raise
        raise InvalidScore(
            f"PyTorch cannot differentiate this network twice ({error}); take a score of first derivatives, such as "
            "taylor or fisher"
        ) from error


def flattened(tensors: Iterable[Tensor]) -> Tensor:
    """Return the elements of tensors in one row, in double precision."""
    return torch.cat([tensor.detach().double().flatten() for tensor in tensors])


def unflattened(values: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take one row apart into tensors of the shapes of others."""
    parts = values.split([tensor.numel() for tensor in like.values()])
    return {name: part.view(tensor.shape) for (name, tensor), part in zip(like.items(), parts, strict=True)}


def mean_gradient(
    score: GradientScore, graph: Graph, weights: Mapping[str, Tensor], along: Tensor | None = None
) -> tuple[Tensor, int]:
    """Return the gradient of the mean loss over all samples of all processes, or its own derivative along a direction.

    Args:
        score: says of which batches, which loss, in which mode.
        graph: the traced model.
        weights: the parameters to differentiate by, by name.
        along: a direction in the space of these parameters, in one row; then the product of the Hessian with it is
            returned.

    Returns:
        The gradient in one row, in double precision, and the number of samples.

    Raises:
        UserMistake: there are no batches, or the loss is no scalar.
    """
    total, samples = torch.zeros_like(flattened(weights.values())), 0
    direction = None if along is None else unflattened(along, weights)

    def see(count: int, parameters: Mapping[str, Tensor], loss: Tensor) -> None:
        nonlocal total, samples
        chosen = [parameters[name] for name in weights]
        found = differentiated(loss, chosen, create_graph=direction is not None)
        if direction is not None:
            pairs = zip(found, direction.values(), strict=True)
            products = [(part * way.to(part.dtype)).sum() for part, way in pairs]
            found = differentiated(torch.stack(products).sum(), chosen)
        total, samples = total + count * flattened(found), samples + count

    with sdpa_kernel(SDPBackend.MATH) if along is not None else nullcontext():  # the others have no second derivative
        read_weights(score, graph, see)
    number = seen(samples, total.device)
    return over_ranks(total) / number, number
