"""Budgets: what the result may cost, as users write it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from cutback.errors import InvalidBudget

QUANTITIES = ("macs", "params", "channels")
_SUFFIXES = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_WRITTEN = re.compile(r"\s*([a-z_]+)\s*=\s*([0-9]*\.?[0-9]+)\s*(%|[kKMGT]?)\s*")
_HOW = "write for example macs=50%, params=3M or channels=50%"


@dataclass(frozen=True)
class Budget:
    """An upper bound on one quantity.

    Attributes:
        quantity: ``macs`` (MACs at batch 1), ``params`` (elements of parameters) or ``channels`` (share of each group
            that stays).
        amount: a share of the dense network (between 0 and 1), or an absolute number.
        relative: whether ``amount`` is a share.
    """

    quantity: str
    amount: Fraction
    relative: bool

    def limit(self, dense: int) -> int:
        """Return the largest permitted figure, given the dense network's.

        Raises:
            InvalidBudget: the absolute budget is not below the dense figure, so nothing would be removed.
        """
        if self.relative:
            return int(self.amount * dense)
        if self.amount >= dense:
            raise InvalidBudget(
                f"budget {self} removes nothing: the dense network has {dense:,} {self.quantity}; ask for less"
            )
        return int(self.amount)

    def __str__(self) -> str:
        if self.relative:
            percent = self.amount * 100
            shown = str(int(percent)) if percent.denominator == 1 else f"{float(percent):g}"
            return f"{self.quantity}={shown}%"
        return f"{self.quantity}={float(self.amount):.15g}"


def parse_budgets(written: str | Sequence[str] | None) -> tuple[Budget, ...]:
    """Read one budget or several.

    Args:
        written: such as ``"macs=50%"`` or ``["macs=50%", "params=3M"]``.

    Raises:
        InvalidBudget: one cannot be read, asks for nothing or everything, or a quantity comes twice.

    Example:
        >>> [str(budget) for budget in parse_budgets(["macs=50%", "params=3M"])]
        ['macs=50%', 'params=3000000']
    """
    texts = () if written is None else (written,) if isinstance(written, str) else written
    if not isinstance(texts, Sequence):
        raise InvalidBudget(f"cannot read the budget {written!r}; {_HOW}")
    budgets = tuple(_parse(text) for text in texts)
    quantities = [budget.quantity for budget in budgets]
    twice = next((quantity for quantity in quantities if quantities.count(quantity) > 1), None)
    if twice:
        raise InvalidBudget(f"two budgets for {twice}: {', '.join(map(str, budgets))}; keep one")
    return budgets


def _parse(text: object) -> Budget:
    if isinstance(text, str) and re.match(r"\s*latency\b", text):
        raise InvalidBudget(f"budget {text!r}: latency budgets are not available yet; {_HOW}")
    match = _WRITTEN.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise InvalidBudget(f"cannot read the budget {text!r}; {_HOW}")
    quantity, number, unit = match.groups()
    if quantity not in QUANTITIES:
        raise InvalidBudget(f"no budget is called {quantity!r} in {text!r}; {_HOW}")
    relative = unit == "%"
    amount = Fraction(number) / 100 if relative else Fraction(number) * _SUFFIXES[unit]
    if relative and not 0 < amount < 1:
        raise InvalidBudget(f"budget {text!r} must lie between 0 % and 100 %: it is the share that stays; {_HOW}")
    if quantity == "channels" and not relative:
        raise InvalidBudget(f"budget {text!r} must be a share, for example channels=50%")
    if amount < 1 and not relative:
        raise InvalidBudget(
            f"budget {text!r} is less than one; for a share write {quantity}={float(amount):.0%}; {_HOW}"
        )
    return Budget(quantity, amount, relative)
