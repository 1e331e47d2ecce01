"""Least squares by normal equations that are summed up batch by batch, in float64."""

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(eq=False)
class NormalEquations:
    """The change of a layer's weights that brings its outputs nearest to given ones, for each group of channels.

    For rows ``a`` of inputs and the errors ``e`` of the outputs, the change ``D`` and the intercept ``c`` minimise
    ``sum |e - a D - c|**2 + penalty * |D|**2``. Sums are kept of ``a``, ``e`` and their products only.

    Attributes:
        intercept: whether there is a ``c``.
        rows: how many rows came.
        squares: sum of ``a' a``, (groups, inputs, inputs).
        products: sum of ``a' e``, (groups, inputs, outputs).
        inputs: sum of ``a``, (groups, 1, inputs).
        errors: sum of ``e``, (groups, 1, outputs).
        error: sum of ``e**2``, a scalar.
    """

    intercept: bool
    rows: int = 0
    squares: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    products: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    inputs: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    errors: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    error: float = 0.0

    def add(self, inputs: Tensor, errors: Tensor) -> None:
        """Take in rows: inputs (groups, rows, inputs of an output) and errors (groups, rows, outputs of a group)."""
        a, e = inputs.double(), errors.double()
        self.rows += a.shape[1]
        self.squares = self.squares.to(a) + a.transpose(1, 2) @ a
        self.products = self.products.to(a) + a.transpose(1, 2) @ e
        self.inputs = self.inputs.to(a) + a.sum(1, keepdim=True)
        self.errors = self.errors.to(a) + e.sum(1, keepdim=True)
        self.error += float(e.square().sum())

    def solve(self, ridge: float) -> tuple[Tensor, Tensor, float]:
        """Return the change (groups, outputs, inputs), the intercept (groups, outputs) and the sum of squares left.

        Args:
            ridge: the penalty, as a share of the mean of ``a**2`` (around the mean of ``a`` where there is an
                intercept) times the rows.
        """
        squares, products, error = self.squares, self.products, self.error
        mean_inputs, mean_errors = self.inputs / self.rows, self.errors / self.rows
        if self.intercept:
            squares = squares - self.inputs.transpose(1, 2) @ mean_inputs
            products = products - self.inputs.transpose(1, 2) @ mean_errors
            error -= float((self.errors * mean_errors).sum())
        diagonal = squares.diagonal(dim1=1, dim2=2)
        penalty = ridge * diagonal.mean(1, keepdim=True)
        # Inputs that are constant everywhere get no weight, and do not stop the others from getting theirs.
        penalty = torch.where(penalty > 0, penalty, 1.0)
        change = torch.linalg.solve(squares + torch.diag_embed(penalty.expand_as(diagonal)), products)
        left = error - float((change * (2 * products - squares @ change)).sum())
        intercept = mean_errors - mean_inputs @ change if self.intercept else torch.zeros_like(mean_errors)
        return change.transpose(1, 2), intercept[:, 0], max(0.0, left)
