"""Labels of parameters and buffers: one vector a sliced dimension, or one label an element."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cutback.graph.labels import NONE, LabelStore

_LARGEST_ELEMENTWISE = 1 << 22


@dataclass(frozen=True)
class State:
    """A parameter or buffer as an operand, by qualified name."""

    name: str
    shape: torch.Size


class StateLabels:
    """The labels of all parameters and buffers, issued when first asked for and the same ever after.

    That the same weight gives the same labels wherever it is used is all there is to weight sharing.
    """

    def __init__(self, store: LabelStore) -> None:
        self._store = store
        self.vectors: dict[tuple[str, int], Tensor] = {}
        self.elements: dict[str, Tensor] = {}
        self.roles: dict[tuple[str, int], str] = {}
        self.blocks: dict[tuple[str, int], int] = {}
        self.consumed: set[tuple[str, int]] = set()

    def vector(self, state: State, dimension: int, role: str, blocks: int = 1) -> Tensor:
        """Return the labels of the slices of a state along one dimension; shape ``(state.shape[dimension] * blocks,)``.

        Args:
            state: the parameter or buffer.
            dimension: the sliced dimension.
            role: what a slice is, see ``Slot``.
            blocks: into how many equal blocks the first dimension falls, each with slices of its own along this one
                (the weight of a grouped convolution).

        Raises:
            ValueError: another call has other blocks in mind.
        """
        key = (state.name, dimension)
        if key not in self.vectors:
            self.vectors[key] = self._store.fresh(state.shape[dimension] * blocks)
            self.roles[key] = role
            self.blocks[key] = blocks
        if self.blocks[key] != blocks:
            raise ValueError(f"{state.name} is used with {self.blocks[key]} groups elsewhere and with {blocks} here")
        if role == "column":
            self.consumed.add(key)
        return self.vectors[key]

    def adopted(self, state: State, dimension: int, role: str, blocks: int, labels: Tensor) -> bool:
        """Take labels for those of a state's slices if none are issued yet, which saves issuing and uniting them.

        Args:
            state: the parameter or buffer.
            dimension: the sliced dimension.
            role: see ``vector``.
            blocks: see ``vector``.
            labels: the labels that the slices go with, one a slice; where they are not, the answer is no.
        """
        key = (state.name, dimension)
        fits = labels.dim() == 1 and len(labels) == state.shape[dimension] * blocks and labels.stride(0) != 0
        if key in self.vectors or not fits or not bool(labels.all()):  # ``NONE`` is zero
            return False
        self.vectors[key], self.roles[key], self.blocks[key] = labels, role, blocks
        if role == "column":
            self.consumed.add(key)
        return True

    def each(self, state: State) -> Tensor | None:
        """Return one label an element, in the shape of the state; ``None`` if it is too large for that."""
        if not state.shape:
            return torch.tensor(NONE)
        if len(state.shape) == 1:
            return self.vector(state, 0, "element")
        if state.shape.numel() > _LARGEST_ELEMENTWISE:
            return None
        if state.name not in self.elements:
            self.elements[state.name] = self._store.fresh(state.shape.numel()).view(state.shape)
        return self.elements[state.name]

    def all_of(self, state: State) -> list[Tensor]:
        """Return every label tensor of a state, for keeping it whole."""
        known = {d: self.vectors.get((state.name, d)) for d in range(len(state.shape))}
        found = [self.vector(state, d, "element") if labels is None else labels for d, labels in known.items()]
        return [*found, self.elements[state.name]] if state.name in self.elements else found
