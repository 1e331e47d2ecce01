"""Budgets: what the result may cost, as users write it."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from cutback.errors import InvalidBudget
from cutback.graph.graph import Graph
from cutback.planning.cost import CostModel
from cutback.planning.quantity import Quantity, quantities, shown
from cutback.registry import near_misses

CHANNELS = "channels"
"""The quantity whose budget is a share of each group, not a figure of the network."""

_WRITTEN = re.compile(r"\s*([a-z_]+)\s*=\s*([0-9]*\.?[0-9]+)\s*(%|[A-Za-z]*)\s*")
_HOW = "write for example macs=50%, params=3M, memory=20MiB or channels=50%"


@dataclass(frozen=True)
class Budget:
    """An upper bound on one quantity.

    Attributes:
        quantity: the name of a registered quantity, such as ``macs`` (MACs at batch 1), ``params`` (elements of
            parameters) or ``channels`` (share of each group that stays).
        amount: a share of the dense network (between 0 and 1), or an absolute number.
        relative: whether ``amount`` is a share.
        measure: what makes the quantity for a graph, where that is not the registered one.
    """

    quantity: str
    amount: Fraction
    relative: bool
    measure: Callable[[Graph, CostModel], Quantity] | None = field(default=None, compare=False)

    def measured(self, graph: Graph, cost: CostModel) -> Quantity:
        """Return the quantity of a graph's network."""
        return (self.measure or quantities.get(self.quantity))(graph, cost)

    def limit(self, dense: int) -> int:
        """Return the largest permitted figure, given the dense network's.

        Raises:
            InvalidBudget: the absolute budget is not below the dense figure, so nothing would be removed; or the
                network has nothing of the kind.
        """
        if not dense:
            raise InvalidBudget(f"budget {self} bounds nothing: the dense network has no {self.quantity}; {_HOW}")
        if self.relative:
            return int(self.amount * dense)
        if self.amount >= dense:
            raise InvalidBudget(
                f"budget {self} removes nothing: the dense network has {shown(self.quantity, dense)} {self.quantity}; "
                "ask for less"
            )
        return int(self.amount)

    def __str__(self) -> str:
        if self.relative:
            percent = self.amount * 100
            share = str(int(percent)) if percent.denominator == 1 else f"{float(percent):g}"
            return f"{self.quantity}={share}%"
        kind = quantities.get(self.quantity)
        single = "" if "" in kind.units else next((unit for unit, factor in kind.units.items() if factor == 1), "")
        unit = kind.unit or single
        return f"{self.quantity}={float(self.amount / kind.units.get(unit, 1)):.15g}{unit}"


def parse_budgets(written: str | Budget | Sequence[str | Budget] | None) -> tuple[Budget, ...]:
    """Read one budget or several.

    Args:
        written: such as ``"macs=50%"`` or ``["macs=50%", "params=3M", "peak=8MiB"]``.

    Raises:
        InvalidBudget: one cannot be read, asks for nothing or everything, or a quantity comes twice.

    Example:
        >>> [str(budget) for budget in parse_budgets(["macs=50%", "params=3M", "size=5MB"])]
        ['macs=50%', 'params=3000000', 'size=5000000B']
    """
    texts = () if written is None else (written,) if isinstance(written, str | Budget) else written
    if not isinstance(texts, Sequence):
        raise InvalidBudget(f"cannot read the budget {written!r}; {_HOW}")
    budgets = tuple(text if isinstance(text, Budget) else _parse(text) for text in texts)
    given = [budget.quantity for budget in budgets]
    twice = next((quantity for quantity in given if given.count(quantity) > 1), None)
    if twice:
        raise InvalidBudget(f"two budgets for {twice}: {', '.join(map(str, budgets))}; keep one")
    return budgets


def _parse(text: object) -> Budget:
    match = _WRITTEN.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise InvalidBudget(f"cannot read the budget {text!r}; {_HOW}")
    quantity, number, unit = match.groups()
    kind = quantities.find(quantity)
    if kind is None:
        raise InvalidBudget(
            f"no budget is called {quantity!r} in {text!r}; {near_misses(quantity, list(quantities))}; {_HOW}"
        )
    if unit == "%":
        amount = Fraction(number) / 100
        if not 0 < amount < 1:
            raise InvalidBudget(f"budget {text!r} must lie between 0 % and 100 %: it is the share that stays; {_HOW}")
        return Budget(quantity, amount, relative=True)
    amount = Fraction(number) * kind.units.get(unit, 1)
    if not kind.units:
        raise InvalidBudget(f"budget {text!r} must be a share, for example {kind.example}")
    if amount < 1 and unit in ("", *kind.units):
        raise InvalidBudget(
            f"budget {text!r} is less than one; for a share write {quantity}={float(amount):.0%}; {_HOW}"
        )
    if unit not in kind.units:
        known = ", ".join(unit for unit in kind.units if unit)
        raise InvalidBudget(f"budget {text!r} has no unit of {quantity} ({known}); write for example {kind.example}")
    return Budget(quantity, amount, relative=False)
