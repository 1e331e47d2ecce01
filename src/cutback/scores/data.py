"""Reading batches, and summing what processes have found in theirs."""

from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import Tensor, distributed

from cutback.errors import UserMistake
from cutback.graph.clone import parameters_by_name
from cutback.graph.graph import Graph
from cutback.graph.inputs import Inputs


def batches_of(graph: Graph, loader: object) -> Iterator[tuple[Inputs, object]]:
    """Yield what the model is called with and the labels of each batch, on the model's device.

    Args:
        graph: the traced model.
        loader: an iterable of batches ``(inputs, labels)``; inputs are what ``cutback.trace`` takes. A tensor or a dict
            by itself is a batch without labels, for which ``None`` comes.

    Raises:
        UserMistake: the loader or a batch is something else.
    """
    if not isinstance(loader, Iterable):
        kind = type(loader).__name__
        raise UserMistake(f"the loader is {kind}, no iterable; pass batches (inputs, labels), such as a DataLoader")
    device = device_of(graph)
    for batch in loader:
        pair = isinstance(batch, tuple | list) and len(batch) == 2
        if not pair and not isinstance(batch, Tensor | Mapping):
            length = f" of {len(batch)} items" if isinstance(batch, tuple | list) else ""
            raise UserMistake(f"the loader yields {type(batch).__name__}{length}; let it yield (inputs, labels)")
        given, labels = batch if pair else (batch, None)
        moved = labels.to(device) if isinstance(labels, Tensor) else labels
        yield Inputs.of(given).map(lambda tensor: tensor.to(device)), moved


def loss_of(loss: Callable[..., Tensor], outputs: object, labels: object) -> Tensor:
    """Return the loss of a batch.

    Raises:
        UserMistake: it is no scalar.
    """
    found: object = loss(outputs, labels)
    if not isinstance(found, Tensor) or found.numel() != 1:
        shape = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise UserMistake(f"loss(outputs, labels) gave {shape}; return a scalar tensor, averaged over the batch")
    return found.sum()


def device_of(graph: Graph) -> torch.device:
    """Return the device of a graph's model."""
    return next((tensor.device for tensor in parameters_by_name(graph.model).values()), torch.device("cpu"))


def over_ranks(tensor: Tensor, how: str = "sum") -> Tensor:
    """Return a tensor put together over the processes that train together; itself where there is only one.

    Args:
        tensor: of one shape in all of them.
        how: ``sum``, ``min`` or ``max``.
    """
    if not distributed.is_available() or not distributed.is_initialized():
        return tensor
    operations = {"sum": distributed.ReduceOp.SUM, "min": distributed.ReduceOp.MIN, "max": distributed.ReduceOp.MAX}
    result = tensor.clone()
    distributed.all_reduce(result, operations[how])
    return result


def seen(samples: int, device: torch.device | str = "cpu") -> int:
    """Return how many samples all processes have seen.

    Args:
        samples: how many this one has.
        device: a device that the processes can exchange tensors of.

    Raises:
        UserMistake: they have seen none.
    """
    total = int(over_ranks(torch.tensor(samples, device=device)))
    if not total:
        raise UserMistake(
            "the loader gave no batch; pass one that yields (inputs, labels) each time it is iterated, such as a list "
            "or a DataLoader (a generator is empty the second time)"
        )
    return total
