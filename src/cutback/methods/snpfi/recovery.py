"""Recovery without training: consumers are solved so that random coalitions answer as in the original network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from cutback.gates.following import normalised
from cutback.graph.capture import operator_of
from cutback.graph.clone import state_tensors
from cutback.graph.graph import Graph
from cutback.graph.numbers import arguments_of
from cutback.methods.snpfi.calibration import Calibration
from cutback.methods.snpfi.unfolding import Watch, unfolded
from cutback.scores.data import over_ranks
from cutback.surgery.columns import Columns

MOST = 8192
"""A layer that is given more inputs (channels times kernel elements) is left as it is: its system would not fit."""


@dataclass(frozen=True)
class Objective:
    """What is minimised: the error on coalitions in which filters are there at random.

    Attributes:
        rho: how often two filters are there together for once that one is; 2/3 if all sizes are equally frequent, 1 for
            the whole layer alone, which is plain least squares.
        ridge: penalty on the change of weights, as a share of the mean squared input.
    """

    rho: float
    ridge: float


@dataclass(eq=False)
class Sums:
    """Sums over rows, in double precision.

    Attributes:
        own: of products of the cut layer's inputs with each other, ``(inputs, inputs)``.
        across: with those of the original layer, ``(inputs, inputs before)``.
        mean: of the cut layer's inputs, ``(inputs,)``.
        mean_before: of the original layer's, ``(inputs before,)``.
        rows: how many.
    """

    own: Tensor
    across: Tensor
    mean: Tensor
    mean_before: Tensor
    rows: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))

    def add(self, now: Tensor, before: Tensor) -> None:
        """Take in rows of both layers, ``(rows, inputs)`` and ``(rows, inputs before)``."""
        now, before = now.double(), before.double()
        self.own += now.T @ now
        self.across += now.T @ before
        self.mean += now.sum(0)
        self.mean_before += before.sum(0)
        self.rows += len(now)

    def averaged(self) -> "Sums":
        """Return the means over the rows of all processes."""
        count = over_ranks(self.rows.to(self.own.device))
        means = (over_ranks(part) / count for part in (self.own, self.across, self.mean, self.mean_before))
        return Sums(*means, rows=count)


def recovered_(
    dense: Graph,
    cut: Graph,
    columns: Mapping[str, Columns],
    joined: Mapping[int, NDArray[np.int64]],
    pictures: Calibration,
    objective: Objective,
) -> tuple[list[str], dict[str, str]]:
    """Change the weights that consume what was cut, in place and from the front.

    For the inputs that stay, ``a_k``, and the contribution ``t_(k)`` that the original layer receives from the union of
    filters that ``k`` stands for, less the one it receives in the cut layer, the change ``delta`` solves
    ``(rho G + (1 - rho) blockdiag(G) + ridge) delta = rho A' t + (1 - rho) [A_k' t_(k)]``. What is left on average goes
    into the bias, or the running mean of the batch norm behind.

    Args:
        dense: the network before the cut, in eval mode.
        cut: the network after it, in eval mode.
        columns: the inputs that weights have lost.
        joined: for each group, by number, the place of the unit that stays which each unit belongs to.
        pictures: the calibration pictures.
        objective: what is minimised.

    Returns:
        The names of the weights that were changed, and of those that were not, with the reason of each.
    """
    done: list[str] = []
    skipped: dict[str, str] = {}
    watches = Watch(dense), Watch(cut)
    used = [watch.weights(pictures.batches[0][0]) for watch in watches]
    for name in columns:
        if any(name not in names for names in used):
            skipped[name] = "no call uses it as a weight"
    with torch.no_grad():
        for name in used[0]:
            if name not in columns or name in skipped:
                continue
            blocks = Blocks(columns[name], joined, state_tensors(cut.model)[name], state_tensors(dense.model)[name])
            reason = _solve_(cut, blocks, _sums(watches, blocks, pictures), objective)
            if reason:
                skipped[name] = reason
            else:
                done.append(name)
    return done, skipped


class Blocks:
    """The weights of one layer before and after a cut, and which unit each input belongs to.

    Only the inputs of groups that were cut take part: what comes from elsewhere stays as it is.

    Args:
        columns: the layer's inputs.
        joined: see ``recovered_``.
        weight: as it is now, ``(outputs, inputs, ...)``.
        dense: as it was.
    """

    def __init__(
        self, columns: Columns, joined: Mapping[int, NDArray[np.int64]], weight: Tensor, dense: Tensor
    ) -> None:
        self.state, self.weight = columns.state, weight
        self._kernel = int(np.prod(weight.shape[2:], initial=1))
        before = [c for c, group in enumerate(columns.group.tolist()) if group in joined]
        after = [place for place, c in enumerate(columns.kept.tolist()) if columns.group[c] in joined]
        label = {c: (columns.group[c], int(joined[columns.group[c]][columns.unit[c]])) for c in before}
        numbers = {key: number for number, key in enumerate(dict.fromkeys(label.values()))}
        owner = np.array([numbers[label[c]] for c in before], dtype=np.int64)
        own = np.array([numbers[label[int(columns.kept[place])]] for place in after], dtype=np.int64)
        self.before, self.after = self._elements(before), self._elements(after)
        self.unit_before, self.unit = np.repeat(owner, self._kernel), np.repeat(own, self._kernel)
        self.dense_rows = columns.of_dense(dense).flatten(1)[:, self.before.to(dense.device)].double()

    @property
    def rows(self) -> Tensor:
        """The weights as they are now, ``(outputs, inputs)``."""
        return self.weight.flatten(1)[:, self.after.to(self.weight.device)].double()

    def add_(self, change: Tensor) -> None:
        """Add to the weights, ``(outputs, inputs)``."""
        flat = torch.zeros_like(self.weight.flatten(1))
        flat[:, self.after.to(flat.device)] = change.to(flat.dtype)
        self.weight.add_(flat.view_as(self.weight))

    def empty(self) -> Sums:
        """Return sums of nothing."""
        device, now, before = self.weight.device, len(self.after), len(self.before)
        shapes = (now, now), (now, before), (now,), (before,)
        return Sums(*(torch.zeros(shape, dtype=torch.float64, device=device) for shape in shapes))

    def _elements(self, columns: Sequence[int]) -> Tensor:
        """Return the places of columns' kernel elements in flattened weights."""
        places = np.array(columns, dtype=np.int64)[:, None] * self._kernel + np.arange(self._kernel)
        return torch.from_numpy(places.reshape(-1))


def solved(sums: Sums, blocks: Blocks, objective: Objective) -> Tensor:
    """Return the change of the weights, ``(outputs, inputs)``, in double precision.

    Args:
        sums: means over the rows.
        blocks: the weights.
        objective: what is minimised.
    """
    rho = objective.rho
    same = torch.from_numpy(blocks.unit[:, None] == blocks.unit[None]).to(sums.own.device)
    union = torch.from_numpy(blocks.unit[:, None] == blocks.unit_before[None]).to(sums.own.device)
    together = torch.where(same, sums.own, rho * sums.own)
    wanted = torch.where(union, sums.across, rho * sums.across) @ blocks.dense_rows.T - together @ blocks.rows.T
    penalty = objective.ridge * sums.own.diagonal().mean()
    penalty = torch.where(penalty > 0, penalty, 1.0)
    system = together + penalty * torch.eye(len(together), dtype=torch.float64, device=together.device)
    return torch.linalg.solve(system, wanted).T


def _sums(watches: tuple[Watch, Watch], blocks: Blocks, pictures: Calibration) -> Sums | str:
    """Return the means over all rows, or why there are none."""
    if len(blocks.after) > MOST:
        return f"it has {len(blocks.after)} inputs, more than {MOST}"
    sums = blocks.empty()
    for inputs, _ in pictures.batches:
        seen: list[list[Tensor | None]] = [[], []]
        for watch, held in zip(watches, seen, strict=True):

            def see(_: str, node: fx.Node, arguments: Mapping[str, Any], held: list[Tensor | None] = held) -> None:
                held.append(unfolded(node, arguments))

            watch.run(inputs, [blocks.state], see)
        for before, now in zip(*seen, strict=True):
            if before is None or now is None or len(before) != len(now):
                return "it is no linear layer or convolution without groups, or of other sizes than before"
            sums.add(now[:, blocks.after.to(now.device)], before[:, blocks.before.to(before.device)])
    return sums.averaged()


def _solve_(cut: Graph, blocks: Blocks, sums: Sums | str, objective: Objective) -> str:
    """Change a layer in place; return why not, if not."""
    if isinstance(sums, str):
        return sums
    before = blocks.rows
    change = solved(sums, blocks, objective)
    if not bool(change.isfinite().all()):
        return "its inputs are not finite"
    wanted = blocks.dense_rows @ sums.mean_before - before @ sums.mean
    blocks.add_(change)
    _shift_(cut, blocks.state, wanted - change @ sums.mean)
    return ""


def _shift_(graph: Graph, weight: str, shift: Tensor) -> None:
    """Add to what a layer puts out, ``(outputs,)``: by its bias, else the running mean of the batch norm behind it."""
    states = state_tensors(graph.model)
    recorded = graph.captures[0]
    names = dict(zip(recorded.nodes, recorded.states, strict=False))
    for node in recorded.nodes:
        arguments = arguments_of(node) if node.op == "call_function" else {}
        if names.get(arguments.get("weight")) != weight:  # type: ignore[arg-type]
            continue
        bias = names.get(arguments.get("bias"))  # type: ignore[arg-type]
        if bias is not None:
            states[bias].add_(shift.to(states[bias].dtype))
            return
        norm = normalised(node, set(recorded.results[: recorded.outputs]))
        mean = None
        if norm is not None and operator_of(norm) == "aten::batch_norm":
            mean = names.get(arguments_of(norm).get("running_mean"))  # type: ignore[arg-type]
        if mean is not None:
            states[mean].sub_(shift.to(states[mean].dtype))
        return
