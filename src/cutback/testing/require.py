"""What a check says where a promise is not kept."""

from collections.abc import Callable, Mapping

from torch import Tensor

from cutback.errors import ContractBroken, CutbackError


def require(kept: object, broken: str) -> None:
    """Raise where a promise is not kept.

    Raises:
        ContractBroken: ``kept`` is false.
    """
    if not kept:
        raise ContractBroken(broken)


def require_tree(value: object, where: str) -> None:
    """Refuse a state of other things than dicts with text keys, lists, tensors, numbers, text and ``None``."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            require(isinstance(key, str), f"{where} has the key {key!r}; keys are text")
            require_tree(item, f"{where}[{key!r}]")
    elif isinstance(value, list):
        for number, item in enumerate(value):
            require_tree(item, f"{where}[{number}]")
    else:
        plain = type(value) in (bool, int, float, str, type(None)) or isinstance(value, Tensor)
        require(plain, f"{where} is a {type(value).__name__}; a state holds dicts, lists, tensors, numbers and text")


def require_error(mistake: str, kinds: tuple[type[CutbackError], ...], act: Callable[[], object]) -> None:
    """See that something is refused with an error of a kind."""
    names = " or ".join(kind.__name__ for kind in kinds)
    try:
        act()
    except kinds as error:
        require(len(str(error)) > 20, f"{mistake} is refused with the message {str(error)!r}; say what to do")
        return
    except Exception as error:
        raise ContractBroken(f"{mistake} raises {type(error).__name__}, not {names}: {error}") from error
    raise ContractBroken(f"{mistake} is not refused; raise {names}")
