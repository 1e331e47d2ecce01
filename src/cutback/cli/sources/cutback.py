"""``cutback:NAME``: the networks that come along."""

import inspect

import torch

from cutback.cli.models import Built, model_sources
from cutback.errors import UserMistake
from cutback.models import build, models
from cutback.train.data import Shape


@model_sources.register("cutback")
def load_catalogue(argument: str, *, input_shape: Shape | None) -> Built:
    """Build a network of ``cutback.models``, made for the given number of channels and size.

    Raises:
        UnknownName: no network is called that.
        UserMistake: it cannot be built for that shape.
    """
    entry = models.get(argument)
    options: dict[str, int] = {}
    if input_shape is not None and input_shape != entry.input_shape:
        channels, height, width = input_shape
        if channels != entry.input_shape[0]:
            options["in_channels"] = channels
        if "input_size" in inspect.signature(entry.build).parameters and input_shape[1:] != entry.input_shape[1:]:
            if height != width:
                raise UserMistake(f"cutback:{argument} takes square pictures, not {height}x{width}; use --input CxHxH")
            options["input_size"] = height
    written = "".join(f", {name}={value}" for name, value in options.items())
    example = torch.zeros(1, *(input_shape or entry.input_shape))
    imports = ("import cutback", "from cutback.models import build")
    return Built(build(argument, **options), example, imports, f'build("{argument}"{written})')
