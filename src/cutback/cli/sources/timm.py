"""``timm:NAME``: timm's models, without their pretrained weights."""

from typing import Any

import torch

from cutback.cli.models import Built, model_sources
from cutback.cli.sources._libraries import attempt
from cutback.errors import UnknownName
from cutback.registry import near_misses
from cutback.train.data import Shape
from cutback.train.libraries import imported

EXAMPLE_SHAPE = (3, 224, 224)


@model_sources.register("timm")
def load_timm(argument: str, *, input_shape: Shape | None) -> Built:  # noqa: ARG001 (all sources share one signature)
    """Build a model with ``timm.create_model``.

    Raises:
        UserMistake: timm is missing or does not load, or refuses to build the model.
        UnknownName: it has no such model.
    """
    library = imported("timm", install="timm")
    if not library.is_model(argument):
        raise UnknownName(f"timm has no model {argument!r}; {near_misses(argument, list(library.list_models()))}")
    model: Any = attempt(f"timm:{argument}", lambda: library.create_model(argument, pretrained=False))
    shape = getattr(model, "default_cfg", {}).get("input_size", EXAMPLE_SHAPE)
    expression = f'timm.create_model("{argument}", pretrained=False)'
    return Built(model, torch.zeros(1, *shape), ("import cutback", "import timm"), expression)
