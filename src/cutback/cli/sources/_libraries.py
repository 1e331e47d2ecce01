"""Models that a library's own code builds."""

from collections.abc import Callable
from typing import TypeVar

from cutback.errors import UserMistake

Result = TypeVar("Result")


def attempt(spec: str, build: Callable[[], Result]) -> Result:
    """Build a model with a library's own code.

    Raises:
        UserMistake: that code fails; carries its reason.
    """
    try:
        return build()
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise UserMistake(f"{spec} cannot be built ({type(error).__name__}: {reason}); check its name") from error
