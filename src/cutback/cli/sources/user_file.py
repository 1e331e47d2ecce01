"""``path/to/file.py:function``: a model that a function in the user's own file returns."""

from pathlib import Path

from torch import nn

from cutback.cli.models import Built, model_sources
from cutback.errors import UserMistake
from cutback.train.data import USER_FILE, Shape
from cutback.train.user_code import run_function

PAIR = 2


@model_sources.register(USER_FILE)
def load_user_model(argument: str, *, input_shape: Shape | None) -> Built:  # noqa: ARG001 (all sources share one signature)
    """Call the user's function, which returns a model, or a model and its example inputs.

    Raises:
        UserMistake: the function cannot be loaded, fails, or returns something else.
    """
    path_text, _, name = argument.rpartition(":")
    returned = run_function(argument)
    model, inputs, written = returned, None, f"load_function({f'{Path(path_text).expanduser().resolve()}:{name}'!r})()"
    if isinstance(returned, tuple) and len(returned) == PAIR:
        (model, inputs), written = returned, f"{written}[0]"
    if not isinstance(model, nn.Module):
        raise UserMistake(
            f"{argument} returned a {type(model).__name__}; return a torch.nn.Module, or it and its inputs"
        )
    imports = ("import cutback", "from cutback.train.user_code import load_function")
    return Built(model, inputs, imports, written)
