"""Conversion: compactors are folded in, the rows that are gone are cut out, and what that changes is measured."""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed, nn
from torch.optim import Optimizer

from cutback.errors import NotEquivalent
from cutback.graph.clone import parameters_by_name, random_state_kept, set_training
from cutback.graph.graph import Graph
from cutback.graph.inputs import tensors_in
from cutback.graph.unwrap import unwrapped
from cutback.methods.absorbing import absorbed
from cutback.methods.resrep.folding import Mixed, folded_in
from cutback.methods.resrep.targets import Target
from cutback.planning.plan import Plan
from cutback.scores.data import device_of
from cutback.surgery.running import exact

TOLERANCE = 1e-4
"""How far folding may move outputs, as a share of the largest: what rounding does is far below."""
_ROUNDINGS = 50
"""In half precision it may be so many of its steps."""


def models_of(graph: Graph, copies: Iterable[nn.Module]) -> tuple[nn.Module, list[nn.Module]]:
    """Return the model, and what is inside its copies."""
    inner = [unwrapped(copied) for copied in copies]
    return graph.model, [unwrapped(getattr(copied, "module", copied)) for copied in inner]


class Conversion:
    """Folding, absorbing what rows of zero still make behind an activation, and the cut.

    Args:
        graph: the traced model, with compactors.
        models: the model, and what is inside its copies.
        every: what is folded, where.
        stays: which rows of each target stay.
    """

    def __init__(
        self,
        graph: Graph,
        models: tuple[nn.Module, Sequence[nn.Module]],
        every: Sequence[Mixed],
        stays: Mapping[Target, NDArray[np.bool_]],
    ) -> None:
        self._graph, self._models, self._every = graph, [models[0], *models[1]], every
        self._zero = {
            f"{pair.norm}.{name}": torch.from_numpy(np.flatnonzero(~own))
            for target, own in stays.items()
            for pair in target.pairs
            for name in ("weight", "bias")
        }

    def carry_out(self, plan: Plan, *, take_out: Callable[[], None], cut: Callable[[Plan], None]) -> float:
        """Convert the model; on an error it is as it was, without compactors.

        Args:
            plan: without the rows that are gone.
            take_out: takes the compactors out.
            cut: makes the cut, proven.

        Returns:
            The largest change of an output on the example inputs, as a share of the largest output.

        Raises:
            NotEquivalent: the folded model does not compute what it did with compactors.
            CutbackError: see ``cutback.apply_``.
        """
        share_(buffer for model in self._models for buffer in model.buffers() if buffer.is_floating_point())
        share_(mixed.variance for mixed in self._every)
        before = _outputs(self._graph)
        take_out()
        with folded_in(self._models, self._every):
            error = _change(before, _outputs(self._graph))
            steps = [torch.finfo(own.dtype).eps for own in before if own.is_floating_point()]
            if not error <= max([TOLERANCE, *(_ROUNDINGS * step for step in steps)]):
                raise NotEquivalent(
                    f"with the compactors folded in the outputs differ by {error:.2g} of their size on the example "
                    "inputs: forward does not use the batch norms as it did when the model was traced"
                )
            with ExitStack() as stack:
                graphs = [replace(self._graph, model=model) for model in self._models]
                dropped = {n for each in graphs for n in stack.enter_context(absorbed(each, plan, self._zero))}
                cut(plan)
        if dropped:
            warnings.warn(
                f"what rows of zero make behind an activation was dropped where {', '.join(sorted(dropped))} read it: "
                "these have neither a bias nor a batch norm of their own behind them",
                stacklevel=6,
            )
        return _change(before, _outputs(self._graph))

    def forget_(self, optimizers: Iterable[Optimizer]) -> None:
        """Let optimisers forget what they know of parameters that were folded: they are others now."""
        owners = {path for mixed in self._every for path in (mixed.pair.convolution, mixed.pair.norm)}
        parameters = parameters_by_name(self._graph.model)
        folded = [parameter for name, parameter in parameters.items() if name.rpartition(".")[0] in owners]
        for optimizer in optimizers:
            for parameter in folded:
                optimizer.state.pop(parameter, None)


def share_(tensors: Iterable[Tensor]) -> None:
    """Give all processes what the first one has: running statistics are each one's own until the next pass."""
    if distributed.is_available() and distributed.is_initialized():
        for tensor in tensors:
            distributed.broadcast(tensor, 0)


def _outputs(graph: Graph) -> list[Tensor]:
    """Return what the model puts out for the example inputs, in eval mode."""
    model, inputs = graph.model, graph.inputs
    modes = set_training(model, False)
    try:
        with torch.no_grad(), random_state_kept(), exact([device_of(graph)]):
            return [tensor.clone() for tensor in tensors_in(model(*inputs.positional, **inputs.keyword))]
    finally:
        set_training(model, modes)


def _change(before: Sequence[Tensor], after: Sequence[Tensor]) -> float:
    """Return the largest difference as a share of the largest value before."""
    size = max((float(own.abs().max()) for own in before if own.is_floating_point()), default=0.0) or 1.0
    pairs = [pair for pair in zip(before, after, strict=True) if pair[0].is_floating_point()]
    return max((float((one - two).abs().max()) for one, two in pairs), default=0.0) / size
