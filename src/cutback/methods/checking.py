"""Reading settings that methods share, and refusing those that cannot be meant."""

from collections.abc import Iterable, Mapping
from typing import get_args

from cutback.errors import InvalidBudget, UserMistake
from cutback.planning.budget import CHANNELS, Budget


def patterns_in(text: str) -> tuple[str, ...]:
    """Return the patterns of a text, which commas separate."""
    return tuple(pattern.strip() for pattern in text.split(",") if pattern.strip())


def check_finds_widths(method: str, budgets: Iterable[Budget]) -> None:
    """Refuse a budget on the channels of each layer, for a method that finds how many go where.

    Args:
        method: name of the method.
        budgets: what is asked for.

    Raises:
        InvalidBudget: one is on channels; says what to ask for.
    """
    if any(given.quantity == CHANNELS for given in budgets):
        raise InvalidBudget(
            f"{method} itself finds how many channels of each layer stay; bound a figure of the network, for example "
            "macs=50%"
        )


def check_whole(method: str, numbers: Mapping[str, tuple[object, int]]) -> None:
    """Refuse what is no whole number, or too small.

    Args:
        method: name of the method.
        numbers: what is given, and the least it may be, by the name of the setting.

    Raises:
        UserMistake: says which setting is to be written otherwise.
    """
    for name, (given, least) in numbers.items():
        if isinstance(given, bool) or not isinstance(given, int) or given < least:
            raise UserMistake(f"{name}={given!r} of {method} must be a whole number from {least}")


def check_known(method: str, choices: Mapping[str, tuple[object, object]]) -> None:
    """Refuse what is none of a setting's choices.

    Args:
        method: name of the method.
        choices: what is given, and the ``Literal`` type that names what may be, by the name of the setting.

    Raises:
        UserMistake: lists those there are.
    """
    for name, (given, known) in choices.items():
        if given not in get_args(known):
            raise UserMistake(f"{method}: {name}={given!r} is none of {', '.join(get_args(known))}; write one of them")


def check_loader(method: str, loader: object) -> None:
    """Refuse what is no iterable.

    Raises:
        UserMistake: says what to pass.
    """
    if not hasattr(loader, "__iter__"):
        raise UserMistake(f"{method} needs loader, an iterable of batches (inputs, labels) of the training split")
