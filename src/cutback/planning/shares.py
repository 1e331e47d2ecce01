"""Shares by hand: how many units stay for what a user wrote."""

from fractions import Fraction

import numpy as np

from cutback.errors import InvalidBudget

Share = str | float | int
"""What stays of a layer: a share (``"90%"`` or ``0.9``) or a number of channels (``57``)."""


def share_of(units: int, width: int, wanted: Share) -> int:
    """Return how many units stay for a share (rounded down) or a number of channels; at least one.

    Args:
        units: how many there are.
        width: how many channels of the layer each stands for.
        wanted: as the user wrote it.

    Raises:
        InvalidBudget: it cannot be read, or asks for nothing or for more than there is.

    Example:
        >>> share_of(40, 1, "33%"), share_of(40, 1, 0.7), share_of(40, 2, 10)
        (13, 28, 5)
    """
    try:
        if isinstance(wanted, str) and wanted.strip().endswith("%"):
            share = Fraction(wanted.strip()[:-1]) / 100
        elif isinstance(wanted, int | np.integer) and not isinstance(wanted, bool):
            share = Fraction(int(wanted), units * width)
        else:
            # Limited, so that 1 - 0.9 is a tenth and not 0.09999999999999998.
            share = Fraction(str(wanted)).limit_denominator(10**9)
    except (ValueError, ZeroDivisionError) as error:
        raise InvalidBudget(
            f"cannot read keep={wanted!r}; write a share ('90%' or 0.9) or a number of channels"
        ) from error
    if not 0 < share <= 1:
        raise InvalidBudget(f"keep={wanted!r} must lie above 0 and at most at the {units * width} channels there are")
    return max(int(share * units), 1)
