"""Optional libraries that may be missing or broken."""

import importlib
from typing import Any

import torch

from cutback.errors import UserMistake


def imported(name: str, *, install: str) -> Any:  # noqa: ANN401 (a module whose members are known at run time)
    """Import an optional library.

    Args:
        name: dotted name of the module.
        install: name of its distribution.

    Raises:
        UserMistake: it is not installed, or fails while it is imported.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name in (name, name.partition(".")[0]):
            raise UserMistake(f"{install} is not installed; install it with: pip install {install}") from error
        raise UserMistake(
            f"{install} lacks the module {error.name}; install it with: pip install {error.name}"
        ) from error
    except Exception as error:
        reason = " ".join(str(error).split())
        found = f"{type(error).__name__}: {reason}"
        if "torchvision" in reason:
            raise UserMistake(
                f"torchvision was built for another torch than the {torch.__version__} here ({found}); "
                "install the one built for it, from where your torch came: "
                "pip install --force-reinstall --no-deps torchvision"
            ) from error
        raise UserMistake(
            f"{install} is installed but cannot be loaded ({found}); reinstall it in a version that suits torch "
            f"{torch.__version__}"
        ) from error
