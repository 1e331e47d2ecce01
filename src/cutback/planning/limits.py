"""How wide layers may be left: multiples, a least number of channels, and a largest share that goes."""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from cutback.errors import InvalidBudget


@dataclass(frozen=True)
class Limits:
    """What every layer that makes channels must meet.

    Attributes:
        round_to: widths that change become multiples of this.
        min_channels: so many channels stay.
        max_removed: at most this share of the channels goes.
    """

    round_to: int = 1
    min_channels: int = 1
    max_removed: Fraction = Fraction(1)

    def least(self, width: int) -> int:
        """Return how many of so many channels stay by ``max_removed``."""
        return width - int(self.max_removed * width)


def limits_of(round_to: object, min_channels: object, max_removed: object) -> Limits:
    """Read the limits as users write them.

    Args:
        round_to: a whole number of channels.
        min_channels: a whole number of channels.
        max_removed: a share, such as ``"80%"`` or 0.8; ``None`` for no limit.

    Raises:
        InvalidBudget: one of them is something else.

    Example:
        >>> limits_of(8, 1, "80%").least(64)
        13
    """
    share = Fraction(1) if max_removed is None else _share(max_removed)
    return Limits(_count("round_to", round_to), _count("min_channels", min_channels), share)


def _count(name: str, given: object) -> int:
    """Check a number of channels."""
    if isinstance(given, bool) or not isinstance(given, int | np.integer):
        raise InvalidBudget(f"{name}={given!r} must be a whole number of channels")
    if given < 1:
        raise InvalidBudget(f"{name} must be at least 1, not {given}")
    return int(given)


def _share(given: object) -> Fraction:
    """Read the share of a layer that may go."""
    text = str(given).strip() if isinstance(given, str | int | float) and not isinstance(given, bool) else ""
    try:
        share = Fraction(text[:-1]) / 100 if text.endswith("%") else Fraction(text).limit_denominator(10**9)
    except (ValueError, ZeroDivisionError):
        share = Fraction(0)
    if not 0 < share <= 1:
        raise InvalidBudget(
            f"max_removed={given!r} is no share of a layer's channels above 0 % and up to 100 %; write for example "
            "max_removed='80%'"
        )
    return share
